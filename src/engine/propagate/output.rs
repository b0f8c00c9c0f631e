//! Soft masks into what the caller asked for.

use std::{cmp::Reverse, sync::Arc};

use bytes::Bytes;

use crate::{
    correspond::{Drawn, Shares, SoftMask},
    engine::{
        ClassArea, ClassMask, InferError, MapInfo, MaskFormat, MaskSize, Segmented, Timing,
        input::Sizes,
        map::ImageMap,
        propagate::labels::{MAX_LABELS, N_VALUES},
        segment::{MaskEncoder, label_data, mask_failed, widened},
    },
    masks::{ClassSet, LabelMap, Labels, MaskError, MaskLimits, Palette, label_png, masks_of_labels},
};

/// What the answers of a video look like.
#[derive(Debug)]
pub(super) struct Output {
    format: MaskFormat,
    size: MaskSize,
    shares: Shares,
    ids: Vec<u8>,
    palette: Arc<Palette>,
    limits: MaskLimits,
}

/// Pixels of an answer.
struct Raster {
    /// Centres of rows and columns, in cells.
    rows: Vec<f64>,
    cols: Vec<f64>,
    /// Top-left corner and size of a pixel, in pixels of the original: `[x, y, dx, dy]`.
    place: [f64; 4],
}

impl Output {
    pub(super) fn new(
        format: MaskFormat,
        size: MaskSize,
        shares: Shares,
        (ids, palette): (Vec<u8>, Palette),
        limits: MaskLimits,
    ) -> Self {
        Self { format, size, shares, ids, palette: Arc::new(palette), limits }
    }

    pub(super) fn format(&self) -> MaskFormat {
        self.format
    }

    /// Shares of labels in the cells of a map, out of those of the pixels of its image.
    pub(super) fn soft_mask(&self, pixels: &[u8], about: &MapInfo) -> Result<SoftMask, InferError> {
        let (height, width) = about.geometry.original_size();
        let rows: Vec<f64> = (0..height).map(|y| about.cell_at([0.0, f64::from(y) + 0.5])[0]).collect();
        let cols: Vec<f64> = (0..width).map(|x| about.cell_at([f64::from(x) + 0.5, 0.0])[1]).collect();
        let mask = SoftMask::of_pixels(pixels, [&rows, &cols], self.ids.len(), about.grid);
        mask.ok_or_else(|| InferError::internal("placing the labels", "they are not those of the frame"))
    }

    /// The labels of a frame, without times.
    pub(super) fn draw(&self, mask: &SoftMask, frame: &ImageMap) -> Result<Segmented, InferError> {
        let raster = self.raster(&frame.about);
        let Drawn { mut labels, tally } = mask.draw(&raster.rows, &raster.cols, self.shares);
        labels.iter_mut().for_each(|label| *label = self.ids[usize::from(*label)]);
        let size = [raster.rows.len(), raster.cols.len()];
        let classes = self.areas(&tally);
        let map = LabelMap::new(size[0], size[1], N_VALUES, Labels::U8(labels)).map_err(mask_failed)?;
        let (data, unit_bytes, masks) = self.encode(map, &classes).map_err(mask_failed)?;
        Ok(Segmented {
            model: Arc::clone(&frame.about.model),
            format: self.format,
            size,
            raster: raster.place,
            label_bytes: 1,
            classes,
            data,
            scores: None,
            unit_bytes,
            masks,
            geometry: frame.about.geometry.clone(),
            n_windows: 1,
            features: None,
            palette: Some(Arc::clone(&self.palette)),
            warnings: frame.about.warnings.clone(),
            timing: Timing::default(),
            place: Some(Arc::clone(&frame.place)),
        })
    }

    fn raster(&self, about: &MapInfo) -> Raster {
        match self.size {
            MaskSize::Image => {
                let used = about.geometry.used_part();
                let part = widened(&used, &used);
                let centres = |begin: f64, extent: f64| {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "whole and positive, at most the image"
                    )]
                    let n = extent.round() as u32;
                    (0..n).map(move |idx| begin + f64::from(idx) + 0.5)
                };
                Raster {
                    rows: centres(part.y, part.height).map(|y| about.cell_at([0.0, y])[0]).collect(),
                    cols: centres(part.x, part.width).map(|x| about.cell_at([x, 0.0])[1]).collect(),
                    place: [part.x, part.y, 1.0, 1.0],
                }
            }
            MaskSize::Scores => {
                #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
                let [rows, cols] = about.grid.map(|n| (0..n).map(|cell| cell as f64).collect::<Vec<_>>());
                let [dx, dy] = about.cell_size();
                let used = about.geometry.used_part();
                Raster { rows, cols, place: [used.x, used.y, dx, dy] }
            }
        }
    }

    /// Labels that are there, by falling area; of equal areas in their order.
    fn areas(&self, tally: &[(u64, f64)]) -> Vec<ClassArea> {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean of shares")]
        let area = |(id, (area, sum)): (&u8, &(u64, f64))| ClassArea {
            index: usize::from(*id),
            area: *area,
            score: (sum / *area as f64) as f32,
        };
        let mut areas: Vec<ClassArea> = self.ids.iter().zip(tally).filter(|(_id, (area, _sum))| *area > 0).map(area).collect();
        areas.sort_by_key(|label| (Reverse(label.area), label.index));
        areas
    }

    /// Data, how many bytes of it belong together, and masks.
    fn encode(&self, map: LabelMap, classes: &[ClassArea]) -> Result<(Bytes, usize, Vec<ClassMask>), MaskError> {
        match self.format {
            MaskFormat::Nothing => Ok((Bytes::new(), 1, Vec::new())),
            MaskFormat::Png => Ok((label_png(&map, &self.palette)?.into(), 1, Vec::new())),
            MaskFormat::Bits | MaskFormat::Rle | MaskFormat::Polygons => {
                let indices: Vec<usize> = classes.iter().map(|class| class.index).collect();
                let masks = masks_of_labels(&map, &ClassSet::new(&indices, N_VALUES)?, &self.limits)?;
                let mut encoder = MaskEncoder::new(self.format, 0.0, &self.limits);
                let masks = indices.into_iter().zip(masks).map(|(index, mask)| encoder.encode(index, mask));
                Ok((Bytes::new(), 1, masks.collect::<Result<_, _>>()?))
            }
            // Scores are refused when the video begins.
            MaskFormat::Labels | MaskFormat::Scores => {
                let cols = map.cols();
                Ok((label_data(map).into(), cols, Vec::new()))
            }
        }
    }
}

/// Memory of an answer in pixels of the image, in bytes: labels, and what they become.
pub(super) fn n_bytes(sizes: Sizes, format: MaskFormat) -> u64 {
    let n_pixels = u64::from(sizes.image.0) * u64::from(sizes.image.1);
    let of_format = match format {
        MaskFormat::Bits | MaskFormat::Rle | MaskFormat::Polygons => n_pixels.saturating_mul(MAX_LABELS as u64).div_ceil(8),
        _ => n_pixels,
    };
    n_pixels.saturating_add(of_format)
}
