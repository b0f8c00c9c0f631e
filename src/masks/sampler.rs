//! Scores at the pixels of an output: bilinear, half-pixel centres, borders clamped.
//!
//! # Design
//! Bilinear sampling is separable. Which cells a row or a column takes and at which weight is computed once for each; a row of the
//! output then is two rows of cells mixed (`[cols, K]`, once a row), and two columns of that mixed a pixel, with the classes in the
//! inner loop: contiguous, and several at once in the machine's vectors. Nothing of `H x W x K` is ever held but the band that the
//! caller asks for.

use std::ops::Range;

use crate::masks::{
    ClassSet, MaskError, Raster, Scores,
    axis::{Tap, mix_into},
};

/// Scores of some classes at the pixels of a raster.
///
/// # Shapes
/// - a band: `[rows of the band, cols, k]` f32, the k classes in the order of the set
#[derive(Debug)]
pub struct Sampler<'a> {
    scores: &'a Scores,
    classes: &'a ClassSet,
    row_taps: Vec<Tap>,
    /// Counted from the first column of `used_cols`.
    col_taps: Vec<Tap>,
    /// Columns of cells that any output takes.
    used_cols: Range<usize>,
}

/// The two rows of cells that a row of outputs lies between, reduced to the classes and columns of a sampler.
#[derive(Debug, Default)]
pub(super) struct RowPair {
    rows: Option<(usize, usize)>,
    pub(super) top: Vec<f32>,
    pub(super) bottom: Vec<f32>,
}

/// Columns of the output between the same two columns of cells.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) cols: Range<usize>,
    pub(super) left: usize,
    pub(super) right: usize,
}

impl<'a> Sampler<'a> {
    /// Prepares to sample.
    ///
    /// # Errors
    /// [`MaskError::ForeignClasses`] when the set is not one of these scores' classes.
    pub fn new(scores: &'a Scores, raster: &Raster, classes: &'a ClassSet) -> Result<Self, MaskError> {
        classes.check(scores.n_classes())?;
        let [n_rows, n_cols] = scores.grid();
        let mut col_taps = raster.cols().taps(n_cols);
        let first = col_taps.iter().map(|tap| tap.first).min().unwrap_or_default();
        let last = col_taps.iter().map(|tap| tap.second).max().unwrap_or_default();
        for tap in &mut col_taps {
            (tap.first, tap.second) = (tap.first - first, tap.second - first);
        }
        Ok(Self { scores, classes, row_taps: raster.rows().taps(n_rows), col_taps, used_cols: first..last + 1 })
    }

    /// Rows of the output.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.row_taps.len()
    }

    /// Columns of the output.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.col_taps.len()
    }

    /// The scores.
    #[must_use]
    pub fn scores(&self) -> &Scores {
        self.scores
    }

    /// The classes.
    #[must_use]
    pub fn classes(&self) -> &ClassSet {
        self.classes
    }

    /// The scores of a band of rows, `[rows, cols, k]`.
    ///
    /// # Errors
    /// [`MaskError::Rows`], [`MaskError::TooManyValues`] above `max_values`.
    pub fn band(&self, rows: Range<usize>, max_values: u64) -> Result<Vec<f32>, MaskError> {
        let mut values = vec![0.0; self.n_values(&rows, max_values)?];
        let mut pair = RowPair::default();
        let mut mixed = Vec::new();
        for (row, target) in rows.zip(values.chunks_exact_mut(self.row_len())) {
            self.row_into(row, &mut pair, &mut mixed, target);
        }
        Ok(values)
    }

    /// Values of a band of rows, when it lies inside the output and has no more than `max_values`.
    pub(super) fn n_values(&self, rows: &Range<usize>, max_values: u64) -> Result<usize, MaskError> {
        if rows.start >= rows.end || rows.end > self.rows() {
            return Err(MaskError::Rows { begin: rows.start, end: rows.end, rows: self.rows() });
        }
        let n_classes = self.classes.classes().len();
        let n_values = rows.len().checked_mul(self.cols()).and_then(|n_pixels| n_pixels.checked_mul(n_classes));
        let fits = |n: &usize| u64::try_from(*n).is_ok_and(|n| n <= max_values);
        let too_many = MaskError::TooManyValues { rows: rows.len(), cols: self.cols(), n_classes, max: max_values };
        n_values.filter(fits).ok_or(too_many)
    }

    /// Values of a row, `cols * k`.
    pub(super) fn row_len(&self) -> usize {
        self.cols() * self.classes.classes().len()
    }

    /// Writes row `row` of the output, `[cols, k]`.
    pub(super) fn row_into(&self, row: usize, pair: &mut RowPair, mixed: &mut Vec<f32>, target: &mut [f32]) {
        self.mixed_cells(row, pair, mixed);
        let n_classes = self.classes.classes().len();
        for (col, tap) in self.col_taps.iter().enumerate() {
            let left = &mixed[tap.first * n_classes..][..n_classes];
            let right = &mixed[tap.second * n_classes..][..n_classes];
            mix_into(&mut target[col * n_classes..][..n_classes], left, right, tap.weight);
        }
    }

    /// Writes the cells at the height of row `row`, `[columns in use, k]`.
    fn mixed_cells(&self, row: usize, pair: &mut RowPair, mixed: &mut Vec<f32>) {
        let tap = self.row_tap(row);
        self.load(&tap, pair);
        mixed.resize(pair.top.len(), 0.0);
        mix_into(mixed, &pair.top, &pair.bottom, tap.weight);
    }

    /// What a row takes.
    pub(super) fn row_tap(&self, row: usize) -> Tap {
        self.row_taps[row]
    }

    /// What the columns take, counted from the first column of a [`RowPair`].
    pub(super) fn col_taps(&self) -> &[Tap] {
        &self.col_taps
    }

    /// Reads the two rows of a tap, `[columns in use, k]`; neighbours share one.
    pub(super) fn load(&self, tap: &Tap, pair: &mut RowPair) {
        if pair.rows == Some((tap.first, tap.second)) {
            return;
        }
        if pair.rows.is_some_and(|(_, bottom)| bottom == tap.first) {
            std::mem::swap(&mut pair.top, &mut pair.bottom);
        } else {
            self.cells(tap.first, &mut pair.top);
        }
        self.cells(tap.second, &mut pair.bottom);
        pair.rows = Some((tap.first, tap.second));
    }

    /// A row of cells, reduced to the columns and classes in use.
    fn cells(&self, row: usize, target: &mut Vec<f32>) {
        let (map, n_classes) = (self.scores.map(), self.scores.n_classes());
        let start = row * map.cols();
        let cells = &map.data()[(start + self.used_cols.start) * n_classes..(start + self.used_cols.end) * n_classes];
        target.clear();
        if self.classes.is_all() {
            target.extend_from_slice(cells);
            return;
        }
        for cell in cells.chunks_exact(n_classes) {
            target.extend(self.classes.classes().iter().map(|class| cell[usize::from(*class)]));
        }
    }
}

/// The columns of an output, cut where the columns of cells change.
pub(super) fn spans(taps: &[Tap]) -> Vec<Span> {
    let mut end = 0;
    let is_same = |one: &Tap, other: &Tap| (one.first, one.second) == (other.first, other.second);
    let span = |taps: &[Tap]| {
        let begin = end;
        end += taps.len();
        let (left, right) = taps.first().map(|tap| (tap.first, tap.second)).unwrap_or_default();
        Span { cols: begin..end, left, right }
    };
    taps.chunk_by(is_same).map(span).collect()
}

#[cfg(test)]
mod tests;
