//! The one task that owns the waiting jobs: receives them, drops those whose callers have gone, and gives batches to idle
//! workers.
//!
//! # Design
//! One owner, so no lock. A batch is formed at the moment a worker is free and not before: that is when it can be largest, and
//! a job that is cancelled until then costs nothing. Preparing one batch ahead was rejected, because the gap it would hide
//! (tens of microseconds) is small against a run, and it would fix the batch one run too early.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Observer, Runner,
    error::BatchError,
    job::{Batch, Job},
    queue::Queue,
};

/// Life of a batcher, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Takes jobs.
    Open,
    /// Refuses new jobs, finishes those inside.
    Draining,
    /// Refuses everything.
    Closed,
}

/// The scheduler's state and its ends of the channels.
pub(super) struct Scheduler<R: Runner> {
    pub(super) jobs: mpsc::Receiver<Job<R>>,
    pub(super) queue: Queue<R::Key, Job<R>>,
    /// Workers report here.
    pub(super) idle: mpsc::Receiver<usize>,
    /// Workers get batches here.
    pub(super) workers: Vec<mpsc::Sender<Batch<R>>>,
    pub(super) idle_workers: Vec<usize>,
    /// A caller has gone.
    pub(super) gone: Arc<Notify>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) observer: Arc<dyn Observer>,
}

impl<R: Runner> Scheduler<R> {
    /// Runs until the batcher is closed or all its handles and jobs are gone.
    pub(super) async fn run(mut self) {
        while self.step().await {
            self.receive();
            self.launch();
        }
        self.jobs.close();
        self.receive();
        self.queue.take_all().into_iter().for_each(|job| job.refuse(BatchError::Closed));
    }

    /// Waits for one event. Says whether to go on.
    async fn step(&mut self) -> bool {
        let wake_at = if self.idle_workers.is_empty() { None } else { self.queue.next_ready() };
        tokio::select! {
            biased;
            changed = self.phase.changed() => changed.is_ok() && *self.phase.borrow() < Phase::Closed,
            worker_idx = self.idle.recv() => {
                self.idle_workers.extend(worker_idx);
                worker_idx.is_some()
            }
            () = self.gone.notified() => {
                self.receive();
                drop(self.queue.take_gone(Job::is_cancelled));
                true
            }
            job = self.jobs.recv() => {
                let is_alive = job.is_some();
                job.into_iter().for_each(|job| self.enqueue(job));
                is_alive
            }
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => true,
        }
    }

    /// Takes whatever has arrived meanwhile, so that batches are as large as they can be.
    fn receive(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.enqueue(job);
        }
        while let Ok(worker_idx) = self.idle.try_recv() {
            self.idle_workers.push(worker_idx);
        }
    }

    fn enqueue(&mut self, job: Job<R>) {
        self.queue.push(job.enqueued, job.key.clone(), job.deadline, job);
    }

    /// Gives batches to idle workers until either runs out.
    fn launch(&mut self) {
        if self.idle_workers.is_empty() {
            return;
        }
        let now = Instant::now();
        self.queue.take_expired(now).into_iter().for_each(|job| job.refuse(BatchError::DeadlineExceeded));
        drop(self.queue.take_gone(Job::is_cancelled));
        // While draining nothing more can arrive, so nobody waits for companions.
        let ready_by = if *self.phase.borrow() == Phase::Open { now } else { now + Duration::from_hours(1) };
        while let Some(worker_idx) = self.idle_workers.pop() {
            let Some((key, jobs)) = self.queue.pick(ready_by) else {
                self.idle_workers.push(worker_idx);
                return;
            };
            self.send(worker_idx, Batch { key, jobs, launched: now });
        }
    }

    fn send(&self, worker_idx: usize, batch: Batch<R>) {
        let longest_wait = batch.jobs.iter().map(|job| batch.launched.saturating_duration_since(job.enqueued)).max();
        self.observer.launched(&batch.key, batch.jobs.len(), longest_wait.unwrap_or_default());
        // Idle workers have room for a batch; one that vanished drops it, which its callers see as `Lost`.
        if let Some(worker) = self.workers.get(worker_idx)
            && worker.try_send(batch).is_err()
        {
            tracing::error!(worker_idx, "batch worker {worker_idx} has vanished");
        }
    }
}
