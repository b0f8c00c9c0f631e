//! How many threads a session gets, and when they give way.
//!
//! # Design
//! ONNX Runtime counts the host's cores, whatever the container may use, and its idle threads spin for milliseconds. On a few
//! shared cores both starve everybody else, so the count follows the process's quota, and spinning is off unless asked for.
//!
//! A run takes every core it has for as long as it lasts. Refusals, health checks and answers need a core for microseconds, and at equal priority
//! they wait for their turn beside the run; so the threads of runs can be nicer than those that serve connections, which costs runs
//! nothing but those microseconds in a container of its own. Beside other programs of one session it would let those starve the runs, and the
//! start of the server, which is why it has to be asked for. Only the system's administrator can take niceness back, so it is given to threads that do nothing else; new
//! ones inherit it.

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
    /// Niceness of inference beside the threads that serve connections, 0 to 19; Linux only. Default 0. 10 is good where the
    /// service has a container of its own: other programs of its cgroup or session come before its runs too.
    pub nice: u8,
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

    /// Makes the calling thread give way to others, and all threads that it starts from now on.
    pub fn give_way(self) {
        // On Linux niceness is the thread's; elsewhere it would be that of the whole process.
        #[cfg(target_os = "linux")]
        if self.nice > 0
            && let Err(error) = rustix::process::setpriority_process(None, self.nice.min(19).into())
        {
            tracing::warn!(%error, nice = self.nice, "inference cannot give way to connections");
        }
    }
}

/// Cores that this process may use: the smaller of affinity mask and cgroup quota.
#[must_use]
pub fn cpu_quota() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn instances_share_the_quota_and_none_is_left_without_a_thread() {
        let auto = ThreadConfig::default();
        assert_eq!([(1, 8), (2, 8), (3, 8), (9, 8), (0, 4)].map(|(n, quota)| auto.per_instance(n, quota)), [8, 4, 2, 1, 4]);
        assert_eq!(ThreadConfig { intra_op: 3, ..auto }.per_instance(1, 2), 3);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_gives_way_with_those_that_it_starts_and_no_others() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let config = ThreadConfig { nice: 19, ..ThreadConfig::default() };
        let started = thread::spawn(move || {
            config.give_way();
            (nice(), thread::spawn(nice).join().unwrap())
        });
        assert_eq!(started.join().unwrap(), (19, 19));
        assert_eq!(nice(), before);
    }
}
