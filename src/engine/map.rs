//! The feature map of one image, for pure computation behind the run.

use std::{borrow::Cow, sync::Arc};

use tokio::time::Instant;

use crate::{
    engine::{
        Admitted, Clock, InferError, LoadedModel, Timing,
        extract::{Ran, Ready},
        plan::Plan,
    },
    manifest::Tap,
    preprocess::{Geometry, Rect},
    tensor::FeatureMap,
};

/// What a map is and how it relates to its image.
#[derive(Clone, Debug)]
pub struct MapInfo {
    /// The model that made it.
    pub model: Arc<LoadedModel>,
    /// Facet and block.
    pub tap: Tap,
    /// LiFT passes that were run.
    pub lift_passes: u32,
    /// Rows and columns of the cells that show the image: without those that a letterbox fills.
    pub grid: [usize; 2],
    /// Pixels of the model's input per cell.
    pub stride: f64,
    /// Relation of model input and original image.
    pub geometry: Geometry,
    /// Things the caller should know.
    pub warnings: Vec<String>,
}

/// A map, what it is, and what its answer keeps.
#[derive(Debug)]
pub(super) struct ImageMap {
    pub(super) map: FeatureMap,
    pub(super) about: MapInfo,
    /// Up to the end of the run.
    pub(super) timing: Timing,
    pub(super) ended: Instant,
    pub(super) place: Arc<Admitted>,
}

impl MapInfo {
    /// Position `[row, col]` of a point `[x, y]` of the original, cell centres being whole numbers.
    #[must_use]
    pub fn cell_at(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [col, row] = self.geometry.image_to_grid(x, y, self.stride);
        [row, col]
    }

    /// The point `[x, y]` of the original at a position `[row, col]`; not outside of what the map shows.
    #[must_use]
    pub fn point_at(&self, [row, col]: [f64; 2]) -> [f64; 2] {
        let ([x, y], [dx, dy]) = (self.geometry.cell_centre(0, 0, self.stride), self.cell_size());
        let used = self.geometry.used_part();
        let inside = |value: f64, begin: f64, extent: f64| value.clamp(begin, begin + extent);
        [inside(x + dx * col, used.x, used.width), inside(y + dy * row, used.y, used.height)]
    }

    /// The part of the original under some rows and columns, half open.
    #[must_use]
    pub fn rect(&self, rows: [usize; 2], cols: [usize; 2]) -> Rect {
        #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
        let corner = |row: usize, col: usize| self.point_at([row as f64 - 0.5, col as f64 - 0.5]);
        let ([x, y], [right, bottom]) = (corner(rows[0], cols[0]), corner(rows[1], cols[1]));
        Rect { x, y, width: right - x, height: bottom - y }
    }

    /// Width and height of a cell, in pixels of the original.
    #[must_use]
    pub fn cell_size(&self) -> [f64; 2] {
        self.geometry.scale().map(|scale| scale * self.stride)
    }
}

impl ImageMap {
    /// The values of the cells that show the image, `[rows, cols, C]`; copied only where a letterbox fills others.
    pub(super) fn shown(&self) -> Cow<'_, [f32]> {
        let [rows, cols] = self.about.grid;
        if [self.map.rows(), self.map.cols()] == self.about.grid {
            return Cow::Borrowed(self.map.data());
        }
        Cow::Owned((0..rows).flat_map(|row| (0..cols).flat_map(move |col| self.map.at(row, col))).copied().collect())
    }
}

impl Ready {
    /// Waits for the run and keeps its map.
    pub(super) async fn map(self, model: &Arc<LoadedModel>, clock: Clock) -> Result<ImageMap, InferError> {
        let selected = self.part.select(&self.geometry, model.manifest())?;
        let Ran { part, features, geometry, timing, ended, place } = self.run(model, clock).await?;
        let shown = geometry.cells_touching(&geometry.used_part(), selected.grid, selected.stride);
        let grid = shown.map_or(selected.grid, |(rows, cols)| [rows.end, cols.end]);
        let Plan { tap, lift_passes, warnings } = part.into_plan();
        let model = Arc::clone(model);
        let about = MapInfo { model, tap, lift_passes, grid, stride: selected.stride, geometry, warnings };
        Ok(ImageMap { map: features.map, about, timing, ended, place })
    }
}
