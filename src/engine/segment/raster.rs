//! The raster of the masks on the image.

use crate::{
    engine::{
        InferError,
        segment::request::{MaskRequest, MaskSize},
    },
    manifest::Manifest,
    masks::{Axis, MaskError, MaskLimits, Raster},
    preprocess::{Geometry, Rect},
};

/// Pixels of masks, and where they lie.
#[derive(Debug)]
pub(super) struct MaskRaster {
    /// Where the scores are sampled.
    pub(super) pixels: Raster,
    /// Top-left corner and size of a pixel, in pixels of the original: `[x, y, dx, dy]`.
    pub(super) place: [f64; 4],
}

impl MaskRaster {
    /// The raster that `request` asks for, of an image with this `geometry`.
    pub(super) fn new(
        request: &MaskRequest,
        geometry: &Geometry,
        manifest: &Manifest,
        limits: &MaskLimits,
    ) -> Result<Self, InferError> {
        let (height, width) = geometry.input_size();
        let [rows, cols, _classes] = manifest
            .scores_shape([height, width])
            .ok_or_else(|| InferError::internal("placing the masks", "the model has no segmentation head"))?;
        let used = geometry.used_part();
        let asked = request.region.unwrap_or(used);
        let part = asked.intersection(&used).ok_or_else(|| {
            let (height, width) = geometry.original_size();
            let message = format!("{asked} does not touch the used part of the image of {width} x {height} pixels");
            InferError::invalid("masks.region", message)
        })?;
        match request.size {
            MaskSize::Image => {
                let part = widened(&part, &used);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "whole and positive, at most the image"
                )]
                let size = [part.height.round() as usize, part.width.round() as usize];
                let pixels = Raster::of_part(geometry, [rows, cols], &part, size, limits).map_err(mask_failed)?;
                Ok(Self { pixels, place: [part.x, part.y, 1.0, 1.0] })
            }
            MaskSize::Scores => {
                let stride = f64::from(height) / to_f64(rows);
                let touched = geometry.cells_touching(&part, [rows, cols], stride);
                let (rows, cols) =
                    touched.ok_or_else(|| InferError::invalid("masks.region", format!("{asked} touches no cell")))?;
                let axis = |range: &std::ops::Range<usize>| Axis::new(to_f64(range.start), 1.0, range.len()).map_err(mask_failed);
                let pixels = Raster::new(axis(&rows)?, axis(&cols)?, limits).map_err(mask_failed)?;
                let [x0, y0] = geometry.cell_centre(rows.start, cols.start, stride);
                let [x1, y1] = geometry.cell_centre(rows.start + 1, cols.start + 1, stride);
                let (dx, dy) = (x1 - x0, y1 - y0);
                Ok(Self { pixels, place: [x0 - dx / 2.0, y0 - dy / 2.0, dx, dy] })
            }
        }
    }
}

/// Whole pixels that cover `part`, inside `used` widened likewise.
pub(in crate::engine) fn widened(part: &Rect, used: &Rect) -> Rect {
    let span = |begin: f64, extent: f64, low: f64, high: f64| {
        let (first, last) = (begin.floor().max(low.floor()), (begin + extent).ceil().min(high.ceil()));
        (first, (last - first).max(1.0))
    };
    let (x, width) = span(part.x, part.width, used.x, used.x + used.width);
    let (y, height) = span(part.y, part.height, used.y, used.y + used.height);
    Rect { x, y, width, height }
}

#[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
fn to_f64(value: usize) -> f64 {
    value as f64
}

/// Limits on masks are the caller's to keep; everything else was checked before.
pub(in crate::engine) fn mask_failed(error: MaskError) -> InferError {
    if error.is_limit() {
        return InferError::invalid("masks", error.to_string());
    }
    InferError::internal("encoding the masks", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_grows_to_whole_pixels_but_not_out_of_the_image() {
        let used = Rect { x: 0.0, y: 0.0, width: 10.0, height: 8.0 };
        let part = Rect { x: 1.4, y: 6.5, width: 2.0, height: 1.5 };
        assert_eq!(widened(&part, &used), Rect { x: 1.0, y: 6.0, width: 3.0, height: 2.0 });
    }
}
