//! When the requests of an open loop are due, whatever the server does.
//!
//! # Design
//! Requests of many independent users arrive as a Poisson process: gaps are exponential, so that bursts come by themselves. Evenly spaced
//! requests, what simple generators send, hide queueing: at 80 % load a queue with Poisson arrivals waits several service times, one with
//! even arrivals hardly at all.

use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;

/// Spacing of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Spacing {
    /// Exponential gaps.
    Poisson,
    /// Equal gaps, as ghz.
    Even,
}

/// Requests a second, in steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) start: f64,
    /// Added after `each`.
    pub(super) step: f64,
    /// Never more (or, going down, less).
    pub(super) end: f64,
    pub(super) each: Duration,
}

impl Rate {
    /// The same all the time.
    pub(super) fn constant(rate: f64) -> Self {
        Self { start: rate, step: 0.0, end: rate, each: Duration::from_secs(1) }
    }

    /// # Errors
    /// A rate that is not above zero.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let rates = [self.start, self.end];
        ensure!(rates.iter().all(|rate| rate.is_finite() && *rate > 0.0), "rates must be above zero");
        ensure!(!self.each.is_zero(), "a step takes some time");
        Ok(())
    }

    /// Requests a second at a time after the beginning.
    pub(super) fn at(&self, time: Duration) -> f64 {
        let n_steps = (time.as_secs_f64() / self.each.as_secs_f64()).floor();
        let rate = self.start + n_steps * self.step;
        if self.step >= 0.0 { rate.min(self.end) } else { rate.max(self.end) }
    }
}

/// Due times, one after the other, since the beginning.
#[derive(Debug)]
pub(super) struct Arrivals {
    rate: Rate,
    spacing: Spacing,
    random: fastrand::Rng,
    next: Duration,
}

impl Arrivals {
    pub(super) fn new(rate: Rate, spacing: Spacing, seed: u64) -> Self {
        Self { rate, spacing, random: fastrand::Rng::with_seed(seed), next: Duration::ZERO }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let due = self.next;
        let gap = match self.spacing {
            Spacing::Even => 1.0,
            // 1 - u lies in (0, 1].
            Spacing::Poisson => -(1.0 - self.random.f64()).ln(),
        };
        self.next += Duration::from_secs_f64(gap / self.rate.at(due));
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let due: Vec<f64> =
            Arrivals::new(Rate::constant(50.0), Spacing::Poisson, 1).take(20_001).map(|due| due.as_secs_f64()).collect();
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / 2e4;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 2e4;
        // The standard error of both is below 1.5 % for 20,000 gaps; three of them.
        assert!((mean * 50.0 - 1.0).abs() < 0.03 && (variance.sqrt() * 50.0 - 1.0).abs() < 0.045, "{mean} {variance}");
    }

    #[test]
    fn steps_raise_the_rate_up_to_the_end() {
        let rate = Rate { start: 2.0, step: 2.0, end: 5.0, each: Duration::from_secs(10) };
        let at = |seconds| rate.at(Duration::from_secs(seconds));
        assert_eq!([at(0), at(9), at(10), at(20), at(99)], [2.0, 2.0, 4.0, 5.0, 5.0]);
        let even = Arrivals::new(rate, Spacing::Even, 0).take_while(|due| due.as_secs() < 20).count();
        assert_eq!(even, 20 + 40);
    }
}
