//! How sure a model is of masks that may overlap.

use crate::masks::{BitMask, MaskError, Sampler, sampler::RowPair};

/// Mean score of each of the sampler's classes over the pixels of its mask; 0 for an empty mask.
///
/// # Errors
/// [`MaskError::SizeMismatch`] for masks of another size.
pub fn mean_scores(sampler: &Sampler<'_>, masks: &[BitMask]) -> Result<Vec<f32>, MaskError> {
    let (rows, cols) = (sampler.rows(), sampler.cols());
    if let Some(odd) = masks.iter().find(|mask| (mask.rows(), mask.cols()) != (rows, cols)) {
        let (label_rows, label_cols) = (odd.rows(), odd.cols());
        return Err(MaskError::SizeMismatch { what: "the raster", rows, cols, label_rows, label_cols });
    }
    let n_classes = sampler.classes().classes().len();
    let mut sums = vec![(0f64, 0u64); n_classes];
    let (mut pair, mut mixed, mut values) = (RowPair::default(), Vec::new(), vec![0.0; sampler.row_len()]);
    for row in 0..rows {
        sampler.row_into(row, &mut pair, &mut mixed, &mut values);
        for (col, scores) in values.chunks_exact(n_classes).enumerate() {
            let set = sums.iter_mut().zip(scores).zip(masks).filter(|(_, mask)| mask.is_set(row, col));
            set.for_each(|((sum, score), _)| *sum = (sum.0 + f64::from(*score), sum.1 + 1));
        }
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean to the precision of scores")]
    let mean = |(sum, n): (f64, u64)| (sum / n.max(1) as f64) as f32;
    Ok(sums.into_iter().map(mean).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::{
        masks::{ClassSet, MaskLimits, Raster, Scores, masks_of_scores},
        tensor::FeatureMap,
    };

    #[test]
    fn the_mean_is_that_of_the_pixels_in_the_mask_and_zero_where_there_are_none() {
        // Two cells, two classes.
        let scores = Scores::new(FeatureMap::new(1, 2, 2, vec![0.25, 0.0, 0.75, 0.125].into()).unwrap()).unwrap();
        let raster = Raster::resized([1, 2], [1, 2], &MaskLimits::default()).unwrap();
        let classes = ClassSet::all(2).unwrap();
        let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
        let of =
            |threshold| mean_scores(&sampler, &masks_of_scores(&sampler, threshold, &MaskLimits::default()).unwrap()).unwrap();
        assert_eq!(of(0.2), [0.5, 0.0]);
        assert_eq!(of(0.5), [0.75, 0.0]);
        let other = [BitMask::new(2, 2).unwrap(), BitMask::new(2, 2).unwrap()];
        assert!(matches!(mean_scores(&sampler, &other), Err(MaskError::SizeMismatch { .. })));
    }
}
