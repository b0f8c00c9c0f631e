//! Panels of equal height, side by side, each under its caption.

use std::{
    io::{self, Cursor},
    path::{Path, PathBuf},
};

use image::{ImageFormat, Rgb, RgbImage as Canvas, imageops};
use thiserror::Error;

use crate::{
    arrays::write_atomically,
    picture::text::{TEXT_PX, write_text},
    tensor::RgbImage,
};

/// Height of a panel, in pixels.
pub(super) const PANEL_PX: u32 = 448;
/// Space around panels, in pixels.
pub(super) const MARGIN_PX: u32 = 8;
/// Room for a caption, in pixels.
pub(super) const CAPTION_PX: u32 = 24;

/// An image and what it shows.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Letters, digits and blanks.
    pub caption: String,
    /// The image; scaled to the panel, small ones to hard-edged squares.
    pub image: RgbImage,
}

/// Why a picture was not written.
#[derive(Debug, Error)]
pub enum PictureError {
    /// It cannot be encoded.
    #[error("cannot encode the picture")]
    Encode(#[source] image::ImageError),
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why: no space, no permission.
        #[source]
        source: io::Error,
    },
}

/// Draws the panels on white, from left to right.
#[must_use]
pub fn side_by_side(panels: &[Panel]) -> Canvas {
    let scaled: Vec<Canvas> = panels.iter().map(|panel| scale(&panel.image, PANEL_PX)).collect();
    let width = MARGIN_PX + scaled.iter().map(|panel| panel.width() + MARGIN_PX).sum::<u32>();
    let mut canvas = Canvas::from_pixel(width, PANEL_PX + CAPTION_PX + MARGIN_PX, Rgb([255; 3]));
    let mut left = MARGIN_PX;
    for (panel, image) in panels.iter().zip(&scaled) {
        write_text(&mut canvas, &panel.caption, [left, (CAPTION_PX - TEXT_PX) / 2], image.width());
        imageops::replace(&mut canvas, image, i64::from(left), i64::from(CAPTION_PX));
        left += image.width() + MARGIN_PX;
    }
    canvas
}

/// Rows of panels, one below the other.
#[must_use]
pub fn stacked(rows: &[Canvas]) -> Canvas {
    let width = rows.iter().map(Canvas::width).max().unwrap_or(1);
    let height = rows.iter().map(Canvas::height).sum::<u32>().max(1);
    let mut canvas = Canvas::from_pixel(width, height, Rgb([255; 3]));
    let mut top = 0;
    for row in rows {
        imageops::replace(&mut canvas, row, 0, top);
        top += i64::from(row.height());
    }
    canvas
}

/// Writes a PNG file; it appears whole or not at all.
///
/// # Errors
/// [`PictureError`].
pub fn write_png(path: &Path, picture: &Canvas) -> Result<(), PictureError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(PictureError::Encode)?;
    write_atomically(path, &[bytes.get_ref()]).map_err(|source| PictureError::Write { path: path.to_path_buf(), source })
}

/// Where the panels of [`side_by_side`] begin, `[left, top]`, and how much larger than the images they are, `[x, y]`.
pub(super) fn origins(panels: &[Panel]) -> Vec<([f64; 2], [f64; 2])> {
    let mut left = MARGIN_PX;
    let origin = |panel: &Panel| {
        let width = scaled_width(&panel.image, PANEL_PX);
        let scale = [f64::from(width) / f64::from(panel.image.width()), f64::from(PANEL_PX) / f64::from(panel.image.height())];
        let origin = [f64::from(left), f64::from(CAPTION_PX)];
        left += width + MARGIN_PX;
        (origin, scale)
    };
    panels.iter().map(origin).collect()
}

/// The image at the height of a panel: photos smoothly, grids as squares.
pub(super) fn scale(image: &RgbImage, height: u32) -> Canvas {
    let canvas = Canvas::from_raw(image.width(), image.height(), image.data().to_vec()).unwrap_or_else(|| Canvas::new(1, 1));
    let is_grid = image.height() < height / 2;
    let filter = if is_grid { imageops::FilterType::Nearest } else { imageops::FilterType::Triangle };
    imageops::resize(&canvas, scaled_width(image, height), height, filter)
}

/// Width of an image at another height.
fn scaled_width(image: &RgbImage, height: u32) -> u32 {
    let width = u64::from(image.width()) * u64::from(height) / u64::from(image.height());
    u32::try_from(width.clamp(1, 16 * u64::from(height))).unwrap_or(height)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn panels_stand_side_by_side_under_their_captions() {
        let grey = |value: u8| RgbImage::new(2, 2, vec![value; 12]).unwrap();
        let panels = [("A", 10), ("B", 200)].map(|(caption, value)| Panel { caption: caption.into(), image: grey(value) });
        let picture = side_by_side(&panels);
        assert_eq!(picture.width(), 3 * MARGIN_PX + 2 * PANEL_PX);
        assert_eq!(picture.get_pixel(MARGIN_PX, CAPTION_PX).0, [10; 3]);
        assert_eq!(picture.get_pixel(2 * MARGIN_PX + PANEL_PX, CAPTION_PX).0, [200; 3]);
        let n_dark = picture.rows().take(CAPTION_PX as usize).flatten().filter(|pixel| pixel.0 == [32; 3]).count();
        assert!(n_dark > 0, "captions are drawn");
    }
}
