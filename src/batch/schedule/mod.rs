//! What runs next, with whom, and what is refused. Pure data driven by the time that callers tell: the batcher's task drives it with the
//! clock, `benches/policies` with the time of a simulation.
//!
//! ```text
//! offer ─► budget, forecast ─► bucket of its key ─► pick: turn ─► bucket ─► size ─► run ─► finish ─► cost, shares
//!               └► refusal             └► leave (cancelled, expired)                 └► leave: stop when all have gone
//! ```
//!
//! # Design
//! - **Which jobs run together:** only equal keys, one bucket a key. Images of different sizes would need padding, and masks that reach
//!   attention and convolutions, to give the same values.
//! - **Who may:** `shares` of time among tenants and priorities; whoever has credit competes.
//! - **Who first:** the earliest due job, in its bucket and between buckets. If deadlines can be met at all on one machine, this order meets them
//!   (Jackson, "Scheduling a Production Line to Minimize Maximum Tardiness", 1955; Liu and Layland 1973 as EDF). A job without a deadline is due at a
//!   horizon after its arrival, a deadline beyond the horizon as well; so nobody waits for ever, whatever arrives later. Slack decides where
//!   that rule is blind: a job that is due by the horizon only lets those pass whose latest start, `deadline - a - b`, would otherwise go by.
//!   Least slack first alone was rejected: short jobs with near deadlines lose against long ones with far deadlines that could still wait.
//! - **How many:** no more than pays (`cost`), and no more than lets every member be in time where it alone would be. Rejected: fewer, so that
//!   the heads of other buckets are in time as well. It saves them and loses more behind them, because small batches waste the executor
//!   (tried with `benches/policies` on 2026-11-26, the assumed accelerator at a load of 0.8: 82 % of the work in time instead of 90 %). Rejected
//!   for lack of gain: full buckets first while all others can wait; a factor on the forecast, learned from what waits were foretold and were.
//! - **What never runs:** cancelled and expired jobs. Overload ruins earliest deadlines first, which then runs one job after another just too late;
//!   so what would probably end too late is set aside, and runs only when nothing else waits: an executor that idles should
//!   rather prove the estimate wrong.
//! - **What is refused:** what exceeds the budget, and what would be late by the forecast. Never when it could start at once: a forecast that is
//!   wrong must not keep itself alive.
//! - **What is bounded:** jobs and bytes by the budget, buckets and tenants by number; idle ones are forgotten, the oldest first.
//!
//! Each operation takes time in proportion to the number of buckets times waiting flows; see the README for microseconds.

mod bucket;
mod choose;
mod cost;
mod forecast;
mod rates;
mod shares;

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

use self::{
    bucket::{Bucket, Entry, Rank},
    cost::CostModel,
    rates::Rates,
    shares::{Flow, Shares},
};
use super::{
    budget::{Budget, Load},
    caller::{Caller, Tenant},
    config::BatchConfig,
    error::{BatchError, Limit},
};

/// What must be known of a job.
#[derive(Clone, Copy, Debug)]
pub struct Offer<K> {
    /// Jobs of equal keys may run together.
    pub key: K,
    /// Cost of the job in relation to jobs of other keys, for predictions before its key has run.
    pub size: f64,
    /// Whose it is.
    pub caller: Caller,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// Memory that it holds, in bytes.
    pub n_bytes: usize,
}

/// Where a job is, for [`Schedule::leave`].
#[derive(Clone, Copy, Debug)]
pub struct Place {
    bucket_idx: usize,
    flow: Flow,
    rank: Rank,
}

/// A batch to run.
#[derive(Debug)]
pub struct Launch<K, T> {
    /// Their key.
    pub key: K,
    /// One to `max_batch_size`, the most urgent first.
    pub jobs: Vec<T>,
    /// How long the run will take, if that is known.
    pub predicted: Option<Duration>,
    /// Time since the arrival of the oldest.
    pub longest_wait: Duration,
}

/// A run that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ran<K> {
    /// Key of its jobs.
    pub key: K,
    /// How many they were.
    pub batch_size: usize,
    /// How long it should have taken, if that was known.
    pub predicted: Option<Duration>,
    /// How long it took.
    pub actual: Duration,
}

/// What [`Schedule::leave`] found.
#[derive(Debug)]
pub enum Left<T> {
    /// The job was waiting, and has gone.
    Waiting(T),
    /// The job runs with others that are still wanted.
    Running,
    /// The job was the last of its batch that was wanted: the worker may stop.
    Last {
        /// Who runs the batch.
        worker_idx: usize,
    },
    /// The job is not here any more.
    Nothing,
}

/// Jobs that wait, and batches that run.
#[derive(Debug)]
pub struct Schedule<K, T> {
    config: BatchConfig,
    budget: Budget,
    shares: Shares,
    rates: Rates,
    buckets: Vec<Bucket<K, T>>,
    index: HashMap<K, usize>,
    /// By worker.
    running: Vec<Option<Run>>,
    n_offered: u64,
    /// Nobody waits for companions any more.
    is_closing: bool,
}

/// Where a job that is counted in goes.
#[derive(Clone, Copy, Debug)]
struct Entrance {
    bucket_idx: usize,
    flow: Flow,
    /// When it is due.
    due: Instant,
}

/// A batch on a worker.
#[derive(Debug)]
struct Run {
    bucket_idx: usize,
    members: Vec<Member>,
    launched: Instant,
    /// In seconds; what the members were charged.
    predicted: f64,
    is_known: bool,
}

#[derive(Debug)]
struct Member {
    rank: Rank,
    flow: Flow,
    tenant: Tenant,
    n_bytes: usize,
    is_wanted: bool,
}

impl<K: Clone + Eq + Hash, T> Schedule<K, T> {
    /// An empty schedule for so many workers.
    #[must_use]
    pub fn new(config: BatchConfig, n_workers: usize) -> Self {
        let max = Load { n_jobs: config.max_queue_count, n_bytes: config.max_queue_bytes };
        let credit = [config.fair_quantum_ms, config.tenant_burst_ms].map(|ms| Duration::from_millis(ms).as_secs_f64());
        Self {
            budget: Budget::new(max, config.max_tenant_percent),
            shares: Shares::new(config.weights(), config.max_tenants, credit.into()),
            rates: Rates::default(),
            buckets: Vec::new(),
            index: HashMap::new(),
            running: (0..n_workers).map(|_| None).collect(),
            n_offered: 0,
            is_closing: false,
            config,
        }
    }

    /// Takes a job in.
    ///
    /// # Errors
    /// [`BatchError::DeadlineExceeded`], [`BatchError::Full`], [`BatchError::TooLarge`], or [`BatchError::TooLate`] when it would miss its
    /// deadline by the forecast.
    pub fn offer(&mut self, now: Instant, offer: Offer<K>, job: T) -> Result<Place, BatchError> {
        let Entrance { bucket_idx, flow, due } = self.enter(now, &offer)?;
        let Offer { caller: Caller { tenant, .. }, deadline, n_bytes, .. } = offer;
        let rank = (due, self.n_offered);
        let ready_at = self.ready_at(now, deadline);
        if let Some(bucket) = self.buckets.get_mut(bucket_idx) {
            bucket.push(Entry { rank, flow, tenant, n_bytes, arrived: now, deadline, ready_at, job });
        }
        Ok(Place { bucket_idx, flow, rank })
    }

    /// Whether a job would be taken in now.
    ///
    /// # Errors
    /// Those of [`offer`](Self::offer).
    pub fn foresee(&mut self, now: Instant, offer: Offer<K>) -> Result<(), BatchError> {
        let Entrance { flow, .. } = self.enter(now, &offer)?;
        self.shares.stop_waiting(flow);
        self.shares.exit(flow);
        self.budget.leave(offer.caller.tenant, offer.n_bytes);
        Ok(())
    }

    /// Counts a job in, or refuses it.
    fn enter(&mut self, now: Instant, offer: &Offer<K>) -> Result<Entrance, BatchError> {
        let Offer { ref key, size, caller, deadline, n_bytes } = *offer;
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(BatchError::DeadlineExceeded);
        }
        let tenant = caller.tenant;
        self.budget.enter(tenant, n_bytes).map_err(|exceeded| exceeded.refusal(n_bytes, self.retry_after(now)))?;
        let horizon = now + Duration::from_millis(self.config.horizon_ms);
        let due = deadline.map_or(horizon, |deadline| deadline.min(horizon));
        let admitted = self.bucket(now, key, size).and_then(|bucket_idx| {
            let flow = self.shares.enter(caller);
            match self.too_late(now, bucket_idx, flow, due, deadline) {
                None => Ok(Entrance { bucket_idx, flow, due }),
                Some(refusal) => {
                    self.shares.stop_waiting(flow);
                    self.shares.exit(flow);
                    Err(refusal)
                }
            }
        });
        admitted.inspect_err(|_| self.budget.leave(tenant, n_bytes))
    }

    /// The caller of a job has gone.
    pub fn leave(&mut self, place: Place) -> Left<T> {
        let Place { bucket_idx, flow, rank } = place;
        let waiting = self.buckets.get_mut(bucket_idx).and_then(|bucket| bucket.remove(flow, rank));
        if let Some((entry, had_a_chance)) = waiting {
            if had_a_chance {
                self.shares.stop_waiting(flow);
            }
            self.shares.exit(flow);
            self.budget.leave(entry.tenant, entry.n_bytes);
            return Left::Waiting(entry.job);
        }
        for (worker_idx, run) in self.running.iter_mut().enumerate() {
            let members = run.iter_mut().flat_map(|run| &mut run.members);
            let (mut was_here, mut is_wanted) = (false, false);
            for member in members {
                was_here |= member.rank == rank;
                member.is_wanted &= member.rank != rank;
                is_wanted |= member.is_wanted;
            }
            if was_here {
                return if is_wanted { Left::Running } else { Left::Last { worker_idx } };
            }
        }
        Left::Nothing
    }

    /// A worker has ended its batch. The time of a run that went `well` tells about others. So does that of one that was stopped because all its
    /// members had left, if it was longer than predicted: it would have taken even longer. Without that, an estimate that is too low would
    /// live on when runs are stopped at the deadlines that it made them miss.
    pub fn finish(&mut self, now: Instant, worker_idx: usize, well: bool) -> Option<Ran<K>> {
        let run = self.running.get_mut(worker_idx)?.take()?;
        let Run { bucket_idx, members, launched, predicted, is_known } = run;
        let actual = now.saturating_duration_since(launched);
        let batch_size = members.len();
        let tells = well || (actual.as_secs_f64() > predicted && members.iter().all(|member| !member.is_wanted));
        let correction = (actual.as_secs_f64() - predicted) / cost::count(batch_size.max(1));
        for Member { flow, tenant, n_bytes, .. } in members {
            self.shares.charge(flow, correction);
            self.shares.exit(flow);
            self.budget.leave(tenant, n_bytes);
        }
        let bucket = self.buckets.get_mut(bucket_idx)?;
        bucket.n_running = bucket.n_running.saturating_sub(1);
        let key = bucket.key.clone();
        if tells {
            self.learn(now, bucket_idx, batch_size, actual);
        }
        Some(Ran { key, batch_size, predicted: is_known.then(|| cost::duration(predicted)), actual })
    }

    /// Learns from a run that was none of a job, as in warm-up.
    pub fn seed(&mut self, now: Instant, key: &K, size: f64, batch_size: usize, time: Duration) {
        if let Ok(bucket_idx) = self.bucket(now, key, size) {
            self.learn(now, bucket_idx, batch_size, time);
        }
    }

    /// What is inside, waiting or running.
    #[must_use]
    pub fn load(&self) -> Load {
        self.budget.total()
    }

    /// Nothing more will come, so nobody needs to wait for companions.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// Takes all jobs that wait.
    pub fn take_all(&mut self) -> Vec<T> {
        let entries: Vec<Entry<T>> = self.buckets.iter_mut().flat_map(Bucket::take_all).collect();
        for entry in &entries {
            self.shares.exit(entry.flow);
            self.budget.leave(entry.tenant, entry.n_bytes);
        }
        entries.into_iter().map(|entry| entry.job).collect()
    }

    fn ready_at(&self, now: Instant, deadline: Option<Instant>) -> Instant {
        // Half of the time left belongs to the run, whatever the configured delay.
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now) / 2);
        now + Duration::from_millis(self.config.max_queue_delay_ms).min(left)
    }

    /// The bucket of a key, if need be in place of the one that has been idle for longest.
    fn bucket(&mut self, now: Instant, key: &K, size: f64) -> Result<usize, BatchError> {
        self.n_offered += 1;
        let used = self.n_offered;
        let known = self.index.get(key).copied();
        let bucket_idx = match known {
            Some(bucket_idx) => bucket_idx,
            None => self.open(key, size).ok_or_else(|| BatchError::Full {
                limit: Limit::Buckets,
                max: self.config.max_buckets,
                retry_after: self.retry_after(now),
            })?,
        };
        self.buckets.get_mut(bucket_idx).into_iter().for_each(|bucket| bucket.last_used = used);
        Ok(bucket_idx)
    }

    fn open(&mut self, key: &K, size: f64) -> Option<usize> {
        let new = Bucket::new(key.clone(), size, CostModel::new(self.rates.ratio(size)));
        let bucket_idx = if self.buckets.len() < self.config.max_buckets {
            self.buckets.push(new);
            self.buckets.len() - 1
        } else {
            let idle = self.buckets.iter().enumerate().filter(|(_, bucket)| bucket.is_idle());
            let (bucket_idx, _) = idle.min_by_key(|(_, bucket)| bucket.last_used)?;
            let old = std::mem::replace(self.buckets.get_mut(bucket_idx)?, new);
            self.index.remove(&old.key);
            bucket_idx
        };
        self.index.insert(key.clone(), bucket_idx);
        Some(bucket_idx)
    }

    fn learn(&mut self, now: Instant, bucket_idx: usize, batch_size: usize, time: Duration) {
        if let Some(bucket) = self.buckets.get_mut(bucket_idx) {
            bucket.cost.observe(now, batch_size, time.as_secs_f64());
            let (size, line) = (bucket.size, bucket.cost.line());
            line.into_iter().for_each(|line| self.rates.observe(size, line));
        }
    }
}

#[cfg(test)]
mod tests;
