//! Whether the norms of tokens fall into two groups, and where the line between them is.
//!
//! # Design
//! A threshold that is right for one model says nothing of another (150 in the paper, for DINOv2-g), and "so many deviations above the
//! median" finds outliers in any distribution with a long tail. So the norms must have a second mode: a hill in their histogram, at least an octave
//! above the main one (the paper's are three octaves above), rising out of the valley before it by more than chance would make it, and at
//! least six deviations above the median. Deviations are 1.4826 times the median absolute one, the standard deviation of a normal distribution.
//! Rejected: Otsu's threshold, which divides anything in two; the dip test, which asks whether there are two modes anywhere, and finds those of a
//! backbone whose border cells differ a little from the rest.

use std::fmt;

use serde::Serialize;

use crate::norms::histogram::{Histogram, PER_OCTAVE};

/// Octaves that the second mode lies above the main one, at least.
const OCTAVES: usize = 1;
/// Standard errors by which the hill rises out of the valley, at least.
const SIGNIFICANCE: f64 = 3.0;
/// Deviations above the median at which outliers begin, at least.
const DEVIATIONS: f32 = 6.0;
/// Standard deviation of a normal distribution in median absolute ones.
const NORMAL: f32 = 1.4826;

/// A second group of norms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outliers {
    /// Norm from which on a token belongs to it.
    pub above: f32,
    /// Share of all tokens, above 0 and below 1.
    pub share: f64,
    /// Mean norm of the group over the mean of all others.
    pub ratio: f64,
}

/// The middle and the spread of some norms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f32,
    /// 1.4826 times the median absolute deviation.
    pub deviation: f32,
    /// Largest.
    pub max: f32,
}

impl fmt::Display for Outliers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { above, share, ratio } = self;
        write!(f, "{:.2} % of the tokens above {above:.1}, {ratio:.1} times as long as the others", 100.0 * share)
    }
}

impl Spread {
    /// Of finite norms; `None` without any.
    #[must_use]
    pub fn of(norms: &[f32]) -> Option<Self> {
        let finite: Vec<f32> = norms.iter().copied().filter(|norm| norm.is_finite()).collect();
        let median = median(finite.clone())?;
        let deviation = NORMAL * self::median(finite.iter().map(|norm| (norm - median).abs()).collect())?;
        Some(Self { median, deviation, max: finite.iter().copied().fold(0.0, f32::max) })
    }
}

/// Looks for a second group, by the rule of this module.
#[must_use]
pub fn find(norms: &[f32]) -> Option<Outliers> {
    let spread = Spread::of(norms)?;
    let histogram = Histogram::of(norms);
    let smooth = smoothed(histogram.counts());
    let main = highest(&smooth, 0..smooth.len())?;
    let first = main + OCTAVES * usize::try_from(PER_OCTAVE).unwrap_or_default();
    let hill = highest(&smooth, first..smooth.len())?;
    // The lowest place, the last of several: no token there belongs to the main group.
    let valley = (main..hill).rev().min_by(|a, b| smooth[*a].total_cmp(&smooth[*b]))?;
    let (high, low) = (smooth[hill], smooth[valley]);
    if high - low <= SIGNIFICANCE * (high + low).sqrt() {
        return None;
    }
    let above = Histogram::lower(valley + 1).max(spread.median + DEVIATIONS * spread.deviation);
    split(norms, above)
}

/// Both groups, measured.
fn split(norms: &[f32], above: f32) -> Option<Outliers> {
    let (far, near): (Vec<f32>, Vec<f32>) =
        norms.iter().copied().filter(|norm| norm.is_finite()).partition(|norm| *norm >= above);
    let mean = |of: &[f32]| of.iter().copied().map(f64::from).sum::<f64>() / count(of.len());
    if far.is_empty() || near.is_empty() {
        return None;
    }
    Some(Outliers { above, share: count(far.len()) / count(far.len() + near.len()), ratio: mean(&far) / mean(&near) })
}

/// Each bin with a quarter of its neighbours: fewer hills by chance.
fn smoothed(counts: &[u64]) -> Vec<f64> {
    let at = |idx: Option<usize>| {
        idx.and_then(|idx| counts.get(idx)).map_or(0.0, |count| self::count(usize::try_from(*count).unwrap_or(usize::MAX)))
    };
    (0..counts.len()).map(|idx| 0.25 * at(idx.checked_sub(1)) + 0.5 * at(Some(idx)) + 0.25 * at(Some(idx + 1))).collect()
}

fn highest(values: &[f64], mut range: std::ops::Range<usize>) -> Option<usize> {
    range.end = range.end.min(values.len());
    range.filter(|idx| values[*idx] > 0.0).max_by(|a, b| values[*a].total_cmp(&values[*b]))
}

fn median(mut values: Vec<f32>) -> Option<f32> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Normal numbers by Box and Muller.
    fn normal(n: usize, seed: u64) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut one = || (-2.0 * random.f32().max(1e-7).ln()).sqrt() * (std::f32::consts::TAU * random.f32()).cos();
        (0..n).map(|_| one()).collect()
    }

    fn around(mean: f32, deviation: f32, n: usize, seed: u64) -> Vec<f32> {
        normal(n, seed).iter().map(|value| (mean + deviation * value).abs()).collect()
    }

    #[test]
    fn a_model_without_outliers_has_none() {
        for seed in 0..20 {
            assert_eq!(find(&around(45.0, 6.0, 20_000, seed)), None, "{seed}");
        }
    }

    #[test]
    fn a_long_tail_is_no_second_group() {
        for seed in 0..20 {
            // Its largest are some 16 times the median.
            let norms: Vec<f32> = normal(20_000, seed).iter().map(|value| 40.0 * (0.7 * value).exp()).collect();
            assert_eq!(find(&norms), None, "{seed}");
        }
    }

    #[test]
    fn two_groups_less_than_an_octave_apart_are_one() {
        let norms = [around(40.0, 3.0, 9_000, 1), around(60.0, 3.0, 1_000, 2)].concat();
        assert_eq!(find(&norms), None);
    }

    #[test]
    fn a_few_in_a_hundred_ten_times_as_long_are_found_and_counted() {
        for (seed, n) in [(1, 240), (2, 60), (3, 1_000)] {
            let norms = [around(45.0, 8.0, 10_000, seed), around(450.0, 60.0, n, seed + 10)].concat();
            let found = find(&norms).unwrap();
            let share = count(n) / count(10_000 + n);
            assert!((found.share / share - 1.0).abs() < 0.02, "{found:?}");
            assert!((80.0..330.0).contains(&found.above), "{found:?}");
            assert!((found.ratio - 10.0).abs() < 0.5, "{found:?}");
        }
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[f32::NAN; 5]), None);
        assert_eq!(find(&[3.0; 1000]), None);
    }
}
