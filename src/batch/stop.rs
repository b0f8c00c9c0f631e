//! How a run is told that nobody wants its outputs any more.
//!
//! # Design
//! One stop for each batch: it cannot reach the batch that a worker runs next. The runner attaches what ends its run and detaches it before
//! it returns; a stop that came before is carried out at once.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type Action = Box<dyn Fn() + Send>;

/// Of one batch; clones share it.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_stopped: bool,
    action: Option<Action>,
}

impl Stop {
    /// Runs `work`, and `end` from another thread as soon as nobody wants the outputs. `end` must return at once.
    pub fn during<T>(&self, end: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        if state.is_stopped {
            end();
        }
        state.action = Some(Box::new(end));
        drop(state);
        let _attached = Attached(self);
        work()
    }

    /// Whether nobody wants the outputs.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }

    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.is_stopped = true;
        state.action.iter().for_each(|end| end());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("is_stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

/// Detaches the action, also when the work panics.
struct Attached<'a>(&'a Stop);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.state().action = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn stop_reaches_the_run_before_and_while_it_runs_but_not_after() {
        let n_ends = Arc::new(AtomicUsize::new(0));
        let count = || {
            let n_ends = Arc::clone(&n_ends);
            move || {
                n_ends.fetch_add(1, Ordering::Relaxed);
            }
        };
        let stop = Stop::default();
        stop.during(count(), || assert!(!stop.is_stopped()));
        stop.stop();
        assert_eq!(n_ends.load(Ordering::Relaxed), 0, "the run had ended");
        stop.during(count(), || ());
        assert_eq!(n_ends.load(Ordering::Relaxed), 1, "it began after the stop");
        let stop = Stop::default();
        stop.during(count(), || stop.clone().stop());
        assert_eq!(n_ends.load(Ordering::Relaxed), 2, "it was running");
    }
}
