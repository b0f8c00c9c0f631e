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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::{
        masks::{Axis, MaskLimits},
        tensor::FeatureMap,
    };

    /// Sums and differences of a few values up to 1, in single precision.
    const TOLERANCE: f32 = 1e-6;

    fn scores(rows: usize, cols: usize, n_classes: usize, seed: u64) -> Scores {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let values: Vec<f32> = (0..rows * cols * n_classes).map(|_| next()).collect();
        Scores::new(FeatureMap::new(rows, cols, n_classes, values.into()).unwrap()).unwrap()
    }

    /// Bilinear sampling by its other definition: every cell weighted by a tent around the clamped position.
    fn tent(scores: &Scores, y: f64, x: f64, class: usize) -> f32 {
        let [rows, cols] = scores.grid();
        let (y, x) = (y.clamp(0.0, (rows - 1) as f64), x.clamp(0.0, (cols - 1) as f64));
        let weight = |distance: f64| (1.0 - distance.abs()).max(0.0);
        let cells = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
        let sum =
            cells.map(|(row, col)| weight(y - row as f64) * weight(x - col as f64) * f64::from(scores.map().at(row, col)[class]));
        sum.sum::<f64>() as f32
    }

    proptest! {
        #[test]
        fn whole_factors_agree_with_tents_at_every_pixel(
            (rows, cols, n_classes) in (1usize..6, 1usize..6, 1usize..11),
            factor in 1usize..6,
            seed in 0u64..1000,
        ) {
            let scores = scores(rows, cols, n_classes, seed);
            let raster = Raster::resized([rows, cols], [rows * factor, cols * factor], &MaskLimits::default()).unwrap();
            let classes = ClassSet::all(n_classes).unwrap();
            let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
            let band = sampler.band(0..rows * factor, u64::MAX).unwrap();
            for (idx, value) in band.iter().enumerate() {
                let (pixel, class) = (idx / n_classes, idx % n_classes);
                let centre = |idx: usize| (idx as f64 + 0.5) / factor as f64 - 0.5;
                let expected = tent(&scores, centre(pixel / (cols * factor)), centre(pixel % (cols * factor)), class);
                prop_assert!((value - expected).abs() <= TOLERANCE, "{value} {expected}");
            }
        }

        #[test]
        fn any_axes_and_subsets_agree_with_tents(
            (offset_y, step_y, offset_x, step_x) in (-3.0..6.0, -0.9..0.9, -3.0..6.0, -0.9..0.9),
            seed in 0u64..1000,
        ) {
            let scores = scores(5, 6, 4, seed);
            let (rows, cols) = (Axis::new(offset_y, step_y, 7).unwrap(), Axis::new(offset_x, step_x, 9).unwrap());
            let classes = ClassSet::new(&[3, 1], 4).unwrap();
            let raster = Raster::new(rows, cols, &MaskLimits::default()).unwrap();
            let band = Sampler::new(&scores, &raster, &classes).unwrap().band(2..7, u64::MAX).unwrap();
            for (idx, value) in band.iter().enumerate() {
                let (row, col, class) = (2 + idx / 18, idx / 2 % 9, [3, 1][idx % 2]);
                let expected = tent(&scores, offset_y + step_y * row as f64, offset_x + step_x * col as f64, class);
                prop_assert!((value - expected).abs() <= TOLERANCE, "{value} {expected}");
            }
        }
    }

    #[test]
    fn at_the_size_of_the_grid_scores_are_untouched() {
        let scores = scores(4, 5, 3, 1);
        let (raster, classes) = (Raster::resized([4, 5], [4, 5], &MaskLimits::default()).unwrap(), ClassSet::all(3).unwrap());
        let band = Sampler::new(&scores, &raster, &classes).unwrap().band(0..4, 60).unwrap();
        assert_eq!(band, scores.map().data().to_vec());
    }

    #[test]
    fn bands_outside_the_output_or_above_the_limit_are_refused() {
        let scores = scores(4, 5, 3, 1);
        let (raster, classes) = (Raster::resized([4, 5], [8, 10], &MaskLimits::default()).unwrap(), ClassSet::all(3).unwrap());
        let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
        assert!(matches!(sampler.band(0..9, u64::MAX), Err(MaskError::Rows { end: 9, rows: 8, .. })));
        assert!(matches!(sampler.band(3..3, u64::MAX), Err(MaskError::Rows { .. })));
        assert!(sampler.band(0..2, 60).is_ok());
        assert!(matches!(sampler.band(0..2, 59), Err(MaskError::TooManyValues { max: 59, .. })));
        let other = ClassSet::all(4).unwrap();
        assert!(matches!(Sampler::new(&scores, &raster, &other), Err(MaskError::ForeignClasses { .. })));
    }
}
