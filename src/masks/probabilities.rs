//! Scores in half precision, as they go to a client.

use std::ops::Range;

use half::{f16, slice::HalfFloatSliceExt as _};

use crate::masks::{MaskError, Sampler, sampler::RowPair};

/// The scores of all pixels.
///
/// # Shapes
/// - output: `[rows, cols, k]` f16, little-endian bytes, the k classes in the order of the sampler's set
///
/// # Errors
/// [`MaskError::TooManyValues`] above `max_values`; ask for [bands](probability_rows) then.
pub fn probabilities(sampler: &Sampler<'_>, max_values: u64) -> Result<Vec<u8>, MaskError> {
    probability_rows(sampler, 0..sampler.rows(), max_values)
}

/// The scores of a band of rows.
///
/// # Shapes
/// - output: `[rows of the band, cols, k]` f16, little-endian bytes
///
/// # Errors
/// [`MaskError::Rows`], [`MaskError::TooManyValues`] above `max_values`.
pub fn probability_rows(sampler: &Sampler<'_>, rows: Range<usize>, max_values: u64) -> Result<Vec<u8>, MaskError> {
    let n_bytes = 2 * sampler.n_values(&rows, max_values)?;
    let (mut pair, mut mixed) = (RowPair::default(), Vec::new());
    let mut values = vec![0f32; sampler.row_len()];
    let mut halves = vec![f16::ZERO; sampler.row_len()];
    let mut bytes = Vec::with_capacity(n_bytes);
    // Row by row, so that the single-precision values stay in the cache.
    for row in rows {
        sampler.row_into(row, &mut pair, &mut mixed, &mut values);
        halves.convert_from_f32_slice(&values);
        halves.iter_mut().for_each(|half| *half = f16::from_bits(half.to_bits().to_le()));
        bytes.extend_from_slice(bytemuck::cast_slice(&halves));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::{
        masks::{ClassSet, MaskLimits, Raster, Scores},
        tensor::FeatureMap,
    };

    #[test]
    fn bands_are_parts_of_the_whole_in_half_precision() {
        let values: Vec<f32> = (0..2 * 3 * 4).map(|idx| idx as f32 / 24.0).collect();
        let scores = Scores::new(FeatureMap::new(2, 3, 4, values.into()).unwrap()).unwrap();
        let raster = Raster::resized([2, 3], [5, 7], &MaskLimits::default()).unwrap();
        let classes = ClassSet::new(&[2, 0], 4).unwrap();
        let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
        let whole = probabilities(&sampler, 70).unwrap();
        let single = sampler.band(0..5, 70).unwrap();
        let expected: Vec<u8> = single.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        assert_eq!(whole, expected);
        assert_eq!(probability_rows(&sampler, 1..3, 28).unwrap(), whole[28..84]);
        assert!(matches!(probabilities(&sampler, 69), Err(MaskError::TooManyValues { .. })));
    }
}
