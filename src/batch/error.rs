//! What can go wrong between `submit` and its answer.

use std::{any::Any, error::Error, fmt, io};

/// A boxed error of a runner.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a batcher does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nobody to run batches.
    #[error("a batcher needs at least one runner")]
    NoRunner,
    /// A limit of the configuration is zero.
    #[error("{field} must be at least 1")]
    ZeroLimit {
        /// Name of the limit.
        field: &'static str,
    },
    /// The operating system gave no thread.
    #[error("starting the thread of batch worker {worker_idx}")]
    Spawn {
        /// 0-based index of the worker.
        worker_idx: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runner reported an error.
    #[error("the runner failed")]
    Failed(#[source] BoxError),
    /// The runner panicked; it is used again for the next batch.
    #[error("the runner panicked: {message}")]
    Panicked {
        /// Message of the panic.
        message: String,
    },
    /// The runner broke its contract of one output per input.
    #[error("the runner returned {n_outputs} outputs for {n_inputs} inputs")]
    Miscounted {
        /// Inputs given.
        n_inputs: usize,
        /// Outputs returned.
        n_outputs: usize,
    },
}

impl RunError {
    /// Wraps a runner's own error.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self::Failed(source.into())
    }

    pub(super) fn from_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked { message: text.unwrap_or("no message").to_owned() }
    }
}

/// A bound of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max_queue_count`.
    Count,
    /// `max_queue_bytes`.
    Bytes,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "max_queue_count",
            Self::Bytes => "max_queue_bytes",
        })
    }
}

/// Why a job has no output.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Refused: the queue is full; a later try may succeed.
    #[error("the queue is full: {limit} of {max} is reached")]
    Full {
        /// The bound that was reached.
        limit: Limit,
        /// Its value.
        max: usize,
    },
    /// Refused: the job alone exceeds `max_queue_bytes`; no later try can succeed.
    #[error("the job holds {n_bytes} bytes, more than max_queue_bytes of {max}")]
    TooLarge {
        /// Size of the job's input.
        n_bytes: usize,
        /// Value of `max_queue_bytes`.
        max: usize,
    },
    /// The batcher is closed, or was closed before the job was run.
    #[error("the batcher is closed")]
    Closed,
    /// The caller's deadline passed.
    #[error("the deadline passed before the job was done")]
    DeadlineExceeded,
    /// The job was run, in the end alone, and failed.
    #[error("the job failed")]
    Failed(#[source] RunError),
    /// The worker vanished without an answer.
    #[error("the worker vanished without an answer")]
    Lost,
}
