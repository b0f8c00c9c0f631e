//! The batcher of Text Embeddings Inference (`core/src/queue.rs`, `core/src/infer.rs`, read 2026-07-24): in order of arrival, requests join while the
//! longest of them times their number stays within a budget of tokens; they are padded to the longest. Nothing waits while the
//! executor is idle, 512 requests are inside at most, and those whose callers have gone are skipped.
//!
//! Its rule needs a model that takes padded inputs of mixed lengths; it gets one here that does, for no other cost than the padding.

use std::collections::{HashSet, VecDeque};

use tokio::time::Instant;

use crate::{
    costs::{MAX_BATCH, Profile},
    policy::{Job, Next, Policy},
};

/// `max_concurrent_requests`.
const MAX_REQUESTS: usize = 512;

pub struct Tei {
    queue: VecDeque<Job>,
    gone: HashSet<usize>,
    n_running: usize,
    n_tokens: Vec<usize>,
    /// `max_batch_tokens`: as much as the largest batch of the others.
    max_tokens: usize,
}

impl Tei {
    pub fn new(profile: &Profile) -> Self {
        let n_tokens: Vec<usize> = profile.sizes.iter().map(|size| size.n_tokens).collect();
        let max_tokens = MAX_BATCH * n_tokens.iter().max().copied().unwrap_or_default();
        Self { queue: VecDeque::new(), gone: HashSet::new(), n_running: 0, n_tokens, max_tokens }
    }
}

impl Policy for Tei {
    fn name(&self) -> &'static str {
        "TEI"
    }

    fn arrive(&mut self, _now: Instant, job: Job) -> bool {
        if self.queue.len() + self.n_running >= MAX_REQUESTS {
            return false;
        }
        self.queue.push_back(job);
        true
    }

    fn leave(&mut self, _now: Instant, id: usize) {
        self.gone.insert(id);
    }

    fn next(&mut self, _now: Instant) -> Next {
        let (mut batch, mut longest) = (Vec::new(), 0);
        while let Some(job) = self.queue.pop_front() {
            if self.gone.remove(&job.id) {
                continue;
            }
            let padded = longest.max(self.n_tokens[job.request.size_idx]);
            if padded * (batch.len() + 1) > self.max_tokens {
                self.queue.push_front(job);
                break;
            }
            longest = padded;
            batch.push(job);
        }
        self.n_running = batch.len();
        if batch.is_empty() { Next::Nothing } else { Next::Run(batch) }
    }

    fn finished(&mut self, _now: Instant) {
        self.n_running = 0;
    }
}
