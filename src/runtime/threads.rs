//! How many threads a session gets.
//!
//! # Design
//! ONNX Runtime counts the host's cores, whatever the container may use, and its idle threads spin for milliseconds. On a few
//! shared cores both starve everybody else, so the count follows the process's quota, and spinning is off unless asked for.

use std::{num::NonZero, thread};

use serde::{Deserialize, Serialize};

/// Threads of the sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThreadConfig {
    /// Threads inside one operator, for each session; 0 (default) shares the quota among the instances.
    pub intra_op: usize,
    /// How long idle threads spin before they sleep, in microseconds. Default 0: not at all.
    pub spin_us: u32,
}

impl ThreadConfig {
    /// Threads of each of `n_instances` sessions that run at once on `quota` cores; at least 1.
    #[must_use]
    pub fn per_instance(self, n_instances: usize, quota: usize) -> usize {
        let share = (quota / n_instances.max(1)).max(1);
        if self.intra_op == 0 {
            return share;
        }
        if self.intra_op > share {
            tracing::warn!(intra_op = self.intra_op, n_instances, quota, "more inference threads than the cores of this process");
        }
        self.intra_op
    }
}

/// Cores that this process may use: the smaller of affinity mask and cgroup quota.
#[must_use]
pub fn cpu_quota() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_the_quota_and_none_is_left_without_a_thread() {
        let auto = ThreadConfig::default();
        assert_eq!([(1, 8), (2, 8), (3, 8), (9, 8), (0, 4)].map(|(n, quota)| auto.per_instance(n, quota)), [8, 4, 2, 1, 4]);
        assert_eq!(ThreadConfig { intra_op: 3, spin_us: 0 }.per_instance(1, 2), 3);
    }
}
