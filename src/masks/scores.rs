//! What a segmentation head says of an image: one score a class and cell.

use crate::{
    masks::{MaskError, class_set::MAX_CLASSES},
    tensor::FeatureMap,
};

/// Largest magnitude of a score: sums and differences of a few stay far from infinity. Probabilities lie below 1, logits below 1000.
pub const MAX_SCORE: f32 = 1e30;

/// A map of scores that are all numbers of at most [`MAX_SCORE`], so that the best one always exists.
///
/// # Shapes
/// - `map`: `[rows, cols, K]` f32, higher is better. SegViT's are sums of probabilities, a linear head's are probabilities; nothing
///   here asks that they sum to one.
#[derive(Clone, Debug)]
pub struct Scores {
    map: FeatureMap,
    largest: f32,
}

impl Scores {
    /// Checks a map.
    ///
    /// # Errors
    /// [`MaskError::ClassCount`], [`MaskError::Score`].
    pub fn new(map: FeatureMap) -> Result<Self, MaskError> {
        let n_classes = map.channels();
        if n_classes > MAX_CLASSES {
            return Err(MaskError::ClassCount { n_classes });
        }
        // Magnitudes are ordered as their bits are, what is no number last; whole numbers are compared several at once.
        let magnitude = |value: &f32| value.abs().to_bits().cast_signed();
        let largest = map.data().iter().map(magnitude).fold(0, i32::max);
        if largest > magnitude(&MAX_SCORE) {
            let at = map.data().iter().position(|value| magnitude(value) == largest).unwrap_or_default();
            let (cell, class) = (at / n_classes, at % n_classes);
            let value = map.data().get(at).copied().unwrap_or_default();
            return Err(MaskError::Score { row: cell / map.cols(), col: cell % map.cols(), class, value });
        }
        Ok(Self { map, largest: f32::from_bits(largest.cast_unsigned()) })
    }

    /// The map, `[rows, cols, K]`.
    #[must_use]
    pub fn map(&self) -> &FeatureMap {
        &self.map
    }

    /// Rows and columns, in cells.
    #[must_use]
    pub fn grid(&self) -> [usize; 2] {
        [self.map.rows(), self.map.cols()]
    }

    /// Classes.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.map.channels()
    }

    /// The largest magnitude of a score: what rounding errors are relative to.
    pub(super) fn largest(&self) -> f32 {
        self.largest
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_score_that_is_no_number_or_too_large_is_named() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.1e30] {
            let mut values = vec![-MAX_SCORE; 12];
            values[9] = odd;
            let error = Scores::new(FeatureMap::new(2, 3, 2, values.into()).unwrap()).unwrap_err();
            assert!(matches!(error, MaskError::Score { row: 1, col: 1, class: 1, .. }), "{error}");
        }
        assert!(Scores::new(FeatureMap::new(1, 1, 2, vec![MAX_SCORE, -0.0].into()).unwrap()).is_ok());
    }
}
