//! Runs decoding, resizing and encoding away from the async threads, on as many threads as there are cores.

use std::sync::Arc;

use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::engine::InferError;

/// A bounded share of tokio's blocking threads. Requests wait for it in order of arrival; their number is bounded by admission.
#[derive(Clone, Debug)]
pub struct CpuPool {
    permits: Arc<Semaphore>,
}

/// Whether anybody still waits for a piece of work.
#[derive(Debug)]
pub(super) struct Wanted(CancellationToken);

impl Wanted {
    /// Not once the caller has gone, or its deadline has passed.
    pub(super) fn is_wanted(&self) -> bool {
        !self.0.is_cancelled()
    }
}

impl CpuPool {
    /// A pool that runs at most `n_threads` pieces of work at once.
    #[must_use]
    pub fn new(n_threads: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(n_threads.max(1))) }
    }

    /// Runs `work` and waits for it, at most until `deadline`. Work that has not begun by then, or whose caller has gone, never begins.
    ///
    /// # Errors
    /// [`InferError::DeadlineExceeded`] with `stage`, or [`InferError::Internal`] when the work panicked.
    pub async fn run<T, F>(&self, stage: &'static str, deadline: Option<Instant>, work: F) -> Result<T, InferError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let running = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|error| InferError::internal(stage, error))?;
            let task = spawn_blocking(move || {
                let _permit = permit;
                work()
            });
            task.await.map_err(|error| InferError::internal(stage, error))
        };
        match deadline {
            None => running.await,
            Some(deadline) => timeout_at(deadline, running).await.map_err(|_elapsed| InferError::DeadlineExceeded { stage })?,
        }
    }

    /// The same for long work, which asks between its steps whether it is still wanted.
    pub(super) async fn run_steps<T, F>(&self, stage: &'static str, deadline: Option<Instant>, work: F) -> Result<T, InferError>
    where
        T: Send + 'static,
        F: FnOnce(&Wanted) -> T + Send + 'static,
    {
        let gone = CancellationToken::new();
        let wanted = Wanted(gone.clone());
        let _at_the_end = gone.drop_guard();
        self.run(stage, deadline, move || work(&wanted)).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_panic_fails_its_own_work_and_gives_the_thread_back() {
        let pool = CpuPool::new(1);
        let outcome: Result<(), _> = pool.run("decoding", None, || panic!("bad image")).await;
        assert!(matches!(outcome, Err(InferError::Internal { operation: "decoding", .. })));
        assert_eq!(pool.run("decoding", None, || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn long_work_learns_that_its_caller_has_gone() {
        let pool = CpuPool::new(1);
        let (begun, begins) = std::sync::mpsc::channel();
        let (ended, ends) = std::sync::mpsc::channel();
        let work = move |wanted: &Wanted| {
            begun.send(wanted.is_wanted()).unwrap();
            while wanted.is_wanted() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        };
        let caller = tokio::spawn(async move { pool.run_steps("searching", None, work).await });
        assert!(tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap());
        caller.abort();
        tokio::task::spawn_blocking(move || ends.recv_timeout(Duration::from_secs(60)).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn work_that_waits_past_the_deadline_never_begins() {
        let pool = CpuPool::new(1);
        let held = Arc::clone(&pool.permits).acquire_owned().await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(1);
        let outcome = pool.run("decoding", Some(deadline), || panic!("must not begin")).await;
        assert!(matches!(outcome, Err::<(), _>(InferError::DeadlineExceeded { .. })));
        drop(held);
    }
}
