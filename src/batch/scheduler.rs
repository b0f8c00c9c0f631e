//! The one task that gives batches to idle workers: it waits for whatever may change what runs next.
//!
//! # Design
//! A batch is formed at the moment a worker is free and not before: that is when it can be largest, and
//! a job that is cancelled until then costs nothing. Preparing one batch ahead was rejected, because the gap it would hide
//! (tens of microseconds) is small against a run, and it would fix the batch one run too early.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{Runner, error::BatchError, job::Batch, shared::Shared};

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

/// The scheduler's ends of the channels.
pub(super) struct Scheduler<R: Runner> {
    pub(super) shared: Arc<Shared<R>>,
    /// Workers report here.
    pub(super) idle: mpsc::Receiver<usize>,
    /// Workers get batches here.
    pub(super) workers: Vec<mpsc::Sender<Batch<R>>>,
    pub(super) idle_workers: Vec<usize>,
    pub(super) phase: watch::Receiver<Phase>,
}

impl<R: Runner> Scheduler<R> {
    /// Runs until the batcher is closed, all its handles and jobs are gone, or all its workers.
    pub(super) async fn run(mut self) {
        while self.step().await {
            while let Ok(worker_idx) = self.idle.try_recv() {
                self.idle_workers.push(worker_idx);
            }
            self.launch();
        }
    }

    /// Waits for one event. Says whether to go on.
    async fn step(&mut self) -> bool {
        let wake_at = if self.idle_workers.is_empty() { None } else { self.shared.with(|schedule| schedule.next_ready()) };
        tokio::select! {
            biased;
            changed = self.phase.changed() => {
                self.shared.with(|schedule| schedule.close());
                changed.is_ok() && *self.phase.borrow() < Phase::Closed
            }
            worker_idx = self.idle.recv() => {
                self.idle_workers.extend(worker_idx);
                worker_idx.is_some()
            }
            () = self.shared.wake.notified() => true,
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => true,
        }
    }

    /// Gives batches to idle workers until either runs out.
    fn launch(&mut self) {
        while let Some(worker_idx) = self.idle_workers.pop() {
            let Some(batch) = self.shared.pick(worker_idx) else {
                self.idle_workers.push(worker_idx);
                return;
            };
            self.send(worker_idx, batch);
        }
    }

    fn send(&self, worker_idx: usize, batch: Batch<R>) {
        // Idle workers have room for a batch; one that vanished drops it, which its callers see as `Lost`.
        if let Some(worker) = self.workers.get(worker_idx)
            && worker.try_send(batch).is_err()
        {
            self.shared.finish(worker_idx, false);
            tracing::error!(worker_idx, "batch worker {worker_idx} has vanished");
        }
    }
}

/// However it ends, by a panic too, nothing that waits is forgotten, and nothing is taken in any more: it would wait for ever.
impl<R: Runner> Drop for Scheduler<R> {
    fn drop(&mut self) {
        self.shared.end().into_iter().for_each(|job| job.refuse(BatchError::Closed));
    }
}
