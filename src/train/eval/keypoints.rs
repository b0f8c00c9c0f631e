//! PCK, the share of correct keypoints: SPair-71k (Min et al., 2019), in LiFT's protocol and in the usual one.
//!
//! In: predicted and true keypoints of pairs of images. Out: shares at several tolerances, averaged as asked.

use std::collections::BTreeMap;

/// Keypoints of a pair of images, in pixels of the target.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What it shows.
    pub category: String,
    /// `[x, y]` where each keypoint was found.
    pub predicted: Vec<[f64; 2]>,
    /// `[x, y]` where it is.
    pub truth: Vec<[f64; 2]>,
    /// The longer side of the object's box in the target, in pixels.
    pub scale: f64,
}

/// Over what shares are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// Shares of the keypoints of each category, then over categories: LiFT's.
    Category,
    /// Shares of the keypoints of each pair, then over pairs.
    Image,
    /// Over keypoints.
    Point,
}

/// When a keypoint is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Share of the pair's scale.
    pub alpha: f64,
    /// Whether a distance of exactly that is right; not in LiFT's protocol.
    pub is_inclusive: bool,
}

/// Correct keypoints of all.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    n_correct: usize,
    n: usize,
}

impl Count {
    fn of(pair: &Pair, tolerance: Tolerance) -> Self {
        let bound = tolerance.alpha * pair.scale;
        let is_correct = |(a, b): (&[f64; 2], &[f64; 2])| {
            let distance = (a[0] - b[0]).hypot(a[1] - b[1]);
            distance < bound || (tolerance.is_inclusive && distance == bound)
        };
        let pairs = pair.predicted.iter().zip(&pair.truth);
        Self { n_correct: pairs.clone().filter(|pair| is_correct(*pair)).count(), n: pairs.count() }
    }

    fn plus(self, other: Self) -> Self {
        Self { n_correct: self.n_correct + other.n_correct, n: self.n + other.n }
    }

    fn share(self) -> Option<f64> {
        (self.n > 0).then(|| self.n_correct as f64 / self.n as f64)
    }
}

/// PCK over `pairs`; nothing if no pair has keypoints.
#[must_use]
pub fn pck(pairs: &[Pair], tolerance: Tolerance, average: Average) -> Option<f64> {
    let counts = pairs.iter().map(|pair| (pair.category.as_str(), Count::of(pair, tolerance)));
    let groups: Vec<Count> = match average {
        Average::Point => vec![counts.map(|(_, count)| count).fold(Count::default(), Count::plus)],
        Average::Image => counts.map(|(_, count)| count).collect(),
        Average::Category => {
            let mut of_category: BTreeMap<&str, Count> = BTreeMap::new();
            for (category, count) in counts {
                let sum = of_category.entry(category).or_default();
                *sum = sum.plus(count);
            }
            of_category.into_values().collect()
        }
    };
    let shares: Vec<f64> = groups.into_iter().filter_map(Count::share).collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn pair(category: &str, errors: &[f64]) -> Pair {
        let truth: Vec<[f64; 2]> = errors.iter().map(|_| [50.0, 50.0]).collect();
        let predicted = errors.iter().map(|error| [50.0 + 0.6 * error, 50.0 - 0.8 * error]).collect();
        Pair { category: category.to_owned(), predicted, truth, scale: 100.0 }
    }

    #[test]
    fn shares_by_hand_in_all_averages() {
        let pairs = [pair("cat", &[0.0, 4.0, 20.0, 20.0]), pair("cat", &[1.0]), pair("dog", &[30.0, 2.0])];
        let at = |average| pck(&pairs, Tolerance { alpha: 0.1, is_inclusive: false }, average).unwrap();
        assert!((at(Average::Point) - 4.0 / 7.0).abs() < 1e-12);
        assert!((at(Average::Image) - (0.5 + 1.0 + 0.5) / 3.0).abs() < 1e-12);
        assert!((at(Average::Category) - (0.6 + 0.5) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn the_bound_itself_counts_only_where_it_is_inclusive() {
        let pairs = [Pair { predicted: vec![[60.0, 50.0]], ..pair("cat", &[0.0]) }];
        let at = |is_inclusive| pck(&pairs, Tolerance { alpha: 0.1, is_inclusive }, Average::Point).unwrap();
        assert_eq!((at(false), at(true)), (0.0, 1.0));
    }

    #[test]
    fn pairs_without_keypoints_do_not_count() {
        assert_eq!(pck(&[pair("cat", &[])], Tolerance { alpha: 0.1, is_inclusive: false }, Average::Image), None);
    }
}
