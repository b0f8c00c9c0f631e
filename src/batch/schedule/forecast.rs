//! When a job would be answered, if it came in now.

use std::{hash::Hash, time::Duration};

use tokio::time::Instant;

use super::{
    Schedule,
    bucket::Bucket,
    choose::TOLERANCE,
    cost::{Line, count, duration},
    shares::{Flow, Waiting},
};
use crate::batch::error::BatchError;

/// When it is worth trying again while nothing has run that could tell.
const DEFAULT_RETRY: Duration = Duration::from_millis(250);

impl<K: Clone + Eq + Hash, T> Schedule<K, T> {
    /// Time until everything inside is done.
    #[must_use]
    pub fn drain_time(&self, now: Instant) -> Duration {
        let running: f64 = self.remaining(now).sum();
        duration((self.backlog() + running) / count(self.running.len().max(1)))
    }

    /// What refusals for lack of room tell: when what is inside now will be done.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        let drain = self.drain_time(now);
        if drain.is_zero() { DEFAULT_RETRY } else { drain }
    }

    /// The line of a bucket, by its own runs or by those of others.
    pub(super) fn line(&self, bucket: &Bucket<K, T>) -> Line {
        bucket.cost.line().unwrap_or_else(|| self.rates.line(bucket.size))
    }

    /// Seconds of work that wait in a bucket.
    pub(super) fn waiting_work(&self, bucket: &Bucket<K, T>) -> f64 {
        let n_waiting = bucket.n_waiting();
        if n_waiting == 0 {
            return 0.0;
        }
        self.usual_cost(bucket, n_waiting) * count(n_waiting)
    }

    /// Seconds of all work that waits.
    pub(super) fn backlog(&self) -> f64 {
        self.buckets.iter().map(|bucket| self.waiting_work(bucket)).sum()
    }

    /// The refusal of a job that would be late, to be answered at `deadline`.
    pub(super) fn too_late(
        &self,
        now: Instant,
        bucket_idx: usize,
        flow: Flow,
        due: Instant,
        deadline: Option<Instant>,
    ) -> Option<BatchError> {
        let deadline = deadline?;
        let bucket = self.buckets.get(bucket_idx)?;
        let left = deadline.saturating_duration_since(now).as_secs_f64();
        if self.drain_time(now).as_secs_f64() + self.usual_cost(bucket, bucket.n_waiting() + 1) <= left {
            // In time even as the last of all that is inside: who goes first need not be found out.
            return None;
        }
        let (before, own) = self.before(now, bucket_idx, flow, (due, deadline));
        if before <= 0.0 {
            return None;
        }
        let own = own.min(bucket.cost.rules_out(now));
        if before + own <= left {
            return None;
        }
        let retry_after = duration(before + own - left).max(Duration::from_millis(1));
        Some(BatchError::TooLate { predicted: duration(before + own), retry_after })
    }

    /// Seconds until a job of `flow` would start, and those that it adds itself.
    fn before(&self, now: Instant, bucket_idx: usize, flow: Flow, (due, deadline): (Instant, Instant)) -> (f64, f64) {
        let mut waiting = Waiting::new(self.shares.n_tenants(), flow);
        let own_line = self.buckets.get(bucket_idx).map_or(Line { a: 0.0, b: 0.0 }, |bucket| self.line(bucket));
        let latest_start = deadline.checked_sub(duration(own_line.seconds(1))).unwrap_or(now);
        // A job that is itself due by the horizon passes nobody.
        let gives_way = if due < deadline { due } else { latest_start };
        let (mut mine, mut own) = (0.0, 0.0);
        for (idx, bucket) in self.buckets.iter().enumerate() {
            let is_own = idx == bucket_idx;
            if bucket.n_waiting() == 0 && !is_own {
                continue;
            }
            let per_image = self.usual_cost(bucket, bucket.n_waiting() + usize::from(is_own));
            if is_own {
                own = per_image;
            }
            for lane in &bucket.lanes {
                if lane.flow == flow {
                    mine += per_image * count(lane.n_before(due, gives_way));
                } else {
                    waiting.add(lane.flow, per_image * count(lane.len()));
                }
            }
        }
        let others = self.shares.before(flow, mine + own, &waiting);
        let is_idle = self.running.iter().any(Option::is_none);
        let running = if is_idle { 0.0 } else { self.remaining(now).sum() };
        ((mine + others + running) / count(self.running.len().max(1)), own)
    }

    /// Seconds of each image of a bucket in batches as they are usual while so many wait.
    fn usual_cost(&self, bucket: &Bucket<K, T>, n_waiting: usize) -> f64 {
        let (line, max) = (self.line(bucket), self.config.max_batch_size.min(n_waiting.max(1)));
        bucket.usual.seconds(line, max, TOLERANCE)
    }

    /// Seconds that each batch that runs will still take.
    pub(super) fn remaining(&self, now: Instant) -> impl Iterator<Item = f64> + '_ {
        let left = move |launched: Instant, predicted: f64| (predicted - (now - launched).as_secs_f64()).max(0.0);
        self.running.iter().flatten().map(move |run| left(run.launched, run.predicted))
    }
}
