//! One mask a class from a threshold on its score: a pixel may be in several, or in none.
//!
//! # Design
//! Only classes that reach the threshold at one of four cells are looked at between them. Along a row between two columns of cells a
//! score is a straight line: where both ends are at least the threshold, so are all pixels between them, and a range of bits is set at
//! once; where both are below it, none is. Only what the outline crosses is sampled pixel by pixel.

use crate::masks::{
    BitMask, MaskError, MaskLimits, Sampler,
    axis::mix,
    bit_mask::set_cols,
    exclusive::empty_masks,
    sampler::{Span, spans},
    strip::{Strip, Wanted},
};

/// Masks of the sampler's classes, in its order: where the score of the class is at least `threshold`.
///
/// # Errors
/// [`MaskError::Threshold`] when it is no number, [`MaskError::TooManyMasks`].
pub fn masks_of_scores(sampler: &Sampler<'_>, threshold: f32, limits: &MaskLimits) -> Result<Vec<BitMask>, MaskError> {
    if threshold.is_nan() {
        return Err(MaskError::Threshold);
    }
    let n_masks = sampler.classes().classes().len();
    let mut masks = empty_masks(n_masks, sampler.rows(), sampler.cols(), limits)?;
    let spans = spans(sampler.col_taps());
    let weights: Vec<f32> = sampler.col_taps().iter().map(|tap| tap.weight).collect();
    let mut strip = Strip::new(Wanted::AtLeast(threshold));
    for row in 0..sampler.rows() {
        let tap = sampler.row_tap(row);
        strip.find(sampler, &tap, &spans);
        for (idx, span) in spans.iter().enumerate() {
            for candidate in strip.candidates(idx) {
                let bits = masks[candidate.place].row_mut(row);
                set_span(bits, span, candidate.ends(tap.weight), &weights, threshold);
            }
        }
    }
    Ok(masks)
}

/// Sets what reaches the threshold between two columns of cells.
fn set_span(bits: &mut [u8], span: &Span, [left, right]: [f32; 2], weights: &[f32], threshold: f32) {
    if left < threshold && right < threshold {
        return;
    }
    if left >= threshold && right >= threshold {
        set_cols(bits, span.cols.clone());
        return;
    }
    for col in span.cols.clone() {
        bits[col / 8] |= u8::from(mix(left, right, weights[col]) >= threshold) << (7 - col % 8);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::{
        masks::{ClassSet, Raster, Scores},
        tensor::FeatureMap,
    };

    /// Scores this close to the threshold may fall on either side: rounding differs at the ends of a line.
    const TIE: f32 = 1e-6;

    proptest! {
        #[test]
        fn a_bit_is_set_where_the_score_reaches_the_threshold(
            values in proptest::collection::vec(0f32..1.0, 4 * 5 * 3),
            (height, width) in (1usize..30, 1usize..30),
            threshold in 0f32..1.0,
        ) {
            let scores = Scores::new(FeatureMap::new(4, 5, 3, values.into()).unwrap()).unwrap();
            let raster = Raster::resized([4, 5], [height, width], &MaskLimits::default()).unwrap();
            let classes = ClassSet::new(&[2, 0], 3).unwrap();
            let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
            let masks = masks_of_scores(&sampler, threshold, &MaskLimits::default()).unwrap();
            for (idx, value) in sampler.band(0..height, u64::MAX).unwrap().into_iter().enumerate() {
                let (row, col, place) = (idx / 2 / width, idx / 2 % width, idx % 2);
                let is_tie = (value - threshold).abs() <= TIE;
                prop_assert!(is_tie || masks[place].is_set(row, col) == (value >= threshold));
            }
        }
    }

    #[test]
    fn a_threshold_that_is_no_number_is_refused() {
        let scores = Scores::new(FeatureMap::new(1, 1, 1, vec![0.5].into()).unwrap()).unwrap();
        let raster = Raster::resized([1, 1], [2, 2], &MaskLimits::default()).unwrap();
        let classes = ClassSet::all(1).unwrap();
        let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
        assert!(matches!(masks_of_scores(&sampler, f32::NAN, &MaskLimits::default()), Err(MaskError::Threshold)));
        assert_eq!(masks_of_scores(&sampler, 0.5, &MaskLimits::default()).unwrap()[0].area_px(), 4);
    }
}
