//! How long a batch of one bucket takes: a line `a * n + b` over the batch size n, learned from what runs took.
//!
//! # Design
//! Two numbers fit what executors do: work for each image, and what a run costs however small it is. They are the least squares over
//! past runs that fade (each new one leaves 0.95 of the weight of those before), so the line follows a machine that gets slower. In
//! their normal equations stands a weak wish for `b = ratio * a`, without which the line is unknown until two batch sizes have run;
//! BentoML, where the idea of such a line comes from (`CorkDispatcher`), explores with the requests of its users instead.
//!
//! A run that was disturbed must not bend the line: a residual counts up to three mean deviations (Huber, "Robust Estimation of a
//! Location Parameter", 1964, with the clip as the weight). The deviations grow by what was clipped, so a lasting change is
//! followed within some 20 runs. The first runs count as they are. Rejected: a table of times by batch size (learns each size alone), a Kalman filter (the same line,
//! with noise levels that nobody knows).

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// Weight of a past run after a new one.
const FADE: f64 = 0.95;
/// Mean deviations beyond which a residual is clipped.
const CLIP: f64 = 3.0;
/// Share of a new deviation in the mean.
const DEVIATION_RATE: f64 = 0.1;
/// Mean deviations above the line that [`CostModel::careful`] allows for: two standard deviations, were the residuals normal.
const MARGIN: f64 = 2.5;
/// Deviation that is assumed of any machine, as a part of the time.
const MIN_DEVIATION: f64 = 0.05;
/// Weight of past runs, in runs, from which on the line is believed more than a run that does not fit.
const SETTLED: f64 = 6.0;
/// Weight of the wish for a ratio, in runs.
const WISH: f64 = 0.1;
/// Ratio `b / a` where nothing is known.
pub(super) const DEFAULT_RATIO: f64 = 0.3;
/// A prediction that was not confirmed is trusted half as much after this time, in seconds.
const HALF_LIFE_S: f64 = 30.0;

/// The line of one bucket, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    /// For each image.
    pub(super) a: f64,
    /// For each run.
    pub(super) b: f64,
}

/// Past runs of one bucket, summed, and the line through them.
#[derive(Clone, Debug)]
pub(super) struct CostModel {
    ratio: f64,
    n_runs: f64,
    sum_n: f64,
    sum_nn: f64,
    sum_t: f64,
    sum_nt: f64,
    /// Mean absolute residual, as a part of the time.
    deviation: f64,
    last_run: Option<Instant>,
    line: Line,
}

/// What an image costs in batches as large as pays. Every decision asks this of every bucket, and seldom has it changed since.
#[derive(Clone, Debug, Default)]
pub(super) struct UsualCost(Cell<Option<(Line, usize, f64)>>);

impl UsualCost {
    /// Seconds of an image on a line, in batches of at most `max` and no larger than pays.
    pub(super) fn seconds(&self, line: Line, max: usize, tolerance: f64) -> f64 {
        if let Some((of_line, of_max, seconds)) = self.0.get()
            && (of_line, of_max) == (line, max)
        {
            return seconds;
        }
        let seconds = line.per_image(line.paying_size(max, 0.0, tolerance));
        self.0.set(Some((line, max, seconds)));
        seconds
    }
}

impl Line {
    /// Time of a batch of `n`, in seconds.
    pub(super) fn seconds(self, n: usize) -> f64 {
        self.a.mul_add(count(n), self.b)
    }

    /// Time of each image in batches of `n`, in seconds.
    pub(super) fn per_image(self, n: usize) -> f64 {
        self.a + self.b / count(n.max(1))
    }

    /// The batch size worth waiting for: the smaller ones would waste time, larger ones make every member wait for little.
    ///
    /// The larger of two. First the smallest n whose time for each image, `a + b / n`, is within `1 + tolerance` of that at `max`.
    /// Second, with `backlog` seconds of work waiting, `sqrt(backlog * b) / a`: when N images wait and runs of n follow each other, the
    /// mean wait is `N a / 2 + N b / (2 n) + n a / 2 + b / 2`, least at `n = sqrt(N b / a)`.
    pub(super) fn paying_size(self, max: usize, backlog: f64, tolerance: f64) -> usize {
        let Self { a, b } = self;
        if a <= 0.0 {
            return max;
        }
        let knee = b / ((1.0 + tolerance) * (a + b / count(max)) - a);
        let balance = (backlog * b).sqrt() / a;
        let wanted = knee.max(balance).ceil();
        if wanted >= count(max) { max } else { floor(wanted).clamp(1, max) }
    }

    /// Images that fit into `seconds`.
    pub(super) fn size_within(self, seconds: f64, max: usize) -> usize {
        let Self { a, b } = self;
        let wanted = if a <= 0.0 { f64::INFINITY } else { (seconds - b) / a };
        if wanted >= count(max) { max } else { floor(wanted).min(max) }
    }
}

impl CostModel {
    /// Nothing observed; the wish is for `b = ratio * a`.
    pub(super) fn new(ratio: f64) -> Self {
        let zero = Line { a: 0.0, b: 0.0 };
        Self { ratio, n_runs: 0.0, sum_n: 0.0, sum_nn: 0.0, sum_t: 0.0, sum_nt: 0.0, deviation: 0.0, last_run: None, line: zero }
    }

    /// The line, once there was a run.
    pub(super) fn line(&self) -> Option<Line> {
        self.last_run.map(|_| self.line)
    }

    /// A line that nearly all runs stay below.
    pub(super) fn careful(&self, line: Line) -> Line {
        let factor = MARGIN.mul_add(self.deviation, 1.0);
        Line { a: line.a * factor, b: line.b * factor }
    }

    /// Time of one image, in seconds, that rules out a deadline before it. Falls with the time since the last run, so that an estimate that
    /// was wrong is tried again.
    pub(super) fn rules_out(&self, now: Instant) -> f64 {
        let age = self.last_run.map_or(f64::INFINITY, |at| now.saturating_duration_since(at).as_secs_f64());
        self.careful(self.line).seconds(1) * (-age / HALF_LIFE_S).exp2()
    }

    /// Learns that a batch of `n` took `seconds`.
    pub(super) fn observe(&mut self, now: Instant, n: usize, seconds: f64) {
        let seconds = self.clip(n, seconds);
        let n = count(n);
        let fade = if self.last_run.is_some() { FADE } else { 0.0 };
        for (sum, new) in [
            (&mut self.n_runs, 1.0),
            (&mut self.sum_n, n),
            (&mut self.sum_nn, n * n),
            (&mut self.sum_t, seconds),
            (&mut self.sum_nt, n * seconds),
        ] {
            *sum = fade * *sum + new;
        }
        self.last_run = Some(now);
        self.line = self.fit();
    }

    /// The time as far as it is believed.
    fn clip(&mut self, n: usize, seconds: f64) -> f64 {
        let expected = self.line.seconds(n);
        if self.n_runs < SETTLED || expected <= 0.0 {
            return seconds;
        }
        let bound = CLIP * self.deviation.max(MIN_DEVIATION) * expected;
        let residual = (seconds - expected).clamp(-bound, bound);
        self.deviation += DEVIATION_RATE * (residual.abs() / expected - self.deviation);
        expected + residual
    }

    /// Solves the normal equations of `sum (t - a n - b)^2 + WISH (b - ratio a)^2` for a, b >= 0.
    fn fit(&self) -> Line {
        let wish = WISH * self.n_runs.min(1.0);
        let (aa, ab, bb) = (self.sum_nn + wish * self.ratio * self.ratio, self.sum_n - wish * self.ratio, self.n_runs + wish);
        let determinant = aa * bb - ab * ab;
        let a = (self.sum_nt * bb - self.sum_t * ab) / determinant;
        let b = (self.sum_t * aa - self.sum_nt * ab) / determinant;
        if !(a.is_finite() && b.is_finite()) || a < 0.0 {
            return Line { a: 0.0, b: self.sum_t / self.n_runs };
        }
        if b < 0.0 {
            return Line { a: self.sum_nt / self.sum_nn, b: 0.0 };
        }
        Line { a, b }
    }
}

/// Seconds as a duration of at most a day.
pub(super) fn duration(seconds: f64) -> Duration {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(DAY).min(DAY)
}

#[expect(clippy::cast_precision_loss, reason = "batches and queues are far below 2^52")]
pub(super) fn count(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "floored; a float outside the range saturates")]
fn floor(n: f64) -> usize {
    n.max(0.0).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: Line = Line { a: 0.09, b: 0.02 };

    fn trained(sizes: &[usize], n_runs: usize) -> CostModel {
        let (mut model, now) = (CostModel::new(DEFAULT_RATIO), Instant::now());
        for n in sizes.iter().cycle().take(n_runs) {
            model.observe(now, *n, TRUE.seconds(*n));
        }
        model
    }

    fn error(model: &CostModel, n: usize) -> f64 {
        (model.line.seconds(n) / TRUE.seconds(n) - 1.0).abs()
    }

    #[test]
    fn line_is_found_from_runs_of_two_sizes() {
        let model = trained(&[1, 4], 20);
        // The wish weighs 0.1 of some 13 runs.
        assert!((1..=8).all(|n| error(&model, n) < 0.02), "{model:?}");
    }

    #[test]
    fn one_size_alone_is_predicted_exactly_and_others_by_the_usual_ratio() {
        let model = trained(&[1], 1);
        assert!(error(&model, 1) < 1e-9);
        assert!((model.line.b / model.line.a - DEFAULT_RATIO).abs() < 1e-9, "{model:?}");
    }

    #[test]
    fn one_disturbed_run_hardly_moves_the_line() {
        let mut model = trained(&[1, 2, 4], 30);
        model.observe(Instant::now(), 2, 100.0 * TRUE.seconds(2));
        assert!((1..=4).all(|n| error(&model, n) < 0.05), "{model:?}");
    }

    #[test]
    fn a_machine_that_becomes_three_times_slower_is_followed() {
        let mut model = trained(&[1, 2, 4], 30);
        for n in [1, 2, 4].iter().cycle().take(40) {
            model.observe(Instant::now(), *n, 3.0 * TRUE.seconds(*n));
        }
        assert!((model.line.seconds(2) / TRUE.seconds(2) / 3.0 - 1.0).abs() < 0.15, "{model:?}");
    }

    #[test]
    fn batches_are_no_larger_than_pays() {
        let paying = |a, b, backlog| Line { a, b }.paying_size(8, backlog, 0.05);
        assert_eq!(paying(0.1, 0.0, 100.0), 1, "nothing to share");
        assert_eq!(paying(0.1, 0.01, 0.0), 2, "a CPU");
        assert_eq!(paying(0.1, 0.01, 10.0), 4, "and a long queue: sqrt(10 * 0.01) / 0.1 = 3.2");
        assert_eq!(paying(0.001, 0.008, 0.0), 8, "an accelerator");
        assert_eq!(paying(0.0, 0.0, 0.0), 8, "nothing known");
    }

    #[test]
    fn trust_fades_when_nothing_confirms_it() {
        let model = trained(&[1], 10);
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        assert!(model.rules_out(now) > 0.9 * TRUE.seconds(1));
        assert!(model.rules_out(later) < 0.26 * TRUE.seconds(1));
    }
}
