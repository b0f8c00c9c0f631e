//! CPU time of a process, from `/proc/PID/stat`.

use std::fs;

use anyhow::Context as _;

/// Kernel ticks a second; 100 on every Linux that Rust supports (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time that a process has used.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    n_ticks: u64,
}

impl CpuTime {
    /// Of this process.
    pub fn of_self() -> anyhow::Result<Self> {
        Self::of("self")
    }

    /// Of the process `pid`.
    pub fn of(pid: &str) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("reading the CPU time of {pid}"))?;
        // The second field, the name in parentheses, may hold blanks; fields are counted after it. utime is field 14, stime 15.
        let (_, fields) = stat.rsplit_once(") ").context("malformed stat file")?;
        let mut ticks = fields.split(' ').skip(11).map(str::parse::<u64>);
        let (user, system) = ticks.next().zip(ticks.next()).context("malformed stat file")?;
        Ok(Self { n_ticks: user? + system? })
    }

    /// Seconds of CPU time since `earlier`.
    pub fn since(self, earlier: Self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "ticks of minutes are far below 2^53")]
        let n_ticks = (self.n_ticks - earlier.n_ticks) as f64;
        n_ticks / TICKS_PER_SECOND
    }
}
