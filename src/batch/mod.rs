//! A dynamic batcher: jobs of equal keys that wait at the same time run together. In come inputs from async callers, out go
//! outputs; between them stand a bounded schedule, one task that launches, and one thread for each runner. It knows nothing of what
//! a job is.
//!
//! ```text
//! submit ─► schedule (admission, order, sizes) ─► scheduler ─► worker (runner) ─► submit
//! ```
//!
//! # Design
//! - Work-conserving: an idle worker never waits while jobs wait, unless `max_queue_delay_ms` asks for it. Under load batches
//!   grow by themselves while the workers are busy; without load nobody pays for a window.
//! - Deciding (pure data), waiting (async, clock) and running (thread, CPU) are apart, so that every rule is tested without threads and every rule
//!   of time with a paused clock, and a simulation drives what the server drives. [`schedule`] has the rules and their reasons.
//! - Numbers, not metrics: `Completed` and [`Observer`] tell what happened, the caller decides how to record it.

mod batcher;
mod budget;
mod caller;
mod config;
mod error;
mod job;
pub mod schedule;
mod scheduler;
mod shared;
mod stop;
mod worker;

use std::{fmt::Debug, hash::Hash, time::Duration};

pub use self::{
    batcher::Batcher,
    budget::{Budget, Exceeded, Load},
    caller::{Caller, CallerError, MAX_TENANT_BYTES, Priority, Tenant},
    config::BatchConfig,
    error::{BatchError, BoxError, Limit, RunError, StartError},
    job::{Completed, Submit},
    stop::Stop,
};

/// Runs batches. One thread owns it; a panic inside `run` is caught, and the runner must stay usable after it.
pub trait Runner: Send + 'static {
    /// What must be equal for jobs to run together.
    type Key: Clone + Eq + Hash + Debug + Send + Sync + 'static;
    /// Input of a job.
    type Input: Send + 'static;
    /// Output of a job.
    type Output: Send + 'static;

    /// Called once, on the thread that will run its batches.
    fn begin(&mut self) {}

    /// Runs a batch; one output per input, in order. It may end early, with any error, once `stop` says that nobody waits for it.
    ///
    /// # Errors
    /// When the batch fails; one of several jobs is then run again job by job.
    fn run(&mut self, key: &Self::Key, inputs: &[Self::Input], stop: &Stop) -> Result<Vec<Self::Output>, RunError>;
}

/// Hears what happens, from several threads; must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A batch was given to a worker; `longest_wait` is the queue time of its oldest job, `predicted` the time that it should take, if that is
    /// known.
    fn launched(&self, key: &dyn Debug, batch_size: usize, longest_wait: Duration, predicted: Option<Duration>) {
        let _ = (key, batch_size, longest_wait, predicted);
    }

    /// A batch has run, well or not, for `actual`; what is inside now needs `drain_time` by the forecast.
    fn ran(&self, key: &dyn Debug, batch_size: usize, predicted: Option<Duration>, actual: Duration, drain_time: Duration) {
        let _ = (key, batch_size, predicted, actual, drain_time);
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
