//! A map of features, of length one in every cell.

use ndarray::{Array2, ArrayView2, s};

/// Directions of the features of a map.
///
/// # Shapes
/// - `values`: `[h * w, C]`, rows of length one, or of zeros where a feature has no direction
#[derive(Clone, Debug)]
pub struct Directions {
    values: Array2<f32>,
    grid: [usize; 2],
}

impl Directions {
    /// Of a map `[h, w, C]`; nothing if it is empty or does not fill the grid.
    #[must_use]
    pub fn new(map: &[f32], grid: [usize; 2]) -> Option<Self> {
        let n_cells = grid[0].checked_mul(grid[1]).filter(|n_cells| *n_cells > 0)?;
        if map.is_empty() || !map.len().is_multiple_of(n_cells) {
            return None;
        }
        let mut values = ArrayView2::from_shape((n_cells, map.len() / n_cells), map).ok()?.to_owned();
        for mut row in values.rows_mut() {
            let length = row.dot(&row).sqrt();
            row /= if length > 0.0 { length } else { 1.0 };
        }
        Some(Self { values, grid })
    }

    /// Rows and columns of cells.
    #[must_use]
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// Channels.
    #[must_use]
    pub fn n_channels(&self) -> usize {
        self.values.ncols()
    }

    /// All cells, row by row, `[h * w, C]`.
    pub(super) fn cells(&self) -> ArrayView2<'_, f32> {
        self.values.view()
    }

    /// Some cells of a row of the grid, `[n, C]`.
    pub(super) fn part(&self, row: usize, cols: std::ops::Range<usize>) -> ArrayView2<'_, f32> {
        let first = row * self.grid[1];
        self.values.slice(s![first + cols.start..first + cols.end, ..])
    }

    /// Bilinear sample at a place in cells, clamped to the border, not of length one again.
    #[must_use]
    pub fn sample(&self, [row, col]: [f64; 2]) -> Vec<f32> {
        let mut sample = vec![0.0; self.n_channels()];
        for (cell, weight) in corners(self.grid, [row, col]) {
            sample.iter_mut().zip(self.values.row(cell)).for_each(|(sum, value)| *sum += weight * value);
        }
        sample
    }
}

/// The four cells around a place, and their bilinear weights.
pub(super) fn corners([rows, cols]: [usize; 2], [row, col]: [f64; 2]) -> [(usize, f32); 4] {
    let (vertical, horizontal) = (Between::new(row, rows), Between::new(col, cols));
    let [(top, above), (bottom, below)] = vertical.ends();
    let [(left, before), (right, behind)] = horizontal.ends();
    [
        (top * cols + left, above * before),
        (top * cols + right, above * behind),
        (bottom * cols + left, below * before),
        (bottom * cols + right, below * behind),
    ]
}

/// A place on an axis: between two cells, or at the border.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    first: usize,
    second: usize,
    /// Weight of the second.
    rest: f32,
}

impl Between {
    /// A place in cells on an axis of `n`, clamped to it; what is no number lies at its beginning.
    pub(super) fn new(place: f64, n: usize) -> Self {
        let last = n.saturating_sub(1);
        #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
        let place = if place.is_finite() { place.clamp(0.0, last as f64) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the last cell")]
        let (first, rest) = (place.floor() as usize, place.fract() as f32);
        Self { first, second: (first + 1).min(last), rest }
    }

    /// Both cells and their weights.
    pub(super) fn ends(self) -> [(usize, f32); 2] {
        [(self.first, 1.0 - self.rest), (self.second, self.rest)]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn samples_lie_between_their_corners_and_stop_at_the_border() {
        let map = [2.0, 0.0, 0.0, 5.0, 1.0, 0.0, 0.0, 1.0];
        let directions = Directions::new(&map, [2, 2]).unwrap();
        assert_eq!(directions.sample([0.0, 0.25]), [0.75, 0.25]);
        assert_eq!(directions.sample([-3.0, 9.0]), [0.0, 1.0]);
        assert_eq!(directions.sample([f64::NAN, 0.0]), [1.0, 0.0]);
        assert!(Directions::new(&map, [3, 1]).is_none() && Directions::new(&[], [0, 2]).is_none());
    }
}
