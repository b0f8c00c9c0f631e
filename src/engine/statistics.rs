//! What a model has done since it was loaded: counts and times, cumulative, over all services of the port.
//!
//! In: each request's outcome from the engine, each run from its executor. Out: [`Counts`], a copy at one moment. The same moments
//! feed the histograms of `telemetry`, which have no model in their labels.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::engine::{Source, Timing};

/// How often something happened, and how long it took altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// Sum of the times.
    pub total: Duration,
}

/// Runs with equally many jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTally {
    /// Putting inputs together and taking outputs apart.
    pub assemble: Tally,
    /// The graphs.
    pub infer: Tally,
}

/// Everything that is counted of a model. A request of several images counts once, with the times of its slowest image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// When the last request was answered.
    pub last_answer: Option<SystemTime>,
    /// Images that were answered.
    pub n_images: u64,
    /// Requests that were answered, from arrival to answer.
    pub success: Tally,
    /// Requests that failed on their way through the engine.
    pub fail: Tally,
    /// Images that were answered without a run of their own, kept or by the run of an equal request: the time of the cache. Nothing is
    /// counted here and below while there is no cache.
    pub cache_hit: Tally,
    /// Images that were run and then kept: the time of the cache beside the run.
    pub cache_miss: Tally,
    /// Requests that were run and answered: waiting for an executor.
    pub queue: Tally,
    /// The same: decoding and resizing.
    pub prepare: Tally,
    /// The same: the graphs, for the whole batch.
    pub infer: Tally,
    /// The same: encoding the answer.
    pub encode: Tally,
    /// Successful runs, by their number of jobs. A job is an image, or a window of one.
    pub runs: BTreeMap<usize, RunTally>,
}

/// Counts of one loaded model.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Counts>);

impl Tally {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.total = self.total.saturating_add(time);
    }
}

impl Counts {
    /// Successful runs.
    #[must_use]
    pub fn n_runs(&self) -> u64 {
        self.runs.values().map(|run| run.infer.count).sum()
    }
}

impl Statistics {
    /// A copy of the counts, all of one moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request of `n_images` ended after `total`: with the times of its stages, or without an answer.
    pub(super) fn request(&self, n_images: usize, total: Duration, answered: Option<&Timing>) {
        self.update(|counts| {
            let Some(timing) = answered else { return counts.fail.add(total) };
            counts.last_answer = Some(SystemTime::now());
            counts.n_images += n_images as u64;
            counts.success.add(total);
            if timing.source != Source::Run {
                return;
            }
            counts.queue.add(timing.queue);
            counts.prepare.add(timing.decode + timing.resize);
            counts.infer.add(timing.infer());
            counts.encode.add(timing.postprocess);
        });
    }

    /// An image was answered with a cache there, in which it spent `time`.
    pub(super) fn cached(&self, source: Source, time: Duration) {
        self.update(|counts| match source {
            Source::Run => counts.cache_miss.add(time),
            Source::Shared | Source::Cache => counts.cache_hit.add(time),
        });
    }

    /// A run of `n_jobs` succeeded; of `total`, the graphs took `infer`.
    pub(super) fn run(&self, n_jobs: usize, total: Duration, infer: Duration) {
        self.update(|counts| {
            let run = counts.runs.entry(n_jobs).or_default();
            run.assemble.add(total.saturating_sub(infer));
            run.infer.add(infer);
        });
    }

    fn update(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_request_of_several_images_counts_once_and_its_images_each() {
        let statistics = Statistics::default();
        let timing = Timing { decode: 2 * MS, resize: MS, queue: 5 * MS, backbone: 7 * MS, ..Timing::default() };
        statistics.request(3, 20 * MS, Some(&timing));
        statistics.request(1, 9 * MS, None);
        let counts = statistics.counts();
        assert_eq!((counts.n_images, counts.success.count, counts.fail.count), (3, 1, 1));
        assert_eq!((counts.success.total, counts.fail.total), (20 * MS, 9 * MS));
        assert_eq!((counts.prepare.total, counts.queue.total, counts.infer.total), (3 * MS, 5 * MS, 7 * MS));
        assert!(counts.last_answer.is_some());
    }

    #[test]
    fn answers_of_the_cache_are_answers_and_spend_no_time_in_stages() {
        let statistics = Statistics::default();
        let hit = Timing { cache: MS, total: 2 * MS, source: Source::Cache, ..Timing::default() };
        statistics.cached(hit.source, hit.cache);
        statistics.request(1, hit.total, Some(&hit));
        statistics.cached(Source::Run, 3 * MS);
        let counts = statistics.counts();
        assert_eq!((counts.n_images, counts.success.count, counts.queue.count), (1, 1, 0));
        assert_eq!((counts.cache_hit.total, counts.cache_miss.total), (MS, 3 * MS));
    }

    #[test]
    fn runs_are_told_apart_by_their_size() {
        let statistics = Statistics::default();
        statistics.run(1, 10 * MS, 8 * MS);
        statistics.run(4, 30 * MS, 29 * MS);
        statistics.run(4, 30 * MS, 28 * MS);
        let counts = statistics.counts();
        assert_eq!(counts.n_runs(), 3);
        assert_eq!(counts.runs[&4].infer, Tally { count: 2, total: 57 * MS });
        assert_eq!(counts.runs[&1].assemble, Tally { count: 1, total: 2 * MS });
    }
}
