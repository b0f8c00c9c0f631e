//! The contact sheet: examples of a set, small, in rows.

use std::path::Path;

use anyhow::Context as _;
use densevit::{manifest::Interpolation, picture::write_png, tensor::RgbImage};
use image::{Rgb, RgbImage as Canvas, imageops};

use crate::data::view::resized;

/// Height of an example, in pixels.
const TILE_PX: u32 = 180;
/// Examples in a row, and on a sheet.
const N_COLS: usize = 6;
/// Most examples of a sheet.
pub const N_TILES: usize = 36;
/// Space between, in pixels.
const GAP_PX: u32 = 4;

/// Draws the first examples of a set.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, examples: &[RgbImage]) -> anyhow::Result<()> {
    let tiles = examples.iter().take(N_TILES).map(tile).collect::<anyhow::Result<Vec<Canvas>>>()?;
    let widest = tiles.iter().map(Canvas::width).max().context("there is nothing to show")?;
    let n_cols = u32::try_from(N_COLS.min(tiles.len()))?;
    let n_rows = u32::try_from(tiles.len().div_ceil(N_COLS))?;
    let size = [n_cols * (widest + GAP_PX) + GAP_PX, n_rows * (TILE_PX + GAP_PX) + GAP_PX];
    let mut sheet = Canvas::from_pixel(size[0], size[1], Rgb([255; 3]));
    for (idx, tile) in (0u32..).zip(&tiles) {
        let (row, col) = (idx / n_cols, idx % n_cols);
        let left = GAP_PX + col * (widest + GAP_PX);
        imageops::replace(&mut sheet, tile, left.into(), (GAP_PX + row * (TILE_PX + GAP_PX)).into());
    }
    Ok(write_png(path, &sheet)?)
}

/// An example at the height of a row.
fn tile(image: &RgbImage) -> anyhow::Result<Canvas> {
    let width = (image.width() * TILE_PX / image.height()).max(1);
    let small = resized(image, [TILE_PX, width], Interpolation::Bilinear, None).map_err(anyhow::Error::msg)?;
    Canvas::from_raw(width, TILE_PX, small.into_data()).context("an example has no pixels")
}

/// Two images beside each other.
#[must_use]
pub fn beside(left: &RgbImage, right: &RgbImage) -> Option<RgbImage> {
    let height = left.height().min(right.height());
    let row = |image: &RgbImage, y: u32| {
        let n_bytes = image.width() as usize * 3;
        image.data()[y as usize * n_bytes..][..n_bytes].to_vec()
    };
    let data = (0..height).flat_map(|y| [row(left, y), row(right, y)]).flatten().collect();
    RgbImage::new(height, left.width() + right.width(), data)
}
