//! Soft masks and pixels: shares of labels out of a label map, and labels out of shares.

use crate::correspond::{SoftMask, directions::Between};

/// What the label of a pixel is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    /// The shares as they are.
    Plain,
    /// The shares of each label stretched to \[0, 1\] over the mask.
    Stretched,
}

/// Labels of pixels.
///
/// # Shapes
/// - `labels`: `[rows * cols]`, row by row
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The labels.
    pub labels: Vec<u8>,
    /// Of each label, the number of pixels and the sum of its shares, as they are, in them.
    pub tally: Vec<(u64, f64)>,
}

impl SoftMask {
    /// Shares of the labels among the pixels of each cell. `rows` and `cols` tell for each row and column of `labels` where its centre lies,
    /// in cells; pixels outside the grid count for nothing. A cell without pixels has the label of the nearest. Labels are below `n_labels`;
    /// nothing if they are not, or do not fill rows and columns.
    #[must_use]
    pub fn of_pixels(labels: &[u8], [rows, cols]: [&[f64]; 2], n_labels: usize, grid: [usize; 2]) -> Option<Self> {
        let is_whole = !labels.is_empty() && labels.len() == rows.len() * cols.len();
        if !is_whole || labels.iter().any(|label| usize::from(*label) >= n_labels) {
            return None;
        }
        let mut shares = vec![0.0f32; grid[0] * grid[1] * n_labels];
        let cells_of_cols: Vec<Option<usize>> = cols.iter().map(|place| cell(*place, grid[1])).collect();
        for (labels, place) in labels.chunks(cols.len()).zip(rows) {
            let Some(row) = cell(*place, grid[0]) else { continue };
            for (label, col) in labels.iter().zip(&cells_of_cols) {
                if let Some(col) = col {
                    shares[(row * grid[1] + col) * n_labels + usize::from(*label)] += 1.0;
                }
            }
        }
        for (cell, shares) in shares.chunks_mut(n_labels).enumerate() {
            let sum: f32 = shares.iter().sum();
            if sum > 0.0 {
                shares.iter_mut().for_each(|share| *share /= sum);
                continue;
            }
            let pixel = nearest(rows, cell / grid[1]) * cols.len() + nearest(cols, cell % grid[1]);
            shares[usize::from(labels[pixel])] = 1.0;
        }
        Some(Self { shares, n_labels, grid })
    }

    /// Labels of pixels whose centres lie at these rows and columns, in cells: shares bilinear, then the largest; of equal ones the first.
    #[must_use]
    pub fn draw(&self, rows: &[f64], cols: &[f64], shares: Shares) -> Drawn {
        let spans = match shares {
            Shares::Plain => vec![(0.0, 1.0); self.n_labels],
            Shares::Stretched => self.spans(),
        };
        let horizontal: Vec<[(usize, f32); 2]> = cols.iter().map(|place| Between::new(*place, self.grid[1]).ends()).collect();
        let mut labels = Vec::with_capacity(rows.len() * cols.len());
        let mut tally = vec![(0, 0.0); self.n_labels];
        let mut between = vec![0.0; self.grid[1] * self.n_labels];
        for place in rows {
            self.row_at(*place, &mut between);
            for [(left, before), (right, behind)] in &horizontal {
                let [left, right] = [left, right].map(|col| &between[col * self.n_labels..(col + 1) * self.n_labels]);
                let (mut best, mut largest, mut of_best) = (0, f32::NEG_INFINITY, 0.0);
                for (label, (low, span)) in spans.iter().enumerate() {
                    let share = before * left[label] + behind * right[label];
                    let stretched = (share - low) / span;
                    if stretched > largest {
                        (best, largest, of_best) = (label, stretched, share);
                    }
                }
                labels.push(u8::try_from(best).unwrap_or(u8::MAX));
                tally[best].0 += 1;
                tally[best].1 += f64::from(of_best);
            }
        }
        Drawn { labels, tally }
    }

    /// Shares of a row of cells at a place between two rows, `[cols, L]`.
    fn row_at(&self, place: f64, between: &mut [f32]) {
        let n = between.len();
        let [(top, above), (bottom, below)] = Between::new(place, self.grid[0]).ends();
        let [top, bottom] = [top, bottom].map(|row| &self.shares[row * n..(row + 1) * n]);
        for ((share, top), bottom) in between.iter_mut().zip(top).zip(bottom) {
            *share = above * top + below * bottom;
        }
    }

    /// Smallest share and span of each label; nothing is stretched where a label is nowhere.
    fn spans(&self) -> Vec<(f32, f32)> {
        (0..self.n_labels)
            .map(|label| {
                let shares = self.shares.iter().skip(label).step_by(self.n_labels);
                let low = shares.clone().copied().fold(f32::INFINITY, f32::min);
                let high = shares.copied().fold(0.0, f32::max);
                if high > 0.0 && high > low { (low, high - low) } else { (0.0, 1.0) }
            })
            .collect()
    }
}

/// The cell of a place on an axis of `n` cells, if it lies on it.
fn cell(place: f64, n: usize) -> Option<usize> {
    let cell = (place + 0.5).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "between 0 and n")]
    (cell >= 0.0 && cell < n as f64).then_some(cell as usize)
}

/// The index of the place nearest to a cell.
fn nearest(places: &[f64], cell: usize) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
    let distance = |index: &usize| (places[*index] - cell as f64).abs();
    (0..places.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn shares_are_those_of_the_pixels_and_the_nearest_label_fills_cells_without() {
        // Two columns of cells, four of pixels: the left cell has three pixels of label 1 and one of label 0.
        let rows = [-0.25, 0.25];
        let cols = [-0.25, 0.25, 0.75, 1.25];
        let mask = SoftMask::of_pixels(&[1, 1, 0, 0, 1, 0, 0, 0], [&rows, &cols], 2, [1, 2]).unwrap();
        assert_eq!(mask.shares, [0.25, 0.75, 1.0, 0.0]);
        // Twice as many cells as pixels: each has the label of the pixel beside it.
        let mask = SoftMask::of_pixels(&[0, 1], [&[0.0], &[0.4, 2.4]], 2, [1, 4]).unwrap();
        assert_eq!(mask.shares, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
        assert!(SoftMask::of_pixels(&[0, 2], [&[0.0], &[0.0, 1.0]], 2, [1, 2]).is_none(), "a label that is none");
        assert!(SoftMask::of_pixels(&[0], [&[0.0], &[0.0, 1.0]], 2, [1, 2]).is_none(), "a pixel is missing");
    }

    #[test]
    fn only_stretched_shares_bring_back_what_is_faint() {
        let mask = SoftMask { shares: vec![1.0, 0.0, 0.9, 0.1], n_labels: 2, grid: [1, 2] };
        let plain = mask.draw(&[0.0], &[0.0, 1.0], Shares::Plain);
        assert_eq!((plain.labels, plain.tally[1].0), (vec![0, 0], 0));
        assert!((plain.tally[0].1 - 1.9).abs() < 1e-6);
        let stretched = mask.draw(&[0.0], &[0.0, 1.0], Shares::Stretched);
        assert_eq!((stretched.labels, stretched.tally[1].0), (vec![0, 1], 1));
        assert!((stretched.tally[1].1 - 0.1).abs() < 1e-6, "the tally is of the shares as they are");
    }
}
