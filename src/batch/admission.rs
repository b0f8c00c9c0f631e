//! The bound of the queue: how many jobs, and how many bytes, may be inside the batcher (waiting or running) at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::error::{BatchError, Limit};

/// Counts what is inside. Lock-free.
#[derive(Debug)]
pub(super) struct Admission {
    max_count: usize,
    max_bytes: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
    emptied: Notify,
}

/// The right of one job to be inside; given back on drop.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    n_bytes: usize,
}

impl Admission {
    pub(super) fn new(max_count: usize, max_bytes: usize) -> Arc<Self> {
        let (count, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { max_count, max_bytes, count, bytes, emptied: Notify::new() })
    }

    /// Admits a job of `n_bytes`, or says at once which limit is reached.
    pub(super) fn try_enter(self: &Arc<Self>, n_bytes: usize) -> Result<Permit, BatchError> {
        if n_bytes > self.max_bytes {
            return Err(BatchError::TooLarge { n_bytes, max: self.max_bytes });
        }
        if !try_add(&self.count, 1, self.max_count) {
            return Err(BatchError::Full { limit: Limit::Count, max: self.max_count });
        }
        if !try_add(&self.bytes, n_bytes, self.max_bytes) {
            self.leave(0);
            return Err(BatchError::Full { limit: Limit::Bytes, max: self.max_bytes });
        }
        Ok(Permit { admission: Arc::clone(self), n_bytes })
    }

    /// Jobs inside.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Bytes inside.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Waits until nothing is inside.
    pub(super) async fn wait_until_empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn leave(&self, n_bytes: usize) {
        self.bytes.fetch_sub(n_bytes, Ordering::AcqRel);
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.emptied.notify_waiters();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.leave(self.n_bytes);
    }
}

fn try_add(counter: &AtomicUsize, n: usize, max: usize) -> bool {
    let add = |current: usize| current.checked_add(n).filter(|&sum| sum <= max);
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
}
