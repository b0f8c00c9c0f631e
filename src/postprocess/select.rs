//! Picks the cells, or the positions between cells, that an answer holds.

use std::ops::Range;

use crate::tensor::FeatureMap;

/// Part of a map.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Selection {
    /// All cells.
    #[default]
    All,
    /// A rectangle of cells.
    Region {
        /// Rows.
        rows: Range<usize>,
        /// Columns.
        cols: Range<usize>,
    },
    /// Positions `[col, row]`, cell centres being whole numbers; values between centres are interpolated bilinearly, values beyond
    /// the outer centres are those of the border.
    Points(Vec<[f64; 2]>),
}

/// The cells of a rectangle, `[rows, cols, C]`, or `None` when it does not lie inside the map.
pub(super) fn region(map: &FeatureMap, rows: &Range<usize>, cols: &Range<usize>) -> Option<Vec<f32>> {
    if rows.start >= rows.end || cols.start >= cols.end || rows.end > map.rows() || cols.end > map.cols() {
        return None;
    }
    let channels = map.channels();
    let mut values = Vec::with_capacity(rows.len() * cols.len() * channels);
    for row in rows.clone() {
        let start = row * map.cols();
        values.extend_from_slice(&map.data()[(start + cols.start) * channels..(start + cols.end) * channels]);
    }
    Some(values)
}

/// Descriptors between cells, `[n, C]`.
pub(super) fn points(map: &FeatureMap, points: &[[f64; 2]]) -> Vec<f32> {
    let mut values = Vec::with_capacity(points.len() * map.channels());
    for &[col, row] in points {
        let (left, right, x) = neighbours(col, map.cols());
        let (top, bottom, y) = neighbours(row, map.rows());
        let corners = [map.at(top, left), map.at(top, right), map.at(bottom, left), map.at(bottom, right)];
        let weights = [(1.0 - y) * (1.0 - x), (1.0 - y) * x, y * (1.0 - x), y * x];
        for channel in 0..map.channels() {
            let value: f64 = corners.iter().zip(weights).map(|(corner, weight)| f64::from(corner[channel]) * weight).sum();
            #[expect(clippy::cast_possible_truncation, reason = "back to the precision of the map")]
            values.push(value as f32);
        }
    }
    values
}

/// The two cells around a position on an axis of `n_cells`, and the weight of the second.
fn neighbours(position: f64, n_cells: usize) -> (usize, usize, f64) {
    let last = n_cells.saturating_sub(1);
    #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
    let clamped = position.clamp(0.0, last as f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the grid")]
    let first = clamped.floor() as usize;
    (first, (first + 1).min(last), clamped.fract())
}
