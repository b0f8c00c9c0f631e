//! The schedule as callers, scheduler and workers share it.
//!
//! # Design
//! A lock around pure data, held for microseconds and never across a wait. It lets a caller be refused at once by a forecast that sees the
//! queue as it is, and a caller that goes take its job along. One task as the only owner, asked through a channel, was rejected: every refusal and
//! every departure would wait for that task to be scheduled, just when the machine is overloaded.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Observer, Runner,
    error::BatchError,
    job::{Batch, Job},
    schedule::{Launch, Left, Offer, Place, Schedule},
    stop::Stop,
};

/// What the parts of a batcher share.
pub(super) struct Shared<R: Runner> {
    core: Mutex<Core<R>>,
    /// There may be something new to launch.
    pub(super) wake: Notify,
    emptied: Notify,
    pub(super) observer: Arc<dyn Observer>,
}

struct Core<R: Runner> {
    /// Nobody launches anything any more.
    has_ended: bool,
    schedule: Schedule<R::Key, Job<R>>,
    /// Of the batch that each worker runs.
    stops: Vec<Stop>,
}

impl<R: Runner> Shared<R> {
    pub(super) fn new(schedule: Schedule<R::Key, Job<R>>, n_workers: usize, observer: Arc<dyn Observer>) -> Arc<Self> {
        let core = Mutex::new(Core { has_ended: false, schedule, stops: vec![Stop::default(); n_workers] });
        Arc::new(Self { core, wake: Notify::new(), emptied: Notify::new(), observer })
    }

    /// Takes a job in, or refuses it.
    pub(super) fn offer(&self, now: Instant, offer: Offer<R::Key>, job: Job<R>) -> Result<Place, BatchError> {
        let mut core = self.core();
        if core.has_ended {
            return Err(BatchError::Closed);
        }
        let place = core.schedule.offer(now, offer, job)?;
        drop(core);
        self.wake.notify_one();
        Ok(place)
    }

    /// Takes all jobs that wait, and lets none in any more.
    pub(super) fn end(&self) -> Vec<Job<R>> {
        let mut core = self.core();
        core.has_ended = true;
        core.schedule.take_all()
    }

    /// The caller of a job has gone.
    pub(super) fn leave(&self, place: Place) {
        let (left, stop) = {
            let mut core = self.core();
            let left = core.schedule.leave(place);
            let stop = if let Left::Last { worker_idx } = left { core.stops.get(worker_idx).cloned() } else { None };
            (left, stop)
        };
        stop.iter().for_each(Stop::stop);
        // Outside of the lock: the input may be large.
        drop(left);
        self.look_whether_empty();
        self.wake.notify_one();
    }

    /// The next batch for an idle worker.
    pub(super) fn pick(&self, worker_idx: usize) -> Option<Batch<R>> {
        let launched = Instant::now();
        let stop = Stop::default();
        let launch = {
            let mut core = self.core();
            let launch = core.schedule.pick(launched, worker_idx)?;
            core.stops.get_mut(worker_idx).into_iter().for_each(|of_worker| *of_worker = stop.clone());
            launch
        };
        let Launch { key, jobs, predicted, longest_wait } = launch;
        self.observer.launched(&key, jobs.len(), longest_wait, predicted);
        Some(Batch { key, jobs, launched, stop })
    }

    /// A worker has ended its batch.
    pub(super) fn finish(&self, worker_idx: usize, well: bool) {
        let now = Instant::now();
        let (ran, drain_time) = {
            let mut core = self.core();
            (core.schedule.finish(now, worker_idx, well), core.schedule.drain_time(now))
        };
        self.look_whether_empty();
        if let Some(ran) = ran {
            self.observer.ran(&ran.key, ran.batch_size, ran.predicted, ran.actual, drain_time);
        }
    }

    /// Waits until nothing is inside.
    pub(super) async fn wait_until_empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.with(|schedule| schedule.load().n_jobs == 0) {
                return;
            }
            emptied.await;
        }
    }

    /// Asks or tells the schedule something.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&mut Schedule<R::Key, Job<R>>) -> T) -> T {
        ask(&mut self.core().schedule)
    }

    fn look_whether_empty(&self) {
        if self.with(|schedule| schedule.load().n_jobs == 0) {
            self.emptied.notify_waiters();
        }
    }

    fn core(&self) -> MutexGuard<'_, Core<R>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Runner> fmt::Debug for Shared<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("load", &self.with(|schedule| schedule.load())).finish_non_exhaustive()
    }
}
