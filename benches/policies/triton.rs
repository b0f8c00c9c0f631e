//! Triton's dynamic batcher (core, `src/dynamic_batch_scheduler.cc` and `src/scheduler_utils.cc`, read 2026-06-09): one queue in order of
//! arrival, without an end. A batch grows from its head while shapes agree; the first other shape closes it, and so does its full size; else it
//! waits until its oldest member has waited for `max_queue_delay`. Deadlines of calls are not looked at.
//!
//! Whether a caller that has gone is noticed before its request runs depends on client and version (issues 6920, 7532), so there are two: one
//! that runs everything, and one that drops what was cancelled when its turn comes.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    costs::MAX_BATCH,
    policy::{Job, Next, Policy},
};

/// The middle of what its guide recommends to begin with, 0 to 10 ms.
const MAX_QUEUE_DELAY: Duration = Duration::from_millis(5);

pub struct Triton {
    queue: VecDeque<Job>,
    gone: HashSet<usize>,
    sees_cancellation: bool,
}

impl Triton {
    pub fn new(sees_cancellation: bool) -> Self {
        Self { queue: VecDeque::new(), gone: HashSet::new(), sees_cancellation }
    }
}

impl Policy for Triton {
    fn name(&self) -> &'static str {
        if self.sees_cancellation { "Triton, cancelled" } else { "Triton" }
    }

    fn arrive(&mut self, _now: Instant, job: Job) -> bool {
        self.queue.push_back(job);
        true
    }

    fn leave(&mut self, _now: Instant, id: usize) {
        if self.sees_cancellation {
            self.gone.insert(id);
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        let gone = &self.gone;
        self.queue.retain(|job| !gone.contains(&job.id));
        let Some(head) = self.queue.front() else { return Next::Nothing };
        let n_alike = self.queue.iter().take_while(|job| job.request.size_idx == head.request.size_idx).take(MAX_BATCH).count();
        let is_closed = n_alike == MAX_BATCH || n_alike < self.queue.len();
        let sent_at = head.arrived + MAX_QUEUE_DELAY;
        if !is_closed && now < sent_at {
            return Next::WaitUntil(sent_at);
        }
        Next::Run(self.queue.drain(..n_alike).collect())
    }

    fn finished(&mut self, _now: Instant) {}
}
