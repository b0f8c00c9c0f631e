//! The tasks of calls, and the end of those whose client does not read its answer.
//!
//! # Design
//! Bytes that wait for a client's window wait in this process, and pings keep the connection of such a client alive. Nobody but the task that
//! feeds the connection could end the wait, and it sleeps until there is a window. So hyper's tasks are spawned here, beside a watch: the body
//! of the answer ([`sent`](super::sent)) notes when it has given bytes away and when more are wanted, and a task whose bytes have not been
//! taken for too long is dropped, which resets that stream alone. Dropping the connection was rejected: behind a proxy, many clients share one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::rt::Executor;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

tokio::task_local! {
    static PROGRESS: Progress;
}

/// Since when the bytes of an answer wait for their client.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    /// Of the call that is being answered here. Over HTTP/1.1 there is none: such a connection falls silent, and is dropped for that.
    pub(super) fn current() -> Option<Self> {
        PROGRESS.try_with(Clone::clone).ok()
    }

    /// Bytes were given away.
    pub(super) fn waits(&self) {
        *self.state() = Some(Instant::now());
    }

    /// More bytes are wanted: those before have been taken.
    pub(super) fn goes_on(&self) {
        *self.state() = None;
    }

    /// Resolves when bytes have waited for `limit`; it may take twice as long to notice.
    async fn stalled(&self, limit: Duration) {
        loop {
            let since = *self.state();
            match since {
                None => sleep(limit).await,
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => sleep_until(since + limit).await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns the calls of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallExecutor {
    /// How long bytes of an answer may wait for their client.
    pub(super) limit: Option<Duration>,
}

impl<F> Executor<F> for CallExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        let Some(limit) = self.limit else {
            tokio::spawn(call);
            return;
        };
        let progress = Progress::default();
        tokio::spawn(async move {
            tokio::select! {
                _ended = PROGRESS.scope(progress.clone(), call) => {}
                () = progress.stalled(limit) => debug!("answer dropped: its client does not read it"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::future::pending;

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Runs a call that never ends by itself for at most a minute; says when it was dropped.
    async fn dropped_after(call: impl Future<Output = ()> + Send + 'static) -> Option<Duration> {
        let (alive, ended) = oneshot::channel::<()>();
        let begun = Instant::now();
        CallExecutor { limit: Some(LIMIT) }.execute(async move {
            let _alive = alive;
            call.await;
            pending::<()>().await;
        });
        timeout(Duration::from_secs(60), ended).await.ok().map(|_dropped| begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_call_whose_bytes_wait_is_dropped() {
        let waits = || Progress::current().unwrap().waits();
        assert_eq!(dropped_after(async {}).await, None, "it runs, or has nothing to say yet");
        let stuck = dropped_after(async move { waits() }).await.unwrap();
        assert!(stuck >= LIMIT && stuck <= 2 * LIMIT, "{stuck:?}");
        let slow = async move {
            for _ in 0..5 {
                waits();
                sleep(LIMIT * 9 / 10).await;
                Progress::current().unwrap().goes_on();
            }
        };
        assert_eq!(dropped_after(slow).await, None, "a slow client is no dead one");
    }
}
