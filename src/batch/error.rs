//! What can go wrong between `submit` and its answer.

use std::{any::Any, error::Error, fmt, io, time::Duration};

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
    /// A value of the configuration lies outside its range.
    #[error("{field} is {value}, it must lie between {min} and {max}")]
    OutOfRange {
        /// Name of the value.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A weight, or the name of its tenant, is not usable.
    #[error(
        "tenant_weights has {weight} for \"{name}\": names have 1 to 63 letters, digits, dots, hyphens or underscores, weights lie between 1 and 1000"
    )]
    Weight {
        /// Name of the tenant.
        name: String,
        /// Its weight.
        weight: u32,
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
    /// The part of `max_queue_count` that one tenant may use.
    TenantCount,
    /// The part of `max_queue_bytes` that one tenant may use.
    TenantBytes,
    /// `max_buckets`.
    Buckets,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "max_queue_count",
            Self::Bytes => "max_queue_bytes",
            Self::TenantCount => "a tenant's part (max_tenant_percent) of max_queue_count",
            Self::TenantBytes => "a tenant's part (max_tenant_percent) of max_queue_bytes",
            Self::Buckets => "max_buckets",
        })
    }
}

/// Why a job has no output.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Refused: the queue is full; a later try may succeed.
    #[error("the queue is full: {limit} is reached, {max}")]
    Full {
        /// The bound that was reached.
        limit: Limit,
        /// Its value.
        max: usize,
        /// When what is inside now will be done.
        retry_after: Duration,
    },
    /// Refused: the job alone exceeds a bound; no later try can succeed.
    #[error("the job holds {n_bytes} bytes, more than {limit}, {max}")]
    TooLarge {
        /// Size of the job's input.
        n_bytes: usize,
        /// The bound that it exceeds.
        limit: Limit,
        /// Its value.
        max: usize,
    },
    /// Refused: by the forecast the answer would come after the deadline.
    #[error("the answer would take {} ms, longer than the deadline allows", predicted.as_millis())]
    TooLate {
        /// Time to the answer.
        predicted: Duration,
        /// When a job with as much time will be in time.
        retry_after: Duration,
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
