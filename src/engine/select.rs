//! Translates a region or points of the original image into cells of the map.

use crate::{
    engine::{
        InferError,
        plan::Plan,
        request::{Extent, Part},
    },
    manifest::Manifest,
    postprocess::Selection,
    preprocess::{Geometry, Rect},
};

/// What of the map goes back, in cells.
#[derive(Clone, Debug)]
pub struct Selected {
    /// For the encoder.
    pub selection: Selection,
    /// Rows and columns of the whole map.
    pub grid: [usize; 2],
    /// The returned part; zero rows and columns for points.
    pub extent: Extent,
    /// Pixels of the model's input per cell.
    pub stride: f64,
}

impl Selected {
    /// Finds the cells of `part` on the map that `plan` makes of an image with this `geometry`.
    ///
    /// # Errors
    /// [`InferError::InvalidArgument`] for a region without area or outside the image, and for a point outside.
    pub fn new(part: &Part, geometry: &Geometry, plan: &Plan, manifest: &Manifest) -> Result<Self, InferError> {
        let patch = manifest.architecture.patch;
        let (height, width) = geometry.input_size();
        let grid = plan.grid([height, width], manifest);
        let patches = if manifest.backbone.is_halved(plan.tap) { 2.0 } else { 1.0 };
        let stride = patches * f64::from(patch) / f64::from(1u32 << plan.lift_passes);
        let whole = Extent { row: 0, col: 0, rows: grid[0], cols: grid[1] };
        let (selection, extent) = match part {
            Part::All => (Selection::All, whole),
            Part::Region(rect) => region(rect, geometry, grid, stride)?,
            Part::Points(points) => (to_points(points, geometry, stride)?, Extent { rows: 0, cols: 0, ..whole }),
        };
        Ok(Self { selection, grid, extent, stride })
    }
}

fn region(rect: &Rect, geometry: &Geometry, grid: [usize; 2], stride: f64) -> Result<(Selection, Extent), InferError> {
    let cells = geometry.cells_touching(rect, grid, stride).ok_or_else(|| {
        let (height, width) = geometry.original_size();
        let message = format!("{rect} does not touch the image of {width} x {height} pixels, or has no area");
        InferError::invalid("features.region", message)
    })?;
    let (rows, cols) = cells;
    let extent = Extent { row: rows.start, col: cols.start, rows: rows.len(), cols: cols.len() };
    Ok((Selection::Region { rows, cols }, extent))
}

fn to_points(points: &[[f64; 2]], geometry: &Geometry, stride: f64) -> Result<Selection, InferError> {
    let mut cells = Vec::with_capacity(points.len());
    for (idx, &[x, y]) in points.iter().enumerate() {
        if !geometry.contains(x, y) {
            let (height, width) = geometry.original_size();
            let message = format!("({x}, {y}) lies outside the used part of the image of {width} x {height} pixels");
            return Err(InferError::invalid(format!("features.points[{idx}]"), message));
        }
        cells.push(geometry.image_to_grid(x, y, stride));
    }
    Ok(Selection::Points(cells))
}
