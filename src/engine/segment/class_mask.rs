//! Masks of single things in the format that the caller asked for.

use std::ops::Range;

use crate::{
    engine::segment::request::{ClassMask, MaskData, MaskFormat},
    masks::{BitMask, MaskError, MaskLimits, Polygon, Rle, polygons_of_mask},
    preprocess::Rect,
};

/// Encodes the masks of one answer, which share the limit on corners.
#[derive(Debug)]
pub(in crate::engine) struct MaskEncoder {
    format: MaskFormat,
    tolerance: f32,
    limits: MaskLimits,
}

impl MaskEncoder {
    /// For outlines at most `tolerance` pixels off; other formats than outlines and run lengths are bits.
    pub(in crate::engine) fn new(format: MaskFormat, tolerance: f32, limits: &MaskLimits) -> Self {
        Self { format, tolerance, limits: *limits }
    }

    /// Encodes the mask of a class.
    pub(in crate::engine) fn encode(&mut self, index: usize, mask: BitMask) -> Result<ClassMask, MaskError> {
        let bounds = mask.bounds().map(|(rows, cols)| rect(&rows, &cols));
        let mask = match self.format {
            MaskFormat::Rle => MaskData::Rle(Rle::of_mask(&mask).to_coco_string()),
            MaskFormat::Polygons => {
                let polygons = polygons_of_mask(&mask, f64::from(self.tolerance), &self.limits)?;
                let n_points = polygons.iter().map(n_points).sum();
                self.limits.max_points = self.limits.max_points.saturating_sub(n_points);
                MaskData::Polygons(polygons)
            }
            _ => MaskData::Bits(mask.into_bits().into()),
        };
        Ok(ClassMask { index, bounds, mask })
    }
}

fn n_points(polygon: &Polygon) -> u64 {
    (polygon.outer.len() + polygon.holes.iter().map(Vec::len).sum::<usize>()) as u64
}

fn rect(rows: &Range<usize>, cols: &Range<usize>) -> Rect {
    #[expect(clippy::cast_precision_loss, reason = "sides of images are far smaller than 2^53")]
    let [x, y, width, height] = [cols.start, rows.start, cols.len(), rows.len()].map(|value| value as f64);
    Rect { x, y, width, height }
}
