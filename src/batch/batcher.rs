//! The handle of a batcher: submits jobs, and answers for them.

use std::{fmt, fmt::Debug, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tracing::debug_span;

use super::{
    BatchConfig, Caller, Load, Observer, Runner, Submit,
    error::{BatchError, StartError},
    job::{Completed, Job},
    schedule::{Offer, Place, Schedule},
    scheduler::{Phase, Scheduler},
    shared::Shared,
    worker::{self, WorkerEnd},
};

/// Cost of a key in relation to others.
type Size<K> = Arc<dyn Fn(&K) -> f64 + Send + Sync>;

/// Handle to a batcher; clones share it. It stops when it is drained or when the last handle is dropped.
pub struct Batcher<R: Runner> {
    shared: Arc<Shared<R>>,
    phase: Arc<watch::Sender<Phase>>,
    size: Size<R::Key>,
}

impl<R: Runner> Batcher<R> {
    /// Starts one thread per runner, and the scheduler on the current tokio runtime. `size` is the cost of one job of a key in
    /// relation to other keys, for predictions until runs of the key have told.
    ///
    /// # Errors
    /// When there is no runner, a limit is out of its range, or a thread cannot be started.
    ///
    /// # Panics
    /// Outside a tokio runtime, like `tokio::spawn`.
    pub fn start(
        config: BatchConfig,
        runners: Vec<R>,
        size: impl Fn(&R::Key) -> f64 + Send + Sync + 'static,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        config.check()?;
        if runners.is_empty() {
            return Err(StartError::NoRunner);
        }
        let (batcher, scheduler, ends) = wire(config, runners.len(), Arc::new(size), observer);
        for (runner, end) in runners.into_iter().zip(ends) {
            let worker_idx = end.worker_idx;
            worker::spawn(runner, end).map_err(|source| StartError::Spawn { worker_idx, source })?;
        }
        tokio::spawn(scheduler.run());
        Ok(batcher)
    }

    /// Runs a job with whatever else waits. Admission is decided at once. Dropping the future cancels the job: if it still
    /// waits, it leaves the queue; if it runs and nobody else of its batch is left, the run is stopped.
    ///
    /// # Errors
    /// [`BatchError::Full`], [`BatchError::TooLarge`], [`BatchError::TooLate`] or [`BatchError::Closed`] at once;
    /// [`BatchError::DeadlineExceeded`] when the deadline passes, even while the job runs; [`BatchError::Failed`] when it failed
    /// alone.
    pub async fn submit(&self, job: Submit<R::Key, R::Input>) -> Result<Completed<R::Output>, BatchError> {
        let deadline = job.deadline;
        let mut answer = self.enqueue(job).inspect_err(|reason| self.shared.observer.refused(reason))?;
        let received = match deadline {
            Some(deadline) => timeout_at(deadline, answer.receive()).await.unwrap_or(Err(BatchError::DeadlineExceeded)),
            None => answer.receive().await,
        };
        answer.outcome = match received {
            Err(BatchError::DeadlineExceeded) => Outcome::Expired,
            Err(BatchError::Closed) => Outcome::Closed,
            _ => Outcome::Answered,
        };
        received
    }

    /// Whether a job would be taken in now, as [`submit`](Self::submit) would answer at once.
    ///
    /// # Errors
    /// [`BatchError::Full`], [`BatchError::TooLarge`], [`BatchError::TooLate`], [`BatchError::DeadlineExceeded`] or [`BatchError::Closed`].
    pub fn foresee(&self, key: R::Key, n_bytes: usize, caller: Caller, deadline: Option<Instant>) -> Result<(), BatchError> {
        let (now, size) = (Instant::now(), (self.size)(&key));
        let outcome = if *self.phase.borrow() == Phase::Open {
            self.shared.with(|schedule| schedule.foresee(now, Offer { key, size, caller, deadline, n_bytes }))
        } else {
            Err(BatchError::Closed)
        };
        outcome.inspect_err(|reason| self.shared.observer.refused(reason))
    }

    /// Tells how long a batch took that was none of a job, as in warm-up: predictions begin with it.
    pub fn seed(&self, key: &R::Key, batch_size: usize, time: Duration) {
        let (now, size) = (Instant::now(), (self.size)(key));
        self.shared.with(|schedule| schedule.seed(now, key, size, batch_size, time));
    }

    /// What is inside now.
    #[must_use]
    pub fn load(&self) -> Load {
        self.shared.with(|schedule| schedule.load())
    }

    /// When what is inside now will be done, by the forecast.
    #[must_use]
    pub fn drain_time(&self) -> Duration {
        let now = Instant::now();
        self.shared.with(|schedule| schedule.drain_time(now))
    }

    /// Refuses new jobs, waits until those inside are answered, but no longer than `budget`, then answers the rest with
    /// [`BatchError::Closed`]. Says whether all were finished.
    pub async fn drain(&self, budget: Duration) -> bool {
        self.advance(Phase::Draining);
        let is_empty = timeout(budget, self.shared.wait_until_empty()).await.is_ok();
        self.advance(Phase::Closed);
        is_empty
    }

    fn enqueue(&self, submit: Submit<R::Key, R::Input>) -> Result<Answer<R>, BatchError> {
        if *self.phase.borrow() != Phase::Open {
            return Err(BatchError::Closed);
        }
        let enqueued = Instant::now();
        let Submit { key, input, n_bytes, caller, deadline, span } = submit;
        let size = (self.size)(&key);
        let (reply, receiver) = oneshot::channel();
        let queued = debug_span!(parent: &span, "queue");
        let job = Job { input, deadline, enqueued, span, queued, reply };
        let place = self.shared.offer(enqueued, Offer { key, size, caller, deadline, n_bytes }, job)?;
        let (phase, shared) = (self.phase.subscribe(), Arc::clone(&self.shared));
        Ok(Answer { receiver, phase, outcome: Outcome::Cancelled, place, shared })
    }

    fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let is_later = phase > *current;
            *current = phase.max(*current);
            is_later
        });
    }
}

// Derived impls would ask for them of the runner.
impl<R: Runner> Clone for Batcher<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), phase: Arc::clone(&self.phase), size: Arc::clone(&self.size) }
    }
}

impl<R: Runner> Debug for Batcher<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("load", &self.load()).field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

/// The caller's side of a job. Dropped before an answer was received, it takes the job out of the queue.
struct Answer<R: Runner> {
    receiver: oneshot::Receiver<Result<Completed<R::Output>, BatchError>>,
    phase: watch::Receiver<Phase>,
    outcome: Outcome,
    place: Place,
    shared: Arc<Shared<R>>,
}

/// How a job ended for its caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The caller went away.
    Cancelled,
    /// The deadline passed.
    Expired,
    /// The batcher was closed.
    Closed,
    /// Anything else.
    Answered,
}

impl<R: Runner> Answer<R> {
    async fn receive(&mut self) -> Result<Completed<R::Output>, BatchError> {
        let received = tokio::select! {
            biased;
            received = &mut self.receiver => received.ok(),
            _ = self.phase.wait_for(|phase| *phase == Phase::Closed) => None,
        };
        // No answer: given up by a drain, or by a worker that vanished.
        received.unwrap_or_else(|| Err(if *self.phase.borrow() == Phase::Closed { BatchError::Closed } else { BatchError::Lost }))
    }
}

impl<R: Runner> Drop for Answer<R> {
    fn drop(&mut self) {
        match self.outcome {
            Outcome::Answered => return,
            Outcome::Cancelled => self.shared.observer.cancelled(),
            Outcome::Expired => self.shared.observer.expired(),
            Outcome::Closed => {}
        }
        self.receiver.close();
        self.shared.leave(self.place);
    }
}

/// Connects handle, scheduler and the ends of `n_workers` workers.
fn wire<R: Runner>(
    config: BatchConfig,
    n_workers: usize,
    size: Size<R::Key>,
    observer: Arc<dyn Observer>,
) -> (Batcher<R>, Scheduler<R>, Vec<WorkerEnd<R>>) {
    let shared = Shared::new(Schedule::new(config, n_workers), n_workers, observer);
    let (idle_in, idle_out) = mpsc::channel(n_workers);
    let (phase_in, phase_out) = watch::channel(Phase::Open);
    let connect = |worker_idx| {
        let (batch_in, batches) = mpsc::channel(1);
        (batch_in, WorkerEnd { worker_idx, batches, idle: idle_in.clone(), shared: Arc::clone(&shared) })
    };
    let (workers, ends) = (0..n_workers).map(connect).unzip();
    let batcher = Batcher { shared: Arc::clone(&shared), phase: Arc::new(phase_in), size };
    let idle_workers = Vec::with_capacity(n_workers);
    let scheduler = Scheduler { shared, idle: idle_out, workers, idle_workers, phase: phase_out };
    (batcher, scheduler, ends)
}

#[cfg(test)]
mod tests;
