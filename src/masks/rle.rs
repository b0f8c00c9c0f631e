//! COCO's run-length encoding of masks.
//!
//! # Cost
//! All classes of a 1024 x 1024 label map with 15 thousand runs down its columns, more than most annotations of CamVid have at this size:
//! 0.5 to 0.9 ms, 0.4 ms at best. A checkerboard, a million runs: 53 ms at best (`cargo bench --bench masks`, medians of three runs on
//! one busy core of an AMD EPYC Zen 3, 2026-11-25).

use crate::masks::{
    BitMask, ClassSet, LabelMap, Labels, MaskError,
    bit_mask::set_cols,
    column_runs::{Grid, LabelGrid, as_u32, for_each_run},
};

/// A mask as run lengths, in COCO's order: down the columns, one column after the other.
///
/// The first run counts pixels that are not set (0 when the first pixel is), the second pixels that are, and so on in turn. The
/// lengths add up to rows x cols, none but the first is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rle {
    rows: usize,
    cols: usize,
    counts: Vec<u32>,
}

/// Run lengths in the making.
#[derive(Clone, Debug, Default)]
struct Counts {
    counts: Vec<u32>,
    /// Pixels that they cover.
    end: u32,
}

impl Rle {
    /// Checks run lengths.
    ///
    /// # Errors
    /// [`MaskError::Empty`], [`MaskError::Rle`].
    pub fn new(rows: usize, cols: usize, counts: Vec<u32>) -> Result<Self, MaskError> {
        if rows == 0 || cols == 0 {
            return Err(MaskError::Empty { rows, cols });
        }
        let failed = |reason| MaskError::Rle { rows, cols, reason };
        let n_pixels = rows.checked_mul(cols).and_then(|n_pixels| u32::try_from(n_pixels).ok());
        let n_pixels = n_pixels.ok_or_else(|| failed("it has more pixels than 32 bits can count"))?;
        if counts.iter().skip(1).any(|count| *count == 0) {
            return Err(failed("a run behind the first is empty"));
        }
        let sum = counts.iter().try_fold(0u32, |sum, count| sum.checked_add(*count));
        if sum != Some(n_pixels) {
            return Err(failed("they do not add up to its pixels"));
        }
        Ok(Self { rows, cols, counts })
    }

    /// Encodes a mask.
    #[must_use]
    pub fn of_mask(mask: &BitMask) -> Self {
        let mut counts = Counts::default();
        let mut position = 0;
        for_each_run(mask, |label, len| {
            if label == 1 {
                counts.add(position, len);
            }
            position += len;
        });
        counts.finish(mask.rows(), mask.cols())
    }

    /// Encodes the masks of some classes, in the order of the set, in one pass over the labels.
    ///
    /// # Errors
    /// [`MaskError::ForeignClasses`].
    pub fn of_labels(map: &LabelMap, classes: &ClassSet) -> Result<Vec<Self>, MaskError> {
        classes.check(map.n_classes())?;
        let counts = match map.labels() {
            Labels::U8(labels) => all_counts(&LabelGrid { labels, cols: map.cols() }, classes),
            Labels::U16(labels) => all_counts(&LabelGrid { labels, cols: map.cols() }, classes),
        };
        Ok(counts.into_iter().map(|counts| counts.finish(map.rows(), map.cols())).collect())
    }

    /// Rows of the mask, in pixels.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the mask, in pixels.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The run lengths.
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Pixels that are set.
    #[must_use]
    pub fn area_px(&self) -> u64 {
        self.counts.iter().skip(1).step_by(2).map(|count| u64::from(*count)).sum()
    }

    /// Decodes the mask.
    ///
    /// # Errors
    /// As [`BitMask::new`]; never for what [`Rle::new`] took.
    pub fn decode(&self) -> Result<BitMask, MaskError> {
        let mut mask = BitMask::new(self.rows, self.cols)?;
        let mut position = 0;
        for (idx, count) in self.counts.iter().enumerate() {
            let end = position + *count as usize;
            if idx % 2 == 1 {
                for pixel in position..end {
                    let col = pixel / self.rows;
                    set_cols(mask.row_mut(pixel % self.rows), col..col + 1);
                }
            }
            position = end;
        }
        Ok(mask)
    }
}

impl Counts {
    /// Adds a run of set pixels, which lies behind those before it and does not touch them.
    fn add(&mut self, begin: u32, len: u32) {
        self.counts.extend_from_slice(&[begin - self.end, len]);
        self.end = begin + len;
    }

    fn finish(mut self, rows: usize, cols: usize) -> Rle {
        let n_pixels = as_u32(rows * cols);
        if self.end < n_pixels {
            self.counts.push(n_pixels - self.end);
        }
        Rle { rows, cols, counts: self.counts }
    }
}

/// The counts of each class of the set.
fn all_counts(grid: &impl Grid, classes: &ClassSet) -> Vec<Counts> {
    let places = classes.places();
    let mut all = vec![Counts::default(); classes.classes().len()];
    let mut position = 0;
    for_each_run(grid, |label, len| {
        let place = places.get(usize::from(label)).copied().flatten();
        if let Some(counts) = place.and_then(|place| all.get_mut(place)) {
            counts.add(position, len);
        }
        position += len;
    });
    all
}

#[cfg(test)]
mod tests;
