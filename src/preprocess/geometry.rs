//! Where things are: original image, model input, grid of cells.
//!
//! Coordinates have their origin at the top-left corner; the centre of the first pixel is (0.5, 0.5). A cell (row, col) covers the
//! input pixels from `col * stride` to `(col + 1) * stride`.

use std::{fmt, ops::Range};

/// Slack for positions that are whole in exact arithmetic, in cells.
const ROUNDING: f64 = 1e-9;

/// A rectangle, in pixels: `[x, x + width) x [y, y + height)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left.
    pub x: f64,
    /// Top.
    pub y: f64,
    /// Extent to the right.
    pub width: f64,
    /// Extent downwards.
    pub height: f64,
}

impl Rect {
    /// What both cover, if they share an area.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let width = (self.x + self.width).min(other.x + other.width) - x;
        let height = (self.y + self.height).min(other.y + other.height) - y;
        (width > 0.0 && height > 0.0).then_some(Self { x, y, width, height })
    }
}

impl fmt::Display for Rect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the box of {} x {} pixels at ({}, {})", self.width, self.height, self.x, self.y)
    }
}

/// How the model's input lies on the original image.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Rows and columns of the upright original.
    pub(super) original: (u32, u32),
    /// Rows and columns of the model's input.
    pub(super) input: (u32, u32),
    /// Part of the original that is used.
    pub(super) used: Rect,
    /// Rows and columns of the input that show it; less than the input when letterboxed.
    pub(super) content: (u32, u32),
}

impl Geometry {
    /// Rows and columns of the upright original, in pixels.
    #[must_use]
    pub fn original_size(&self) -> (u32, u32) {
        self.original
    }

    /// Rows and columns of the model's input, in pixels.
    #[must_use]
    pub fn input_size(&self) -> (u32, u32) {
        self.input
    }

    /// The part of the original that the input shows, in pixels of the original.
    #[must_use]
    pub fn used_part(&self) -> Rect {
        self.used
    }

    /// Pixels of the original per pixel of the input, `[x, y]`.
    #[must_use]
    pub fn scale(&self) -> [f64; 2] {
        [self.used.width / f64::from(self.content.1), self.used.height / f64::from(self.content.0)]
    }

    /// Centre `[x, y]` of a cell in pixels of the original; `stride` in input pixels per cell.
    #[must_use]
    pub fn cell_centre(&self, row: usize, col: usize, stride: f64) -> [f64; 2] {
        #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
        let (row, col) = (row as f64, col as f64);
        let [scale_x, scale_y] = self.scale();
        [self.used.x + (col + 0.5) * stride * scale_x, self.used.y + (row + 0.5) * stride * scale_y]
    }

    /// Position `[col, row]` on the grid of a point of the original, cell centres being whole numbers.
    #[must_use]
    pub fn image_to_grid(&self, x: f64, y: f64, stride: f64) -> [f64; 2] {
        let [scale_x, scale_y] = self.scale();
        [(x - self.used.x) / (scale_x * stride) - 0.5, (y - self.used.y) / (scale_y * stride) - 0.5]
    }

    /// Whether a point of the original lies in the used part, borders included.
    #[must_use]
    pub fn contains(&self, x: f64, y: f64) -> bool {
        let inside = |value: f64, begin: f64, extent: f64| value >= begin && value <= begin + extent;
        inside(x, self.used.x, self.used.width) && inside(y, self.used.y, self.used.height)
    }

    /// Rows and columns of the cells that `rect`, in pixels of the original, touches on a grid of `[rows, cols]` cells. `None` when
    /// it touches no used part of the image.
    #[must_use]
    pub fn cells_touching(&self, rect: &Rect, grid: [usize; 2], stride: f64) -> Option<(Range<usize>, Range<usize>)> {
        let part = rect.intersection(&self.used)?;
        let [scale_x, scale_y] = self.scale();
        let range = |begin: f64, extent: f64, cell: f64, n_cells: usize| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, clamped to the grid")]
            let first = ((begin / cell + ROUNDING).floor().max(0.0) as usize).min(n_cells.saturating_sub(1));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, clamped to the grid")]
            let last = (((begin + extent) / cell - ROUNDING).ceil().max(0.0) as usize).clamp(first + 1, n_cells);
            first..last
        };
        let rows = range(part.y - self.used.y, part.height, scale_y * stride, grid[0]);
        let cols = range(part.x - self.used.x, part.width, scale_x * stride, grid[1]);
        Some((rows, cols))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn geometry() -> Geometry {
        // 200 x 100 pixels (width x height), the right half used, shown at half size in a letterbox of 64 x 64.
        let used = Rect { x: 100.0, y: 0.0, width: 100.0, height: 100.0 };
        Geometry { original: (100, 200), input: (64, 64), used, content: (50, 50) }
    }

    #[test]
    fn cell_centres_lie_where_the_pixels_came_from() {
        assert_eq!(geometry().cell_centre(0, 0, 16.0), [116.0, 16.0]);
        assert_eq!(geometry().cell_centre(1, 2, 16.0), [180.0, 48.0]);
    }

    #[test]
    fn a_rectangle_touches_every_cell_that_it_shares_area_with() {
        let cells = |x, y, width, height| geometry().cells_touching(&Rect { x, y, width, height }, [4, 4], 16.0);
        // A cell covers 32 x 32 pixels of the original.
        assert_eq!(cells(100.0, 0.0, 32.0, 32.0), Some((0..1, 0..1)));
        assert_eq!(cells(131.0, 31.0, 2.0, 2.0), Some((0..2, 0..2)));
        assert_eq!(cells(0.0, 0.0, 100.0, 100.0), None, "only the part that is not used");
        assert_eq!(cells(0.0, 0.0, 500.0, 500.0), Some((0..4, 0..4)));
    }

    proptest! {
        #[test]
        fn grid_and_image_coordinates_are_inverse(row in 0usize..64, col in 0usize..64, stride in 1.0..32.0) {
            let [x, y] = geometry().cell_centre(row, col, stride);
            let [grid_col, grid_row] = geometry().image_to_grid(x, y, stride);
            prop_assert!((grid_col - col as f64).abs() < 1e-6 && (grid_row - row as f64).abs() < 1e-6);
        }

        #[test]
        fn a_point_lies_in_the_cells_that_a_tiny_rectangle_around_it_touches(x in 101.0..199.0, y in 1.0..99.0) {
            let rect = Rect { x: x - 1e-3, y: y - 1e-3, width: 2e-3, height: 2e-3 };
            let (rows, cols) = geometry().cells_touching(&rect, [4, 4], 16.0).unwrap();
            let [col, row] = geometry().image_to_grid(x, y, 16.0);
            prop_assert!(cols.contains(&(col.round() as usize)) && rows.contains(&(row.round() as usize)));
        }
    }
}
