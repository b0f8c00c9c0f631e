//! Plain upsampling: the baseline that every learned one is shown beside.

use crate::tensor::FeatureMap;

/// The map at twice the resolution, bilinear: half-pixel centres, clamped borders (PyTorch's `align_corners=False`).
///
/// # Shapes
/// - output: `[2 * rows, 2 * cols, C]`
#[must_use]
pub fn bilinear_2x(map: &FeatureMap) -> FeatureMap {
    let (rows, cols, channels) = (map.rows(), map.cols(), map.channels());
    let mut values = Vec::with_capacity(4 * rows * cols * channels);
    for row in 0..2 * rows {
        let (top, bottom, y) = neighbours(row, rows);
        for col in 0..2 * cols {
            let (left, right, x) = neighbours(col, cols);
            let corners = [map.at(top, left), map.at(top, right), map.at(bottom, left), map.at(bottom, right)];
            let weights = [(1.0 - y) * (1.0 - x), (1.0 - y) * x, y * (1.0 - x), y * x];
            values.extend(
                (0..channels)
                    .map(|channel| corners.iter().zip(weights).map(|(corner, weight)| corner[channel] * weight).sum::<f32>()),
            );
        }
    }
    // The sizes fit by construction; the map itself stands in for a case that cannot be.
    FeatureMap::new(2 * rows, 2 * cols, channels, values.into()).unwrap_or_else(|| map.clone())
}

/// The two source indices around target `idx`, and the weight of the second: 3/4 of the near, 1/4 of the far one.
fn neighbours(idx: usize, n: usize) -> (usize, usize, f32) {
    let half = idx / 2;
    if idx.is_multiple_of(2) { (half.saturating_sub(1), half, 0.75) } else { (half, (half + 1).min(n - 1), 0.25) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn values_are_those_of_half_pixel_centres_with_clamped_borders() {
        // torch.nn.functional.interpolate([0, 4], scale_factor=2, mode="linear", align_corners=False) = [0, 1, 3, 4].
        let map = FeatureMap::new(1, 2, 1, vec![0.0, 4.0].into()).unwrap();
        let doubled = bilinear_2x(&map);
        assert_eq!((doubled.rows(), doubled.cols()), (2, 4));
        assert_eq!(doubled.data().to_vec(), [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
    }
}
