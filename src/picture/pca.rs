//! Principal components of descriptors as colours.
//!
//! # Design
//! The components and the colour scale are fitted on one map and used for others, so that pictures of several maps can be
//! compared colour by colour. The three largest components come from orthogonal iteration on the covariance, which needs no
//! linear-algebra library and always starts from the same place.

use ndarray::{Array1, Array2, ArrayView2, Axis, aview2};

use crate::tensor::{FeatureMap, RgbImage};

/// Components that become red, green and blue.
const N_COMPONENTS: usize = 3;
/// Rounds of orthogonal iteration; colours do not change visibly after some thirty.
const N_ROUNDS: usize = 60;
/// Share of cells on each side that may be clipped, so that a few outliers do not take the contrast.
const CLIPPED: f64 = 0.02;

/// Three principal components and the range of values that becomes 0 to 255.
#[derive(Clone, Debug)]
pub struct Pca {
    mean: Array1<f32>,
    /// `[C, 3]`, orthonormal.
    components: Array2<f32>,
    /// Lowest and highest value of each component.
    ranges: [(f32, f32); N_COMPONENTS],
}

impl Pca {
    /// Fits components and colour scale to a map.
    #[must_use]
    pub fn fit(map: &FeatureMap) -> Self {
        let cells = cells(map);
        let mean = cells.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(map.channels()));
        let centred = &cells - &mean;
        let components = leading(&centred.t().dot(&centred));
        let mut pca = Self { mean, components, ranges: [(0.0, 1.0); N_COMPONENTS] };
        let projected = pca.project(map);
        for (range, component) in pca.ranges.iter_mut().zip(projected.axis_iter(Axis(1))) {
            *range = quantiles(component.iter().copied().collect());
        }
        pca
    }

    /// One pixel a cell; `None` for a map of other channels than the one that was fitted.
    #[must_use]
    pub fn paint(&self, map: &FeatureMap) -> Option<RgbImage> {
        if map.channels() != self.mean.len() {
            return None;
        }
        let projected = self.project(map);
        let colour = |(value, (low, high)): (&f32, &(f32, f32))| {
            let level = (value - low) / (high - low).max(f32::MIN_POSITIVE);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u8")]
            let level = (level * 255.0).round().clamp(0.0, 255.0) as u8;
            level
        };
        let data: Vec<u8> =
            projected.rows().into_iter().flat_map(|cell| cell.iter().zip(&self.ranges).map(colour).collect::<Vec<_>>()).collect();
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        RgbImage::new(side(map.rows()), side(map.cols()), data)
    }

    /// `[cells, 3]`.
    fn project(&self, map: &FeatureMap) -> Array2<f32> {
        (&cells(map) - &self.mean).dot(&self.components)
    }
}

/// The descriptors, `[cells, C]`.
fn cells(map: &FeatureMap) -> ArrayView2<'_, f32> {
    let shape = (map.rows() * map.cols(), map.channels());
    // A map holds rows x cols x channels values; the empty view stands in for a case that cannot be.
    ArrayView2::from_shape(shape, map.data()).unwrap_or_else(|_shape| aview2::<f32, 0>(&[]))
}

/// The eigenvectors of the largest eigenvalues, `[C, 3]`; each points to where its largest entry is positive.
fn leading(covariance: &Array2<f32>) -> Array2<f32> {
    let n = covariance.nrows();
    #[expect(clippy::cast_precision_loss, reason = "channels are few")]
    let mut basis = Array2::from_shape_fn((n, N_COMPONENTS), |(row, col)| ((row * (col + 1) + 1) as f32).sin());
    for _ in 0..N_ROUNDS {
        basis = covariance.dot(&basis);
        orthonormalise(&mut basis);
    }
    for mut column in basis.axis_iter_mut(Axis(1)) {
        let largest =
            column.iter().copied().fold(0f32, |largest, value| if value.abs() > largest.abs() { value } else { largest });
        if largest < 0.0 {
            column.mapv_inplace(|value| -value);
        }
    }
    basis
}

/// Gram-Schmidt.
fn orthonormalise(basis: &mut Array2<f32>) {
    for col in 0..basis.ncols() {
        let mut vector = basis.column(col).to_owned();
        for earlier in 0..col {
            let earlier = basis.column(earlier);
            let overlap = earlier.dot(&vector);
            vector.scaled_add(-overlap, &earlier);
        }
        let norm = vector.dot(&vector).sqrt();
        if norm > 0.0 {
            vector /= norm;
        }
        basis.column_mut(col).assign(&vector);
    }
}

fn quantiles(mut values: Vec<f32>) -> (f32, f32) {
    values.sort_by(f32::total_cmp);
    let last = values.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a small index")]
    let n_clipped = (last as f64 * CLIPPED) as usize;
    let at = |idx: usize| values.get(idx).copied().unwrap_or_default();
    (at(n_clipped), at(last - n_clipped))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_first_component_is_the_direction_of_largest_spread() {
        // Spread 10 along channel 1, 1 along channel 0, none along channel 2.
        let cell = |idx: usize| [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 10.0, 0.0], [0.0, -10.0, 0.0]][idx % 4];
        let values: Vec<f32> = (0..8).flat_map(cell).collect();
        let pca = Pca::fit(&FeatureMap::new(2, 4, 3, values.into()).unwrap());
        let first = pca.components.column(0);
        assert!((first[1] - 1.0).abs() < 1e-4 && first[0].abs() < 1e-4, "{first}");
    }

    #[test]
    fn equal_descriptors_get_equal_colours_in_every_map() {
        let map = FeatureMap::new(1, 3, 2, vec![0.0, 1.0, 5.0, 2.0, 9.0, 4.0].into()).unwrap();
        let pca = Pca::fit(&map);
        let swapped = FeatureMap::new(1, 3, 2, vec![9.0, 4.0, 5.0, 2.0, 0.0, 1.0].into()).unwrap();
        let (one, other) = (pca.paint(&map).unwrap(), pca.paint(&swapped).unwrap());
        assert_eq!(one.data()[..3], other.data()[6..]);
        assert_ne!(one.data()[..3], one.data()[6..]);
    }
}
