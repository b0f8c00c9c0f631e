//! The scores of windows, put together.

use std::ops::Range;

use crate::{
    masks::{ClassSet, MaskError, MaskLimits, Raster, Sampler, Scores, Window, sampler::RowPair},
    tensor::FeatureMap,
};

/// One score map of an image, to which windows are added one after the other, in any order. Where windows overlap, the result is
/// their mean.
#[derive(Debug)]
pub struct Mosaic {
    image: [u32; 2],
    grid: [usize; 2],
    classes: ClassSet,
    limits: MaskLimits,
    /// `[rows, cols, K]`.
    sums: Vec<f32>,
    /// Windows on each cell, `[rows, cols]`.
    counts: Vec<u32>,
}

impl Mosaic {
    /// A score map of `grid` (rows, cols) cells for an image of (height, width) pixels: the patches of the image times the factor by
    /// which a head's scores are finer, so that the cells of windows lie on its cells.
    ///
    /// # Errors
    /// [`MaskError::Empty`], [`MaskError::ClassCount`], [`MaskError::TooManyValues`].
    pub fn new(image: [u32; 2], grid: [usize; 2], n_classes: usize, limits: &MaskLimits) -> Result<Self, MaskError> {
        let classes = ClassSet::all(n_classes)?;
        let [rows, cols] = grid;
        if rows == 0 || cols == 0 || image.contains(&0) {
            return Err(MaskError::Empty { rows, cols });
        }
        let max = limits.max_values;
        let n_values = rows.checked_mul(cols).and_then(|n_cells| n_cells.checked_mul(n_classes));
        let n_values = n_values.filter(|n_values| u64::try_from(*n_values).is_ok_and(|n_values| n_values <= max));
        let n_values = n_values.ok_or(MaskError::TooManyValues { rows, cols, n_classes, max })?;
        Ok(Self { image, grid, classes, limits: *limits, sums: vec![0.0; n_values], counts: vec![0; rows * cols] })
    }

    /// Adds the scores of a window, which cover all of it; sampled where their cells are not those of the mosaic.
    ///
    /// # Errors
    /// [`MaskError::Window`] for one whose borders do not lie between cells of this map, or outside the image;
    /// [`MaskError::ForeignClasses`].
    pub fn add(&mut self, window: &Window, scores: &Scores) -> Result<(), MaskError> {
        let Window { x, y, height, width } = *window;
        let rows = cells(y, height, self.image[0], self.grid[0]);
        let cols = cells(x, width, self.image[1], self.grid[1]);
        let (rows, cols) = rows.zip(cols).ok_or(MaskError::Window { x, y, height, width })?;
        let raster = Raster::resized(scores.grid(), [rows.len(), cols.len()], &self.limits)?;
        let sampler = Sampler::new(scores, &raster, &self.classes)?;
        let n_classes = scores.n_classes();
        let (mut pair, mut mixed, mut values) = (RowPair::default(), Vec::new(), vec![0.0; sampler.row_len()]);
        for (idx, row) in rows.enumerate() {
            sampler.row_into(idx, &mut pair, &mut mixed, &mut values);
            let first = row * self.grid[1];
            self.counts[first + cols.start..first + cols.end].iter_mut().for_each(|count| *count += 1);
            let sums = &mut self.sums[(first + cols.start) * n_classes..(first + cols.end) * n_classes];
            sums.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    /// The mean of the windows.
    ///
    /// # Errors
    /// [`MaskError::Uncovered`] when a cell lies in no window.
    pub fn finish(mut self) -> Result<Scores, MaskError> {
        let [rows, cols] = self.grid;
        if let Some(cell) = self.counts.iter().position(|count| *count == 0) {
            return Err(MaskError::Uncovered { row: cell / cols, col: cell % cols });
        }
        let n_classes = self.classes.n_classes();
        for (cell, count) in self.sums.chunks_exact_mut(n_classes).zip(&self.counts).filter(|(_, count)| **count > 1) {
            #[expect(clippy::cast_precision_loss, reason = "windows are few")]
            let count = *count as f32;
            cell.iter_mut().for_each(|sum| *sum /= count);
        }
        let map = FeatureMap::new(rows, cols, n_classes, self.sums.into()).ok_or(MaskError::Empty { rows, cols })?;
        Scores::new(map)
    }
}

/// The cells of `n_cells` on `image` pixels that `len` pixels from `begin` cover, if that is a whole number of them.
fn cells(begin: u32, len: u32, image: u32, n_cells: usize) -> Option<Range<usize>> {
    let end = u64::from(begin) + u64::from(len);
    let cell = |pixel: u64| {
        let scaled = pixel.checked_mul(u64::try_from(n_cells).ok()?)?;
        scaled.is_multiple_of(u64::from(image)).then(|| usize::try_from(scaled / u64::from(image)).ok())?
    };
    let range = cell(u64::from(begin))?..cell(end)?;
    (!range.is_empty() && range.end <= n_cells).then_some(range)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::masks::SlidingWindow;

    /// Rounding of means of up to nine values below 100.
    const TOLERANCE: f32 = 1e-5;

    /// `[rows, cols, 2]` from the rows and columns of the whole.
    fn scores(rows: Range<usize>, cols: Range<usize>, value: impl Fn(usize, usize, usize) -> f32) -> Scores {
        let at = |(row, col): (usize, usize)| [0, 1].map(|class| value(row, col, class));
        let values: Vec<f32> = rows.clone().flat_map(|row| cols.clone().map(move |col| (row, col))).flat_map(at).collect();
        Scores::new(FeatureMap::new(rows.len(), cols.len(), 2, values.into()).unwrap()).unwrap()
    }

    #[test]
    fn windows_of_one_map_give_it_back() {
        let sliding = SlidingWindow { window: [28, 42], stride: [14, 28], patch: 14 };
        // Two cells a patch.
        let (image, grid) = ([70, 98], [10, 14]);
        let value = |row: usize, col: usize, class: usize| (10 * row + col) as f32 / 3.0 + class as f32;
        let mut mosaic = Mosaic::new(image, grid, 2, &MaskLimits::default()).unwrap();
        for window in sliding.windows(image, &MaskLimits::default()).unwrap() {
            let (row, col) = (window.y as usize / 7, window.x as usize / 7);
            mosaic.add(&window, &scores(row..row + 4, col..col + 6, value)).unwrap();
        }
        let (got, expected) = (mosaic.finish().unwrap(), scores(0..10, 0..14, value));
        let worst = got.map().data().iter().zip(expected.map().data().iter()).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(got.grid() == grid && worst <= TOLERANCE, "{worst}");
    }

    #[test]
    fn overlaps_are_means_and_coarser_windows_are_sampled() {
        let mut mosaic = Mosaic::new([14, 28], [2, 4], 2, &MaskLimits::default()).unwrap();
        let window = |x, width| Window { x, y: 0, height: 14, width };
        mosaic.add(&window(0, 28), &scores(0..1, 0..1, |_, _, class| class as f32)).unwrap();
        mosaic.add(&window(14, 14), &scores(0..2, 0..2, |_, col, _| 3.0 + col as f32)).unwrap();
        let map = mosaic.finish().unwrap();
        assert_eq!(map.map().at(1, 0), [0.0, 1.0]);
        assert_eq!((map.map().at(0, 2), map.map().at(1, 3)), ([1.5, 2.0].as_slice(), [2.0, 2.5].as_slice()));
    }

    #[test]
    fn gaps_crooked_windows_and_large_maps_are_refused() {
        let limits = MaskLimits { max_values: 16, ..Default::default() };
        assert!(matches!(Mosaic::new([28, 28], [3, 3], 2, &limits), Err(MaskError::TooManyValues { max: 16, .. })));
        assert!(matches!(Mosaic::new([28, 28], [0, 2], 2, &limits), Err(MaskError::Empty { .. })));
        let mut mosaic = Mosaic::new([28, 28], [2, 2], 2, &limits).unwrap();
        let one = scores(0..1, 0..1, |_, _, _| 1.0);
        for (x, width) in [(7, 14), (14, 28), (0, 0), (u32::MAX, u32::MAX)] {
            let window = Window { x, y: 0, height: 14, width };
            assert!(matches!(mosaic.add(&window, &one), Err(MaskError::Window { .. })));
        }
        mosaic.add(&Window { x: 0, y: 0, height: 28, width: 14 }, &one).unwrap();
        assert!(matches!(mosaic.finish(), Err(MaskError::Uncovered { row: 0, col: 1 })));
    }
}
