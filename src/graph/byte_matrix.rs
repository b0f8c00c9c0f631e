//! Weights of linear layers in signed bytes.

use ndarray::{Array1, Array2, Axis};

/// Smallest weight: for columns of zeros.
const FLOOR: f32 = 1e-6;

/// A matrix in signed bytes, `[K, N]`, and the scale of each column.
#[derive(Clone, Debug)]
pub(super) struct ByteMatrix {
    /// `[K, N]`.
    pub(super) values: Array2<i8>,
    /// `[N]`.
    pub(super) scale: Array1<f32>,
}

/// Largest sum of two neighbours of one sign. Processors without integer dot products add the products of two neighbouring pairs
/// in 16 bits with saturation: 255 * 128 = 32,640 is the last that fits.
const LARGEST_PAIR: f32 = 128.0;

impl ByteMatrix {
    /// Rounds `matrix` `[K, N]` to bytes, column by column, with the smallest scale for which neither a value leaves \[-127, 127\] nor a
    /// pair of values saturates (see [`LARGEST_PAIR`]): so that the fast kernels of AVX2 give the exact integer product. Others halve
    /// all weights to seven bits for that, or take slower kernels.
    pub(super) fn round(matrix: &Array2<f32>) -> Self {
        let scale: Array1<f32> = matrix.axis_iter(Axis(1)).map(|column| column_scale(&column.to_vec())).collect();
        #[expect(clippy::cast_possible_truncation, reason = "the scale keeps values within a signed byte")]
        let values = Array2::from_shape_fn(matrix.dim(), |(row, col)| (matrix[(row, col)] / scale[col]).round() as i8);
        Self { values, scale }
    }
}

fn column_scale(column: &[f32]) -> f32 {
    let largest = column.iter().fold(FLOOR, |largest, value| largest.max(value.abs()));
    let pair = |pair: &[f32]| {
        let sum = |pick: fn(f32) -> f32| pair.iter().map(|value| pick(*value)).sum::<f32>();
        sum(|value| value.max(0.0)).max(sum(|value| (-value).max(0.0)))
    };
    let largest_pair = column.chunks(2).map(pair).fold(0.0, f32::max);
    // Each of two values may be rounded up by half a step.
    (largest / 127.0).max(largest_pair / (LARGEST_PAIR - 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_column_of_zeros_stays_zero() {
        let bytes = ByteMatrix::round(&Array2::zeros((4, 1)));
        assert!(bytes.values.iter().all(|value| *value == 0) && bytes.scale[0].is_finite());
    }

    proptest! {
        #[test]
        fn no_pair_of_neighbours_can_saturate_sixteen_bits(column in prop::collection::vec(-1e3f32..1e3, 1..40)) {
            let bytes = ByteMatrix::round(&Array1::from(column.clone()).insert_axis(Axis(1)));
            let column_bytes: Vec<i32> = bytes.values.iter().map(|value| i32::from(*value)).collect();
            for pair in column_bytes.chunks(2) {
                let up: i32 = pair.iter().map(|value| (*value).max(0) * 255).sum();
                let down: i32 = pair.iter().map(|value| (*value).min(0) * 255).sum();
                prop_assert!(up <= i32::from(i16::MAX) && down >= i32::from(i16::MIN), "{pair:?}");
            }
            for (value, byte) in column.iter().zip(&column_bytes) {
                prop_assert!((value - bytes.scale[0] * *byte as f32).abs() <= bytes.scale[0] * 0.501, "rounded to the nearest");
            }
        }
    }
}
