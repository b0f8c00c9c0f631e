//! One thread that owns a runner: takes a batch, runs it, hands every job its output, reports back as idle.
//!
//! A bad batch never ends the worker: errors and panics are caught, and a failed batch of several jobs is run again one by
//! one, so that only the bad job fails.

use std::{
    error::Error,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::{Span, debug_span};

use super::{
    Runner,
    error::{BatchError, RunError},
    job::{Batch, Completed, Job, Reply},
    shared::Shared,
    stop::Stop,
};

/// A worker's end of the channels to the scheduler.
#[derive(Debug)]
pub(super) struct WorkerEnd<R: Runner> {
    pub(super) worker_idx: usize,
    /// Batches to run; the scheduler sends one only after the worker reported as idle.
    pub(super) batches: mpsc::Receiver<Batch<R>>,
    /// Where the worker reports as idle; has room for one report of each worker.
    pub(super) idle: mpsc::Sender<usize>,
    pub(super) shared: Arc<Shared<R>>,
}

/// Starts the thread of a worker. It ends when the scheduler has gone. Jobs of a batch that is lost are told so by their closed channels.
pub(super) fn spawn<R: Runner>(mut runner: R, mut end: WorkerEnd<R>) -> io::Result<()> {
    let name = format!("batch-worker-{}", end.worker_idx);
    let work = move || {
        runner.begin();
        while end.idle.blocking_send(end.worker_idx).is_ok() {
            let Some(batch) = end.batches.blocking_recv() else { return };
            // Runs have a fence of their own; whatever else may panic, an observer say, must cost its batch and not this worker.
            let well = catch_unwind(AssertUnwindSafe(|| execute(&mut runner, batch))).unwrap_or(false);
            let _panicked = catch_unwind(AssertUnwindSafe(|| end.shared.finish(end.worker_idx, well)));
        }
    };
    thread::Builder::new().name(name).spawn(work).map(drop)
}

/// Runs a batch and answers every job of it. Says whether its time tells about other batches.
pub(super) fn execute<R: Runner>(runner: &mut R, batch: Batch<R>) -> bool {
    let Batch { key, jobs, launched, stop } = batch;
    let batch_size = jobs.len();
    let span = debug_span!(parent: None, "batch", batch_size, bucket = ?key);
    // All links first: whether any of the callers is traced decides on the batch.
    jobs.iter().for_each(|job| {
        span.follows_from(&job.span);
    });
    let (inputs, callers): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| split(job, launched, &span)).unzip();
    let _entered = span.entered();
    let started = Instant::now();
    let result = run(runner, &key, &inputs, &stop);
    let run_time = started.elapsed();
    match result {
        Ok(outputs) => {
            drop(inputs);
            outputs.into_iter().zip(callers).for_each(|(output, caller)| caller.answer(output, run_time, batch_size));
            return !stop.is_stopped();
        }
        // Nobody hears the error of a run that was stopped.
        Err(_) if stop.is_stopped() => tracing::debug!(batch_size, "a run was stopped, its callers have gone"),
        Err(error) if batch_size > 1 => {
            tracing::warn!(batch_size, error = &error as &dyn Error, "a batch failed, its jobs are run one by one");
            inputs.iter().zip(callers).for_each(|(input, caller)| run_alone(runner, &key, input, &stop, caller));
        }
        Err(error) => callers.into_iter().take(1).zip([error]).for_each(|(caller, error)| caller.fail(error)),
    }
    false
}

/// Who waits for an output.
struct Caller<O> {
    reply: Reply<O>,
    deadline: Option<Instant>,
    queue_time: Duration,
    /// From launch to answer, in the caller's trace.
    run: Span,
}

impl<O> Caller<O> {
    fn answer(self, output: O, run_time: Duration, batch_size: usize) {
        let queue_time = self.queue_time;
        self.reply(Ok(Completed { output, queue_time, run_time, batch_size }));
    }

    fn fail(self, error: RunError) {
        self.reply(Err(BatchError::Failed(error)));
    }

    /// The span ends first, lest the caller's ends before it. A caller that has gone does not mind.
    fn reply(self, outcome: Result<Completed<O>, BatchError>) {
        drop(self.run);
        let _ = self.reply.send(outcome);
    }
}

fn split<R: Runner>(job: Job<R>, launched: Instant, batch: &Span) -> (R::Input, Caller<R::Output>) {
    let Job { input, deadline, enqueued, queued, span, reply } = job;
    drop(queued);
    let run = debug_span!(parent: &span, "run");
    run.follows_from(batch);
    (input, Caller { reply, deadline, queue_time: launched.saturating_duration_since(enqueued), run })
}

fn run_alone<R: Runner>(runner: &mut R, key: &R::Key, input: &R::Input, stop: &Stop, caller: Caller<R::Output>) {
    let started = Instant::now();
    if caller.reply.is_closed() || caller.deadline.is_some_and(|deadline| deadline <= started) {
        return caller.reply(Err(BatchError::DeadlineExceeded));
    }
    match run(runner, key, slice::from_ref(input), stop) {
        Ok(outputs) => {
            let run_time = started.elapsed();
            outputs.into_iter().zip([caller]).for_each(|(output, caller)| caller.answer(output, run_time, 1));
        }
        Err(error) => caller.fail(error),
    }
}

/// Calls the runner behind a fence, and holds it to its contract.
fn run<R: Runner>(runner: &mut R, key: &R::Key, inputs: &[R::Input], stop: &Stop) -> Result<Vec<R::Output>, RunError> {
    // A runner promises to be usable after a panic (see `Runner`), and inputs are only read.
    let outputs = catch_unwind(AssertUnwindSafe(|| runner.run(key, inputs, stop)))
        .unwrap_or_else(|payload| Err(RunError::from_panic(payload.as_ref())))?;
    if outputs.len() != inputs.len() {
        return Err(RunError::Miscounted { n_inputs: inputs.len(), n_outputs: outputs.len() });
    }
    Ok(outputs)
}
