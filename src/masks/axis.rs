//! Positions of outputs along one axis of the score map, and what bilinear sampling takes from which cells.

use crate::masks::MaskError;

/// Output `idx` lies at `offset + step * idx`, in cells; the centre of the first cell is 0. Positions beyond the outer centres take
/// the value of the border. A negative step mirrors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    offset: f64,
    step: f64,
    len: usize,
}

/// The two cells around an output, and the weight of the second; the weight of the first is the rest to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    pub(super) first: usize,
    pub(super) second: usize,
    pub(super) weight: f32,
}

impl Axis {
    /// An axis of `len` outputs.
    ///
    /// # Errors
    /// [`MaskError::Axis`] when a position is not finite.
    pub fn new(offset: f64, step: f64, len: usize) -> Result<Self, MaskError> {
        let last = offset + step * as_f64(len);
        if offset.is_finite() && last.is_finite() {
            return Ok(Self { offset, step, len });
        }
        Err(MaskError::Axis { offset, step })
    }

    /// All of `n_cells` cells on `len` outputs, half-pixel centres: `(idx + 1/2) n_cells / len - 1/2`, as PyTorch's
    /// `interpolate(align_corners=False)`.
    #[must_use]
    pub fn resized(n_cells: usize, len: usize) -> Self {
        let step = as_f64(n_cells) / as_f64(len.max(1));
        Self { offset: step / 2.0 - 0.5, step, len }
    }

    /// Position of the first output, in cells.
    #[must_use]
    pub fn offset(&self) -> f64 {
        self.offset
    }

    /// Distance of two outputs, in cells.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.step
    }

    /// Outputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no outputs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What each output takes of `n_cells` cells.
    pub(super) fn taps(&self, n_cells: usize) -> Vec<Tap> {
        let last = n_cells.saturating_sub(1);
        let tap = |idx: usize| {
            let position = (self.offset + self.step * as_f64(idx)).clamp(0.0, as_f64(last));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the cells")]
            let first = position as usize;
            #[expect(clippy::cast_possible_truncation, reason = "a weight to the precision of the scores")]
            let weight = position.fract() as f32;
            Tap { first, second: (first + 1).min(last), weight }
        };
        (0..self.len).map(tap).collect()
    }
}

/// `first` and `second` mixed; the one formula of this module, so that whoever samples gets the same bits.
#[inline]
pub(super) fn mix(first: f32, second: f32, weight: f32) -> f32 {
    first + (second - first) * weight
}

/// Mixes value by value; all three are of one length.
#[inline]
pub(super) fn mix_into(target: &mut [f32], first: &[f32], second: &[f32], weight: f32) {
    let (first, second) = (&first[..target.len()], &second[..target.len()]);
    for (idx, target) in target.iter_mut().enumerate() {
        *target = mix(first[idx], second[idx], weight);
    }
}

/// A count as a number; counts of cells and pixels are far smaller than 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of cells and pixels are far smaller than 2^53")]
pub(super) fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn positions_are_half_pixel_centred_and_clamped() {
        // Two cells on four outputs: at -0.25, 0.25, 0.75, 1.25.
        let taps = Axis::resized(2, 4).taps(2);
        let weights: Vec<_> = taps.iter().map(|tap| (tap.first, tap.second, tap.weight)).collect();
        assert_eq!(weights, [(0, 1, 0.0), (0, 1, 0.25), (0, 1, 0.75), (1, 1, 0.0)]);
    }

    #[test]
    fn a_negative_step_mirrors() {
        let taps = Axis::new(2.0, -1.0, 4).unwrap().taps(3);
        assert_eq!(taps.iter().map(|tap| tap.first).collect::<Vec<_>>(), [2, 1, 0, 0]);
    }

    #[test]
    fn positions_that_are_no_numbers_are_refused() {
        for (offset, step) in [(f64::NAN, 1.0), (0.0, f64::INFINITY), (0.0, f64::NAN), (f64::MAX, f64::MAX)] {
            assert!(matches!(Axis::new(offset, step, 3), Err(MaskError::Axis { .. })));
        }
    }
}
