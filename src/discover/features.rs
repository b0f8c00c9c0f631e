//! The features of the cells, and their products.

use ndarray::{Array2, ArrayView2, Axis};

/// A map less the mean of its cells' features: what all cells of an image share decides nothing then. Products of DINOv2's features are
/// all positive as they are, and LOST finds little in them. TokenCut loses by it: what is not similar any more falls into many parts.
///
/// # Shapes
/// - `map`, output: `[h, w, C]` f32
#[must_use]
pub fn centred(map: &[f32], n_channels: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; n_channels];
    let cells = map.chunks_exact(n_channels.max(1));
    let n_cells = cells.len().max(1) as f64;
    cells.clone().for_each(|cell| sums.iter_mut().zip(cell).for_each(|(sum, value)| *sum += f64::from(*value)));
    #[expect(clippy::cast_possible_truncation, reason = "back to the precision it came in")]
    let less_mean = |(value, sum): (&f32, &f64)| (f64::from(*value) - sum / n_cells) as f32;
    cells.flat_map(|cell| cell.iter().zip(&sums).map(less_mean)).collect()
}

/// Features of all cells.
pub(super) struct Cells {
    /// `[cells, C]`.
    features: Array2<f32>,
    /// `[cells, C]`, of length one; of zeros where a feature has no direction.
    directions: Array2<f32>,
}

impl Cells {
    /// `map` is `[n_cells, C]`; its length is a multiple of `n_cells`.
    pub(super) fn new(map: &[f32], n_cells: usize) -> Self {
        let features =
            ArrayView2::from_shape((n_cells, map.len() / n_cells), map).map(|view| view.to_owned()).unwrap_or_default();
        let mut directions = features.clone();
        for mut row in directions.rows_mut() {
            let length = row.dot(&row).sqrt();
            row /= if length > 0.0 { length } else { 1.0 };
        }
        Self { features, directions }
    }

    /// Products of the features of some cells, as they are, `[n, n]`.
    pub(super) fn gram(&self, of: &[usize]) -> Array2<f32> {
        product(&self.features, of)
    }

    /// Cosines of some cells, `[n, n]`.
    pub(super) fn cosines(&self, of: &[usize]) -> Array2<f32> {
        product(&self.directions, of)
    }

    /// Mean cosine to `seed` of the cells inside, less that of those outside; 0 where nothing is outside.
    pub(super) fn contrast(&self, is_inside: &[bool], seed: usize) -> f32 {
        let cosines = self.directions.dot(&self.directions.row(seed));
        let mean = |inside: bool| {
            let (mut sum, mut n) = (0.0f64, 0u32);
            for (cosine, _) in cosines.iter().zip(is_inside).filter(|(_, is_inside)| **is_inside == inside) {
                sum += f64::from(*cosine);
                n += 1;
            }
            (n > 0).then(|| sum / f64::from(n))
        };
        #[expect(clippy::cast_possible_truncation, reason = "a cosine")]
        mean(true).zip(mean(false)).map_or(0.0, |(inside, outside)| (inside - outside) as f32)
    }
}

fn product(features: &Array2<f32>, of: &[usize]) -> Array2<f32> {
    if of.len() == features.nrows() {
        return features.dot(&features.t());
    }
    let some = features.select(Axis(0), of);
    some.dot(&some.t())
}
