//! A dynamic batcher: jobs of equal keys that wait at the same time run together. In come inputs from async callers, out go
//! outputs; between them stand a bounded queue, one scheduling task, and one thread for each runner. It knows nothing of what
//! a job is.
//!
//! ```text
//! submit ─► admission ─► scheduler (queue) ─► worker (runner) ─► submit
//! ```
//!
//! # Design
//! - Work-conserving: an idle worker never waits while jobs wait, unless `max_queue_delay_ms` asks for it. Under load batches
//!   grow by themselves while the workers are busy; without load nobody pays for a window.
//! - Waiting (async, clock) and running (thread, CPU) are two files, so that every rule of time is tested with a paused clock.
//! - Numbers, not metrics: `Completed` and [`Observer`] tell what happened, the caller decides how to record it.

mod admission;
mod error;
mod job;
mod queue;
mod scheduler;
mod worker;

use std::{fmt, fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use self::{
    admission::Admission,
    job::Job,
    queue::{Policy, Queue},
    scheduler::{Phase, Scheduler},
    worker::WorkerEnd,
};
pub use self::{
    error::{BatchError, BoxError, Limit, RunError, StartError},
    job::{Completed, Submit},
};

/// Runs batches. One thread owns it; a panic inside `run` is caught, and the runner must stay usable after it.
pub trait Runner: Send + 'static {
    /// What must be equal for jobs to run together.
    type Key: Clone + Eq + Hash + Debug + Send + Sync + 'static;
    /// Input of a job.
    type Input: Send + 'static;
    /// Output of a job.
    type Output: Send + 'static;

    /// Runs a batch; one output per input, in order.
    ///
    /// # Errors
    /// When the batch fails; one of several jobs is then run again job by job.
    fn run(&mut self, key: &Self::Key, inputs: &[Self::Input]) -> Result<Vec<Self::Output>, RunError>;
}

/// Hears what happens, from several threads; must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A batch was given to a worker; `longest_wait` is the queue time of its oldest job.
    fn launched(&self, key: &dyn Debug, batch_size: usize, longest_wait: Duration) {
        let _ = (key, batch_size, longest_wait);
    }

    /// A job was refused at submission.
    fn refused(&self, reason: &BatchError) {
        let _ = reason;
    }

    /// A job's deadline passed before its answer.
    fn expired(&self) {}

    /// A caller went away before its answer.
    fn cancelled(&self) {}
}

/// Hears nothing.
impl Observer for () {}

/// Limits of a batcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Jobs that run together at most. Default 8.
    pub max_batch_size: usize,
    /// Jobs inside (waiting or running) at most; more are refused. Default 256.
    pub max_queue_count: usize,
    /// Bytes that their inputs may hold. Default 256 MiB.
    pub max_queue_bytes: usize,
    /// How long a job may wait for companions although a worker is idle, in milliseconds. Default 0: never.
    pub max_queue_delay_ms: u64,
    /// A job without a deadline is as urgent as one with a deadline this long after its arrival, in milliseconds; nor does a
    /// later deadline make a job less urgent. Default 1000.
    pub slack_ms: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        let max_queue_bytes = 256 << 20;
        Self { max_batch_size: 8, max_queue_count: 256, max_queue_bytes, max_queue_delay_ms: 0, slack_ms: 1000 }
    }
}

/// What is inside a batcher, waiting or running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs.
    pub n_jobs: usize,
    /// Bytes of their inputs.
    pub n_bytes: usize,
}

/// Handle to a batcher; clones share it. It stops when it is drained or when the last handle is dropped.
pub struct Batcher<R: Runner> {
    jobs: mpsc::Sender<Job<R>>,
    admission: Arc<Admission>,
    gone: Arc<Notify>,
    phase: Arc<watch::Sender<Phase>>,
    observer: Arc<dyn Observer>,
}

impl<R: Runner> Batcher<R> {
    /// Starts one thread per runner, and the scheduler on the current tokio runtime.
    ///
    /// # Errors
    /// When there is no runner, a limit is zero, or a thread cannot be started.
    ///
    /// # Panics
    /// Outside a tokio runtime, like `tokio::spawn`.
    pub fn start(config: BatchConfig, runners: Vec<R>, observer: Arc<dyn Observer>) -> Result<Self, StartError> {
        config.check()?;
        if runners.is_empty() {
            return Err(StartError::NoRunner);
        }
        let (batcher, scheduler, ends) = wire(config, runners.len(), observer);
        for (runner, end) in runners.into_iter().zip(ends) {
            let worker_idx = end.worker_idx;
            worker::spawn(runner, end).map_err(|source| StartError::Spawn { worker_idx, source })?;
        }
        tokio::spawn(scheduler.run());
        Ok(batcher)
    }

    /// Runs a job with whatever else waits. Admission is decided at once. Dropping the future cancels the job: if it still
    /// waits, it leaves the queue.
    ///
    /// # Errors
    /// [`BatchError::Full`], [`BatchError::TooLarge`] or [`BatchError::Closed`] at once; [`BatchError::DeadlineExceeded`] when
    /// the deadline passes, even while the job runs; [`BatchError::Failed`] when it failed alone.
    pub async fn submit(&self, job: Submit<R::Key, R::Input>) -> Result<Completed<R::Output>, BatchError> {
        let deadline = job.deadline;
        let mut answer = self.enqueue(job).inspect_err(|reason| self.observer.refused(reason))?;
        let received = match deadline {
            Some(deadline) => timeout_at(deadline, answer.receive()).await.unwrap_or(Err(BatchError::DeadlineExceeded)),
            None => answer.receive().await,
        };
        let is_expired = matches!(received, Err(BatchError::DeadlineExceeded));
        answer.outcome = if is_expired { Outcome::Expired } else { Outcome::Answered };
        received
    }

    /// What is inside now.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { n_jobs: self.admission.count(), n_bytes: self.admission.bytes() }
    }

    /// Refuses new jobs, waits until those inside are answered, but no longer than `budget`, then answers the rest with
    /// [`BatchError::Closed`]. Says whether all were finished.
    pub async fn drain(&self, budget: Duration) -> bool {
        self.advance(Phase::Draining);
        let is_empty = timeout(budget, self.admission.wait_until_empty()).await.is_ok();
        self.advance(Phase::Closed);
        is_empty
    }

    fn enqueue(&self, submit: Submit<R::Key, R::Input>) -> Result<Answer<R::Output>, BatchError> {
        if *self.phase.borrow() != Phase::Open {
            return Err(BatchError::Closed);
        }
        let enqueued = Instant::now();
        let Submit { key, input, n_bytes, deadline, span } = submit;
        if deadline.is_some_and(|deadline| deadline <= enqueued) {
            return Err(BatchError::DeadlineExceeded);
        }
        let permit = self.admission.try_enter(n_bytes)?;
        let (reply, receiver) = oneshot::channel();
        // The channel has room for every permit, so this fails only when the scheduler has ended.
        let job = Job { key, input, deadline, enqueued, span, reply, permit };
        self.jobs.try_send(job).map_err(|_| BatchError::Closed)?;
        let (phase, gone, observer) = (self.phase.subscribe(), Arc::clone(&self.gone), Arc::clone(&self.observer));
        Ok(Answer { receiver, phase, outcome: Outcome::Cancelled, gone, observer })
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
        Self {
            jobs: self.jobs.clone(),
            admission: Arc::clone(&self.admission),
            gone: Arc::clone(&self.gone),
            phase: Arc::clone(&self.phase),
            observer: Arc::clone(&self.observer),
        }
    }
}

impl<R: Runner> Debug for Batcher<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("load", &self.load()).field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

impl BatchConfig {
    fn check(&self) -> Result<(), StartError> {
        let limits = [
            ("max_batch_size", self.max_batch_size),
            ("max_queue_count", self.max_queue_count),
            ("max_queue_bytes", self.max_queue_bytes),
        ];
        let zero = limits.into_iter().find(|(_, limit)| *limit == 0);
        zero.map_or(Ok(()), |(field, _)| Err(StartError::ZeroLimit { field }))
    }

    fn policy(&self) -> Policy {
        let (max_delay, slack) = (Duration::from_millis(self.max_queue_delay_ms), Duration::from_millis(self.slack_ms));
        Policy { max_batch_size: self.max_batch_size, max_delay, slack }
    }
}

/// The caller's side of a job. Dropped before an answer was received, it takes the job out of the queue.
struct Answer<O> {
    receiver: oneshot::Receiver<Result<Completed<O>, BatchError>>,
    phase: watch::Receiver<Phase>,
    outcome: Outcome,
    gone: Arc<Notify>,
    observer: Arc<dyn Observer>,
}

/// How a job ended for its caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The caller went away.
    Cancelled,
    /// The deadline passed.
    Expired,
    /// Anything else.
    Answered,
}

impl<O> Answer<O> {
    async fn receive(&mut self) -> Result<Completed<O>, BatchError> {
        let received = tokio::select! {
            biased;
            received = &mut self.receiver => received.ok(),
            _ = self.phase.wait_for(|phase| *phase == Phase::Closed) => None,
        };
        // No answer: given up by a drain, or by a worker that vanished.
        received.unwrap_or_else(|| Err(if *self.phase.borrow() == Phase::Closed { BatchError::Closed } else { BatchError::Lost }))
    }
}

impl<O> Drop for Answer<O> {
    fn drop(&mut self) {
        match self.outcome {
            Outcome::Answered => return,
            Outcome::Cancelled => self.observer.cancelled(),
            Outcome::Expired => self.observer.expired(),
        }
        // Closed first, so that the scheduler finds the job cancelled.
        self.receiver.close();
        self.gone.notify_one();
    }
}

/// Connects handle, scheduler and the ends of `n_workers` workers.
fn wire<R: Runner>(
    config: BatchConfig,
    n_workers: usize,
    observer: Arc<dyn Observer>,
) -> (Batcher<R>, Scheduler<R>, Vec<WorkerEnd<R>>) {
    let (jobs_in, jobs_out) = mpsc::channel(config.max_queue_count);
    let (idle_in, idle_out) = mpsc::channel(n_workers);
    let (phase_in, phase_out) = watch::channel(Phase::Open);
    let gone = Arc::new(Notify::new());
    let connect = |worker_idx| {
        let (batch_in, batches) = mpsc::channel(1);
        (batch_in, WorkerEnd { worker_idx, batches, idle: idle_in.clone() })
    };
    let (workers, ends) = (0..n_workers).map(connect).unzip();
    let batcher = Batcher {
        jobs: jobs_in,
        admission: Admission::new(config.max_queue_count, config.max_queue_bytes),
        gone: Arc::clone(&gone),
        phase: Arc::new(phase_in),
        observer: Arc::clone(&observer),
    };
    let scheduler = Scheduler {
        jobs: jobs_out,
        queue: Queue::new(config.policy()),
        idle: idle_out,
        workers,
        idle_workers: Vec::with_capacity(n_workers),
        gone,
        phase: phase_out,
        observer,
    };
    (batcher, scheduler, ends)
}

#[cfg(test)]
mod tests;
