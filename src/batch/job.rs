//! A job on its way: what the caller submits, what travels to the worker, and what comes back.

use std::{fmt, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use tracing::Span;

use super::{Runner, caller::Caller, error::BatchError, stop::Stop};

/// One input for a batch.
#[derive(Debug)]
pub struct Submit<K, I> {
    /// Jobs of equal keys may run together.
    pub key: K,
    /// What the runner gets.
    pub input: I,
    /// Memory that the input holds, in bytes; counts against `max_queue_bytes`.
    pub n_bytes: usize,
    /// Whose it is.
    pub caller: Caller,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The caller's span: parent of those of queue and run, and the batch follows from it.
    pub span: Span,
}

/// The output of a job, and how it came about.
#[derive(Debug)]
pub struct Completed<O> {
    /// What the runner returned for this input.
    pub output: O,
    /// From submission to launch.
    pub queue_time: Duration,
    /// Time of the whole batch on the worker; for a job that was run again alone, of that run.
    pub run_time: Duration,
    /// Jobs that ran together.
    pub batch_size: usize,
}

pub(super) type Reply<O> = oneshot::Sender<Result<Completed<O>, BatchError>>;

/// A job that was admitted.
pub(super) struct Job<R: Runner> {
    pub(super) input: R::Input,
    pub(super) deadline: Option<Instant>,
    pub(super) enqueued: Instant,
    /// The caller's.
    pub(super) span: Span,
    /// Its child, from submission to launch.
    pub(super) queued: Span,
    pub(super) reply: Reply<R::Output>,
}

impl<R: Runner> Job<R> {
    /// Answers with an error. A caller that has gone does not mind.
    pub(super) fn refuse(self, error: BatchError) {
        let _ = self.reply.send(Err(error));
    }
}

impl<R: Runner> fmt::Debug for Job<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Jobs of one key on their way to a worker; never empty, never more than `max_batch_size`.
#[derive(Debug)]
pub(super) struct Batch<R: Runner> {
    pub(super) key: R::Key,
    pub(super) jobs: Vec<Job<R>>,
    pub(super) launched: Instant,
    pub(super) stop: Stop,
}
