//! Runs decoding, resizing and encoding away from the async threads, on as many threads as there are cores.

use std::sync::Arc;

use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::engine::InferError;

/// A bounded share of tokio's blocking threads. Requests wait for it in order of arrival; their number is bounded by admission.
#[derive(Clone, Debug)]
pub struct CpuPool {
    permits: Arc<Semaphore>,
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
    async fn work_that_waits_past_the_deadline_never_begins() {
        let pool = CpuPool::new(1);
        let held = Arc::clone(&pool.permits).acquire_owned().await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(1);
        let outcome = pool.run("decoding", Some(deadline), || panic!("must not begin")).await;
        assert!(matches!(outcome, Err::<(), _>(InferError::DeadlineExceeded { .. })));
        drop(held);
    }
}
