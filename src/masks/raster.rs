//! Where the pixels of an output lie on the score map.

use crate::{
    masks::{
        MaskError, MaskLimits,
        axis::{Axis, as_f64},
    },
    preprocess::{Geometry, Rect},
};

/// Longest side of an output, in pixels: that of JPEG. What is kept for each row and each column stays small beside the pixels.
pub const MAX_SIDE: usize = 65_535;

/// Rows and columns of an output of at least one pixel, on the grid of a score map.
///
/// # Design
/// Whatever lies between the original image and the model's input (crop, resize, letterbox, one after the other) is a scale and a
/// shift along each axis. So is the way back, and two [`Axis`] are all that sampling needs. Positions are computed in double
/// precision from the output's index, never summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Raster {
    rows: Axis,
    cols: Axis,
}

impl Raster {
    /// Any two axes.
    ///
    /// # Errors
    /// [`MaskError::Empty`], [`MaskError::TooLong`], [`MaskError::TooManyPixels`].
    pub fn new(rows: Axis, cols: Axis, limits: &MaskLimits) -> Result<Self, MaskError> {
        let raster = Self { rows, cols };
        let [n_rows, n_cols] = raster.size();
        if n_rows == 0 || n_cols == 0 {
            return Err(MaskError::Empty { rows: n_rows, cols: n_cols });
        }
        if n_rows.max(n_cols) > MAX_SIDE {
            return Err(MaskError::TooLong { rows: n_rows, cols: n_cols });
        }
        // Run lengths are 32-bit numbers, whatever the limit.
        let max = limits.max_pixels.min(u64::from(u32::MAX));
        let fits = |n: usize| u64::try_from(n).is_ok_and(|n| n <= max);
        if n_rows.checked_mul(n_cols).is_some_and(fits) {
            return Ok(raster);
        }
        Err(MaskError::TooManyPixels { rows: n_rows, cols: n_cols, max })
    }

    /// All of a score map of `grid` (rows, cols) cells at `size` (height, width) pixels; at the size of the grid, its cells
    /// untouched.
    ///
    /// # Errors
    /// As [`Raster::new`].
    pub fn resized(grid: [usize; 2], size: [usize; 2], limits: &MaskLimits) -> Result<Self, MaskError> {
        Self::new(Axis::resized(grid[0], size[0]), Axis::resized(grid[1], size[1]), limits)
    }

    /// Every pixel of the upright original, for scores that cover the model's input with `grid` (rows, cols) cells. What the model
    /// did not see, outside a crop, takes the values of the border.
    ///
    /// # Errors
    /// As [`Raster::new`].
    pub fn of_original(geometry: &Geometry, grid: [usize; 2], limits: &MaskLimits) -> Result<Self, MaskError> {
        let (height, width) = geometry.original_size();
        let part = Rect { x: 0.0, y: 0.0, width: f64::from(width), height: f64::from(height) };
        Self::of_part(geometry, grid, &part, [height as usize, width as usize], limits)
    }

    /// A part of the upright original, in its pixels, at `size` (height, width) pixels.
    ///
    /// # Errors
    /// [`MaskError::Part`] for a rectangle without area; as [`Raster::new`].
    pub fn of_part(
        geometry: &Geometry,
        grid: [usize; 2],
        part: &Rect,
        size: [usize; 2],
        limits: &MaskLimits,
    ) -> Result<Self, MaskError> {
        let is_finite = [part.x, part.y, part.width, part.height].iter().all(|value| value.is_finite());
        if !is_finite || part.width <= 0.0 || part.height <= 0.0 {
            return Err(MaskError::Part { part: *part });
        }
        let (height, width) = geometry.input_size();
        let used = geometry.used_part();
        let [scale_x, scale_y] = geometry.scale();
        // Pixels of the original per cell.
        let cell_y = scale_y * f64::from(height) / as_f64(grid[0].max(1));
        let cell_x = scale_x * f64::from(width) / as_f64(grid[1].max(1));
        let rows = axis(part.y - used.y, part.height, cell_y, size[0])?;
        let cols = axis(part.x - used.x, part.width, cell_x, size[1])?;
        Self::new(rows, cols, limits)
    }

    /// Rows and columns of the output.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        [self.rows.len(), self.cols.len()]
    }

    /// Positions of the rows.
    #[must_use]
    pub fn rows(&self) -> &Axis {
        &self.rows
    }

    /// Positions of the columns.
    #[must_use]
    pub fn cols(&self) -> &Axis {
        &self.cols
    }
}

/// `len` outputs on `extent` pixels from `begin`, on cells of `cell` pixels that begin at 0.
fn axis(begin: f64, extent: f64, cell: f64, len: usize) -> Result<Axis, MaskError> {
    let step = extent / as_f64(len.max(1)) / cell;
    Axis::new(begin / cell + step / 2.0 - 0.5, step, len)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::{
        manifest::{Interpolation, ResizePolicy},
        preprocess::{Recipe, prepare},
        tensor::RgbImage,
    };

    fn geometry(height: u32, width: u32, crop: Option<Rect>, resize: ResizePolicy) -> Geometry {
        let image = RgbImage::new(height, width, vec![0; (height * width * 3) as usize]).unwrap();
        let interpolation = Interpolation::Bilinear;
        let recipe = Recipe { resize, interpolation, crop, patch: 14, fill: [0; 3], max_input_pixels: 1 << 20 };
        prepare(image, &recipe).unwrap().geometry
    }

    proptest! {
        #[test]
        fn pixels_lie_where_the_geometry_says(
            (height, width) in (20u32..90, 20u32..90),
            crop in proptest::option::of((0.0..15.0, 0.0..15.0, 2.0..60.0, 2.0..60.0)),
            letterbox in proptest::bool::ANY,
        ) {
            let crop = crop.map(|(x, y, width, height)| Rect { x, y, width, height });
            let size = (28, 56);
            let resize = if letterbox {
                ResizePolicy::Letterbox { height: size.0, width: size.1 }
            } else {
                ResizePolicy::Exact { height: size.0, width: size.1 }
            };
            let geometry = geometry(height, width, crop, resize);
            // Cells of 3.5 pixels of the input on both axes.
            let raster = Raster::of_original(&geometry, [8, 16], &MaskLimits::default()).unwrap();
            prop_assert_eq!(raster.size(), [height as usize, width as usize]);
            for (row, col) in [(0, 0), (height - 1, width - 1), (height / 2, width / 3)] {
                let [x, y] = geometry.image_to_grid(f64::from(col) + 0.5, f64::from(row) + 0.5, 3.5);
                let at = |axis: &Axis, idx: u32| axis.offset() + axis.step() * f64::from(idx);
                prop_assert!((at(raster.cols(), col) - x).abs() < 1e-9 && (at(raster.rows(), row) - y).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_part_at_its_own_size_is_a_window_on_the_whole() {
        let geometry = geometry(60, 90, None, ResizePolicy::Exact { height: 28, width: 42 });
        let limits = MaskLimits::default();
        let whole = Raster::of_original(&geometry, [8, 12], &limits).unwrap();
        let part = Rect { x: 30.0, y: 10.0, width: 20.0, height: 40.0 };
        let raster = Raster::of_part(&geometry, [8, 12], &part, [40, 20], &limits).unwrap();
        for (part, whole, first) in [(raster.rows(), whole.rows(), 10.0), (raster.cols(), whole.cols(), 30.0)] {
            assert!((part.step() - whole.step()).abs() < 1e-12);
            assert!((part.offset() - (whole.offset() + whole.step() * first)).abs() < 1e-12);
        }
    }

    #[test]
    fn what_has_no_or_too_many_pixels_is_refused() {
        let limits = MaskLimits { max_pixels: 100, ..Default::default() };
        assert!(matches!(Raster::resized([4, 4], [0, 5], &limits), Err(MaskError::Empty { rows: 0, cols: 5 })));
        let error = Raster::resized([4, 4], [11, 10], &limits).unwrap_err();
        assert!(error.to_string().contains("the limit is 100 in all (limits.masks.max_pixels)"), "{error}");
        assert!(matches!(Raster::resized([4, 4], [usize::MAX, 1], &limits), Err(MaskError::TooLong { .. })));
        let geometry = geometry(60, 90, None, ResizePolicy::Native);
        for width in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let part = Rect { x: 0.0, y: 0.0, width, height: 5.0 };
            assert!(matches!(Raster::of_part(&geometry, [4, 6], &part, [5, 5], &limits), Err(MaskError::Part { .. })));
        }
    }
}
