//! Which waiting jobs form the next batch, and when. Pure: no clock, no channel; the caller says what time it is.
//!
//! # Design
//! Jobs wait in one bucket per key, because only equal keys may run together. The next batch comes from the bucket with the
//! most urgent job. A job is due at its deadline, but no later than `slack` after its arrival; so callers with deadlines go
//! first, and nobody waits for ever behind them. With equal slack and no deadlines this is "oldest head first". A strict
//! priority between callers was rejected because it starves.
//!
//! Every operation is linear in the number of buckets or jobs at worst; a few hundred jobs cost microseconds against
//! milliseconds of a run.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

/// When batches are formed, and of what size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Largest batch.
    pub(super) max_batch_size: usize,
    /// How long a job may wait for companions although a worker is idle.
    pub(super) max_delay: Duration,
    /// A job is due at this time after its arrival, if not before.
    pub(super) slack: Duration,
}

/// Waiting jobs.
#[derive(Debug)]
pub(super) struct Queue<K, T> {
    policy: Policy,
    buckets: HashMap<K, BTreeMap<Rank, Waiting<T>>>,
    next_id: u64,
}

/// Order inside a bucket: when the job is due, then arrival.
type Rank = (Instant, u64);

#[derive(Debug)]
struct Waiting<T> {
    job: T,
    ready_at: Instant,
    deadline: Option<Instant>,
}

impl<K: Clone + Eq + Hash, T> Queue<K, T> {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, buckets: HashMap::new(), next_id: 0 }
    }

    /// Adds a job that arrived at `now`.
    pub(super) fn push(&mut self, now: Instant, key: K, deadline: Option<Instant>, job: T) {
        let latest = now + self.policy.slack;
        let due = deadline.map_or(latest, |deadline| deadline.min(latest));
        // Half of the time left belongs to the run, whatever the configured delay.
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now) / 2);
        let ready_at = now + self.policy.max_delay.min(left);
        let id = self.next_id;
        self.next_id += 1;
        self.buckets.entry(key).or_default().insert((due, id), Waiting { job, ready_at, deadline });
    }

    /// Takes the next batch, most urgent job first, or nothing when no bucket is ready at `now`.
    pub(super) fn pick(&mut self, now: Instant) -> Option<(K, Vec<T>)> {
        let max = self.policy.max_batch_size;
        let ready = self.buckets.iter().filter(|(_, bucket)| bucket.len() >= max || ready_at(bucket).is_some_and(|at| at <= now));
        let (_, key) =
            ready.filter_map(|(key, bucket)| Some((*bucket.first_key_value()?.0, key))).min_by_key(|(rank, _)| *rank)?;
        let key = key.clone();

        let bucket = self.buckets.get_mut(&key)?;
        let mut jobs = Vec::with_capacity(bucket.len().min(max));
        while jobs.len() < max
            && let Some((_, waiting)) = bucket.pop_first()
        {
            jobs.push(waiting.job);
        }
        if bucket.is_empty() {
            self.buckets.remove(&key);
        }
        Some((key, jobs))
    }

    /// When the next bucket gets ready by waiting alone; only of interest after `pick` found nothing.
    pub(super) fn next_ready(&self) -> Option<Instant> {
        self.buckets.values().filter_map(ready_at).min()
    }

    /// Takes the jobs whose deadline is not after `now`.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<T> {
        self.take_where(|waiting| waiting.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Takes the jobs that `is_gone`.
    pub(super) fn take_gone(&mut self, is_gone: impl Fn(&T) -> bool) -> Vec<T> {
        self.take_where(|waiting| is_gone(&waiting.job))
    }

    /// Takes everything.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.take_where(|_| true)
    }

    fn take_where(&mut self, leaves: impl Fn(&Waiting<T>) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for bucket in self.buckets.values_mut() {
            taken.extend(bucket.extract_if(.., |_, waiting| leaves(waiting)).map(|(_, waiting)| waiting.job));
        }
        self.buckets.retain(|_, bucket| !bucket.is_empty());
        taken
    }
}

fn ready_at<T>(bucket: &BTreeMap<Rank, Waiting<T>>) -> Option<Instant> {
    bucket.values().map(|waiting| waiting.ready_at).min()
}

#[cfg(test)]
mod tests;
