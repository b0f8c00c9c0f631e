//! Counts of norms, in bins that grow with them.

/// Bins of an octave.
pub(super) const PER_OCTAVE: i32 = 4;
/// Exponents of two that are told apart; norms beyond fall into the last bins.
const EXPONENTS: std::ops::Range<i32> = -16..32;

/// How many norms lie where. Bin `b` holds those from `2^(b / 4)` to `2^((b + 1) / 4)`, counted from `2^-16`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts norms. Those that are not finite are left out.
    #[must_use]
    pub fn of(norms: &[f32]) -> Self {
        let n_bins = usize::try_from(PER_OCTAVE * (EXPONENTS.end - EXPONENTS.start)).unwrap_or_default();
        let mut counts = vec![0; n_bins];
        for norm in norms.iter().filter(|norm| norm.is_finite()) {
            if let Some(count) = counts.get_mut(bin_of(*norm)) {
                *count += 1;
            }
        }
        Self { counts }
    }

    /// Counts, from the smallest norms on.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The smallest norm of a bin.
    #[must_use]
    pub fn lower(bin: usize) -> f32 {
        let steps = i32::try_from(bin).unwrap_or(i32::MAX);
        #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
        let exponent = EXPONENTS.start as f32 + steps as f32 / PER_OCTAVE as f32;
        exponent.exp2()
    }

    /// Bins that hold something: the first, and one past the last.
    #[must_use]
    pub fn occupied(&self) -> std::ops::Range<usize> {
        let first = self.counts.iter().position(|count| *count > 0).unwrap_or_default();
        let last = self.counts.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
        first..last
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "clamped to the bins")]
fn bin_of(norm: f32) -> usize {
    let exponent =
        norm.max(f32::MIN_POSITIVE).log2().clamp(EXPONENTS.start as f32, EXPONENTS.end as f32 - 0.5 / PER_OCTAVE as f32);
    ((exponent - EXPONENTS.start as f32) * PER_OCTAVE as f32).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_fall_into_the_bin_that_holds_them() {
        for norm in [1e-3, 0.9, 1.0, 1.18, 7.0, 150.0, 4000.0f32] {
            let histogram = Histogram::of(&[norm]);
            let bins = histogram.occupied();
            assert_eq!(bins.len(), 1);
            assert!(Histogram::lower(bins.start) <= norm && norm < Histogram::lower(bins.end), "{norm}");
        }
    }

    #[test]
    fn nothing_is_lost_at_the_ends_and_broken_norms_do_not_count() {
        let counted = Histogram::of(&[0.0, f32::MAX, f32::NAN, f32::INFINITY]);
        assert_eq!(counted.counts().iter().sum::<u64>(), 2);
        assert_eq!(counted.occupied(), 0..counted.counts().len());
        assert!(Histogram::of(&[]).occupied().is_empty());
    }
}
