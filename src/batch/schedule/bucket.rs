//! The waiting jobs of one key, the most urgent first, and what runs of this key cost.
//!
//! # Design
//! A sorted queue for each flow, because the earliest job of those whose turn it is must be found, not just the earliest. Deadlines of one
//! flow mostly grow with arrival, so nearly every job is added at the end; a heap would be slower there and would not tell how
//! many jobs stand before a deadline, which admission asks.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{
    cost::{CostModel, UsualCost, duration},
    shares::Flow,
};
use crate::batch::caller::Tenant;

/// Order of jobs: when they are due, then arrival.
pub(super) type Rank = (Instant, u64);

/// A job that waits.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) rank: Rank,
    pub(super) flow: Flow,
    /// As it was given, for the budget.
    pub(super) tenant: Tenant,
    pub(super) n_bytes: usize,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
    /// Until when it may wait for companions.
    pub(super) ready_at: Instant,
    pub(super) job: T,
}

/// Jobs of one flow, by rank; never empty inside a bucket.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) flow: Flow,
    entries: VecDeque<Entry<T>>,
}

/// Jobs of one key.
#[derive(Debug)]
pub(super) struct Bucket<K, T> {
    pub(super) key: K,
    /// Relative cost of an image, for predictions before the first run.
    pub(super) size: f64,
    pub(super) cost: CostModel,
    pub(super) usual: UsualCost,
    pub(super) lanes: Vec<Lane<T>>,
    /// Jobs that cannot be answered in time any more, as far as one knows.
    late: Vec<Entry<T>>,
    n_waiting: usize,
    pub(super) n_running: usize,
    pub(super) last_used: u64,
}

impl<T> Entry<T> {
    /// Whether the deadline has passed.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether it is due because of the horizon, and not of its caller's deadline.
    pub(super) fn is_soft(&self) -> bool {
        self.deadline.is_none_or(|deadline| deadline > self.rank.0)
    }
}

impl<T> Lane<T> {
    /// The most urgent.
    pub(super) fn head(&self) -> Option<&Entry<T>> {
        self.entries.front()
    }

    /// Jobs.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Jobs that go before one that is due at `due`, and to which those due by the horizon give way until `gives_way`.
    pub(super) fn n_before(&self, due: Instant, gives_way: Instant) -> usize {
        let n_due = |due: Instant| match self.entries.back() {
            Some(last) if last.rank.0 <= due => self.entries.len(),
            _ => self.entries.partition_point(|entry| entry.rank.0 <= due),
        };
        let (n_first, n_all) = (n_due(gives_way.min(due)), n_due(due));
        n_first + self.entries.range(n_first..n_all).filter(|entry| !entry.is_soft()).count()
    }

    fn position(&self, rank: Rank) -> Option<usize> {
        let idx = self.entries.partition_point(|entry| entry.rank < rank);
        self.entries.get(idx).filter(|entry| entry.rank == rank).map(|_| idx)
    }
}

impl<K, T> Bucket<K, T> {
    pub(super) fn new(key: K, size: f64, cost: CostModel) -> Self {
        let usual = UsualCost::default();
        Self { key, size, cost, usual, lanes: Vec::new(), late: Vec::new(), n_waiting: 0, n_running: 0, last_used: 0 }
    }

    /// Jobs that wait and may be in time.
    pub(super) fn n_waiting(&self) -> usize {
        self.n_waiting
    }

    /// Whether nothing waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        self.n_waiting == 0 && self.late.is_empty() && self.n_running == 0
    }

    pub(super) fn push(&mut self, entry: Entry<T>) {
        let lane_idx = self.lanes.iter().position(|lane| lane.flow == entry.flow).unwrap_or_else(|| {
            self.lanes.push(Lane { flow: entry.flow, entries: VecDeque::new() });
            self.lanes.len() - 1
        });
        if let Some(Lane { entries, .. }) = self.lanes.get_mut(lane_idx) {
            let is_last = entries.back().is_none_or(|last| last.rank <= entry.rank);
            let idx = if is_last { entries.len() } else { entries.partition_point(|other| other.rank < entry.rank) };
            entries.insert(idx, entry);
            self.n_waiting += 1;
        }
    }

    /// Takes the most urgent job of a lane.
    pub(super) fn pop(&mut self, lane_idx: usize) -> Option<Entry<T>> {
        self.take(lane_idx, 0)
    }

    /// Takes a job that waits, with whether it had a chance to be in time.
    pub(super) fn remove(&mut self, flow: Flow, rank: Rank) -> Option<(Entry<T>, bool)> {
        if let Some(idx) = self.late.iter().position(|entry| entry.rank == rank) {
            return Some((self.late.swap_remove(idx), false));
        }
        let lane_idx = self.lanes.iter().position(|lane| lane.flow == flow)?;
        let idx = self.lanes.get(lane_idx)?.position(rank)?;
        Some((self.take(lane_idx, idx)?, true))
    }

    /// Sets jobs aside whose run would end after their deadline. Tells the flow of each.
    pub(super) fn set_late_aside(&mut self, now: Instant, mut is_late: impl FnMut(Flow)) {
        let ends = now + duration(self.cost.rules_out(now));
        let is_doomed = |entry: &Entry<T>| entry.deadline.is_some_and(|deadline| deadline <= ends);
        let mut lane_idx = 0;
        while let Some(lane) = self.lanes.get(lane_idx) {
            let flow = lane.flow;
            if !lane.head().is_some_and(is_doomed) {
                lane_idx += 1;
                continue;
            }
            // A lane that gets empty is replaced by another, which is looked at next.
            let entry = self.take(lane_idx, 0);
            self.late.extend(entry);
            is_late(flow);
        }
    }

    /// The most urgent of the late jobs that has not expired.
    pub(super) fn late_rank(&self, now: Instant) -> Option<Rank> {
        self.late.iter().filter(|entry| !entry.is_expired(now)).map(|entry| entry.rank).min()
    }

    /// Takes a late job.
    pub(super) fn take_late(&mut self, rank: Rank) -> Option<Entry<T>> {
        let idx = self.late.iter().position(|entry| entry.rank == rank)?;
        Some(self.late.swap_remove(idx))
    }

    /// Takes everything.
    pub(super) fn take_all(&mut self) -> Vec<Entry<T>> {
        self.n_waiting = 0;
        let lanes = std::mem::take(&mut self.lanes);
        lanes.into_iter().flat_map(|lane| lane.entries).chain(self.late.drain(..)).collect()
    }

    /// When the bucket needs to wait no longer for companions.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.lanes.iter().flat_map(|lane| &lane.entries).map(|entry| entry.ready_at).min()
    }

    fn take(&mut self, lane_idx: usize, idx: usize) -> Option<Entry<T>> {
        let lane = self.lanes.get_mut(lane_idx)?;
        let entry = lane.entries.remove(idx)?;
        self.n_waiting -= 1;
        if lane.entries.is_empty() {
            self.lanes.swap_remove(lane_idx);
        }
        Some(entry)
    }
}
