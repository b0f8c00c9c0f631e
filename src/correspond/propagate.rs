//! Masks of one frame in the next: label propagation by features (Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk",
//! NeurIPS 2020; the protocol of DINO, Caron et al., ICCV 2021, and of LiFT).
//!
//! # Design
//! For each cell of a new frame the `top_k` most similar cells of earlier frames within `radius` cells give their masks, weighted by
//! exp(cosine / temperature). Earlier frames are the first, which has the true masks, and the last `n_frames`.
//!
//! The full affinity of 8 frames of 56 x 56 cells has 79 million entries; here some cells of a row of the new frame are multiplied with the
//! part of one row of an earlier frame that they can see, and only `top_k` of each cell are kept: memory is a row's, whatever the length of
//! the video, and little is computed that is not looked at.

use std::collections::VecDeque;

use thiserror::Error;

use crate::correspond::{directions::Directions, raster::Shares, top::Top};

/// Cells of a row that are compared at once: few enough that most of what they see together is seen by each.
const TILE: usize = 16;

/// How masks are propagated. The defaults are those of DINO's and LiFT's evaluation on DAVIS 2017.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PropagateOptions {
    /// Last frames that give masks, beside the first.
    pub n_frames: usize,
    /// How far a cell may have moved, in cells, along each axis.
    pub radius: usize,
    /// Cells that give their masks.
    pub top_k: usize,
    /// Temperature of the weights.
    pub temperature: f32,
}

impl PropagateOptions {
    /// Pairs of cells that are compared for one frame at most.
    #[must_use]
    pub fn n_pairs(&self, [rows, cols]: [usize; 2]) -> usize {
        let seen = |n: usize, more: usize| self.radius.saturating_mul(2).saturating_add(more).min(n);
        let n_seen = seen(rows, 1).saturating_mul(seen(cols, TILE));
        rows.saturating_mul(cols).saturating_mul(n_seen).saturating_mul(self.n_frames.saturating_add(1))
    }
}

impl Default for PropagateOptions {
    fn default() -> Self {
        Self { n_frames: 7, radius: 12, top_k: 5, temperature: 0.1 }
    }
}

/// Why a frame cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PropagateError {
    /// A frame has another grid or number of channels than the first.
    #[error("a frame of {got:?} (rows, columns, channels) after one of {expected:?}")]
    Frame {
        /// Rows, columns and channels.
        got: [usize; 3],
        /// Those of the first frame.
        expected: [usize; 3],
    },
    /// The masks are not those of the first frame's grid.
    #[error("{n_labels} labels for {n_cells} cells")]
    Labels {
        /// Labels that came.
        n_labels: usize,
        /// Cells of the grid.
        n_cells: usize,
    },
    /// Nobody waits for the frame any more.
    #[error("the frame is not wanted any more")]
    Unwanted,
}

/// For every cell a share of each label.
///
/// # Shapes
/// - `shares`: `[h * w, L]`, row by row; a row sums to one
#[derive(Clone, Debug, PartialEq)]
pub struct SoftMask {
    pub(super) shares: Vec<f32>,
    pub(super) n_labels: usize,
    pub(super) grid: [usize; 2],
}

/// Propagates masks from frame to frame. Its memory is bounded: the first frame and the last [`PropagateOptions::n_frames`].
#[derive(Debug)]
pub struct Propagator {
    options: PropagateOptions,
    first: (Directions, SoftMask),
    last: VecDeque<(Directions, SoftMask)>,
}

impl Propagator {
    /// Begins with a frame and the label of each of its cells, 0 being the background.
    ///
    /// # Errors
    /// [`PropagateError::Labels`].
    pub fn new(options: PropagateOptions, first: Directions, labels: &[u8]) -> Result<Self, PropagateError> {
        let mask = SoftMask::new(labels, first.grid())?;
        Self::with_mask(options, first, mask)
    }

    /// Begins with a frame and a soft mask of it.
    ///
    /// # Errors
    /// [`PropagateError::Labels`] when the mask is not one of the frame's grid.
    pub fn with_mask(options: PropagateOptions, first: Directions, mask: SoftMask) -> Result<Self, PropagateError> {
        let [rows, cols] = first.grid();
        if mask.grid != first.grid() {
            return Err(PropagateError::Labels { n_labels: mask.grid[0] * mask.grid[1], n_cells: rows * cols });
        }
        Ok(Self { options, first: (first, mask), last: VecDeque::new() })
    }

    /// Values that are held at most: features and shares of the first frame, of the last ones, and of the one that comes.
    #[must_use]
    pub fn n_values(options: &PropagateOptions, n_cells: usize, n_channels: usize, n_labels: usize) -> usize {
        let n_frames = options.n_frames.saturating_add(2);
        n_channels.saturating_add(n_labels).saturating_mul(n_cells).saturating_mul(n_frames)
    }

    /// The mask of the next frame.
    ///
    /// # Errors
    /// [`PropagateError::Frame`]: nothing is changed.
    pub fn next(&mut self, frame: Directions) -> Result<SoftMask, PropagateError> {
        self.next_while(frame, || true)
    }

    /// The mask of the next frame, as long as `is_wanted` says so, which is asked before each row of cells.
    ///
    /// # Errors
    /// [`PropagateError::Frame`], [`PropagateError::Unwanted`]: nothing is changed.
    pub fn next_while(&mut self, frame: Directions, is_wanted: impl Fn() -> bool) -> Result<SoftMask, PropagateError> {
        let extents = |frame: &Directions| [frame.grid()[0], frame.grid()[1], frame.n_channels()];
        let (got, expected) = (extents(&frame), extents(&self.first.0));
        if got != expected {
            return Err(PropagateError::Frame { got, expected });
        }
        let [rows, _, _] = got;
        let n_labels = self.first.1.n_labels;
        let mut shares = Vec::with_capacity(rows * frame.grid()[1] * n_labels);
        for row in 0..rows {
            if !is_wanted() {
                return Err(PropagateError::Unwanted);
            }
            shares.extend(self.row(&frame, row));
        }
        let mask = SoftMask { shares, n_labels, grid: frame.grid() };
        self.last.push_back((frame, mask.clone()));
        while self.last.len() > self.options.n_frames {
            self.last.pop_front();
        }
        Ok(mask)
    }

    /// The masks of a row of cells, `[w * L]`.
    fn row(&self, frame: &Directions, row: usize) -> Vec<f32> {
        let [rows, cols] = frame.grid();
        let PropagateOptions { radius, top_k, temperature, .. } = self.options;
        let seen_rows = row.saturating_sub(radius)..(row + radius + 1).min(rows);
        let context: Vec<&(Directions, SoftMask)> = std::iter::once(&self.first).chain(&self.last).collect();
        let mut tops = vec![Top::new(top_k.max(1)); cols];
        for (position, (earlier, _)) in context.iter().enumerate() {
            for first in (0..cols).step_by(TILE) {
                let tile = first..(first + TILE).min(cols);
                let seen_cols = first.saturating_sub(radius)..(tile.end + radius).min(cols);
                let cells = frame.part(row, tile.clone());
                for seen_row in seen_rows.clone() {
                    let similar = cells.dot(&earlier.part(seen_row, seen_cols.clone()).t());
                    for (similar, col) in similar.rows().into_iter().zip(tile.clone()) {
                        let own_cols = col.saturating_sub(radius)..(col + radius + 1).min(cols);
                        for seen_col in own_cols {
                            let source = (position * rows + seen_row) * cols + seen_col;
                            tops[col].offer(similar[seen_col - seen_cols.start], source);
                        }
                    }
                }
            }
        }
        let n_labels = self.first.1.n_labels;
        let mut shares = vec![0.0; cols * n_labels];
        for (top, shares) in tops.iter().zip(shares.chunks_mut(n_labels)) {
            let best = top.entries().first().map_or(0.0, |entry| entry.0);
            let weights = top.entries().iter().map(|(similar, _)| ((similar - best) / temperature).exp());
            let sum: f32 = weights.clone().sum();
            for (weight, (_, source)) in weights.zip(top.entries()) {
                let (position, cell) = (source / (rows * cols), source % (rows * cols));
                let given = context[position].1.of(cell);
                shares.iter_mut().zip(given).for_each(|(share, given)| *share += weight / sum * given);
            }
        }
        shares
    }
}

impl SoftMask {
    /// Of one label a cell.
    fn new(labels: &[u8], grid: [usize; 2]) -> Result<Self, PropagateError> {
        let n_cells = grid[0] * grid[1];
        if labels.len() != n_cells {
            return Err(PropagateError::Labels { n_labels: labels.len(), n_cells });
        }
        let n_labels = usize::from(labels.iter().copied().max().unwrap_or_default()) + 1;
        let mut shares = vec![0.0; n_cells * n_labels];
        for (shares, label) in shares.chunks_mut(n_labels).zip(labels) {
            shares[usize::from(*label)] = 1.0;
        }
        Ok(Self { shares, n_labels, grid })
    }

    /// Shares of a cell.
    fn of(&self, cell: usize) -> &[f32] {
        &self.shares[cell * self.n_labels..(cell + 1) * self.n_labels]
    }

    /// Labels at a size of the image: shares bilinear (half-pixel centres), those of each label stretched to \[0, 1\] over the image, as the
    /// protocol has it, then the largest; of equal ones the first.
    ///
    /// # Shapes
    /// - output: `[height * width]`, row by row
    #[must_use]
    pub fn labels(&self, [height, width]: [usize; 2]) -> Vec<u8> {
        let places =
            |n: usize, cells: usize| (0..n).map(|index| (index as f64 + 0.5) * cells as f64 / n as f64 - 0.5).collect::<Vec<_>>();
        self.draw(&places(height, self.grid[0]), &places(width, self.grid[1]), Shares::Stretched).labels
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A bright square of 2 x 2 cells with its top left at `place`, on a ground; features of the square differ from the ground's.
    fn frame(place: [usize; 2]) -> (Directions, Vec<u8>) {
        let (rows, cols) = (6, 8);
        let label = |cell: usize| {
            let (row, col) = (cell / cols, cell % cols);
            u8::from((place[0]..place[0] + 2).contains(&row) && (place[1]..place[1] + 2).contains(&col))
        };
        let labels: Vec<u8> = (0..rows * cols).map(label).collect();
        let map: Vec<f32> = labels.iter().flat_map(|label| if *label == 1 { [0.1, 1.0] } else { [1.0, 0.0] }).collect();
        (Directions::new(&map, [rows, cols]).unwrap(), labels)
    }

    #[test]
    fn a_mask_follows_what_moves() {
        let (first, labels) = frame([1, 1]);
        let mut propagator = Propagator::new(PropagateOptions::default(), first, &labels).unwrap();
        for place in [[1, 2], [2, 3], [3, 4]] {
            let (next, expected) = frame(place);
            assert_eq!(propagator.next(next).unwrap().labels([6, 8]), expected, "{place:?}");
        }
    }

    #[test]
    fn what_moved_further_than_the_radius_is_lost() {
        let (first, labels) = frame([0, 0]);
        let options = PropagateOptions { radius: 1, top_k: 1, ..PropagateOptions::default() };
        let mut propagator = Propagator::new(options, first, &labels).unwrap();
        let mask = propagator.next(frame([4, 6]).0).unwrap();
        assert!(mask.of(4 * 8 + 6)[1] < 0.5, "nothing near was of this label");
    }

    #[test]
    fn weights_are_those_of_the_formula() {
        // One row, three cells; two give: cosines 1 and 0.8 at temperature 0.1.
        let first = Directions::new(&[1.0, 0.0, 0.8, 0.6, -1.0, 0.0], [1, 3]).unwrap();
        let options = PropagateOptions { top_k: 2, ..PropagateOptions::default() };
        let mut propagator = Propagator::new(options, first, &[1, 0, 0]).unwrap();
        let next = Directions::new(&[1.0, 0.0, 0.0, 1.0, 0.0, 1.0], [1, 3]).unwrap();
        let share = propagator.next(next).unwrap().of(0)[1];
        let expected = 10.0f32.exp() / (10.0f32.exp() + 8.0f32.exp());
        assert!((share - expected).abs() < 1e-5, "{share} {expected}");
    }

    #[test]
    fn memory_is_bounded_and_wrong_frames_change_nothing() {
        let (first, labels) = frame([1, 1]);
        let mut propagator =
            Propagator::new(PropagateOptions { n_frames: 2, ..PropagateOptions::default() }, first, &labels).unwrap();
        for _ in 0..5 {
            propagator.next(frame([1, 1]).0).unwrap();
        }
        assert_eq!(propagator.last.len(), 2);
        let other = Directions::new(&[1.0; 8], [2, 2]).unwrap();
        assert!(matches!(propagator.next(other), Err(PropagateError::Frame { .. })));
        assert_eq!(propagator.last.len(), 2);
        let error = Propagator::new(PropagateOptions::default(), frame([0, 0]).0, &[0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "3 labels for 48 cells");
    }

    #[test]
    fn labels_are_upsampled_between_cell_centres() {
        let mask = SoftMask::new(&[0, 1], [1, 2]).unwrap();
        assert_eq!(mask.labels([1, 4]), [0, 0, 1, 1]);
        assert_eq!(mask.labels([2, 2]), [0, 1, 0, 1]);
    }
}
