//! A contact sheet: small panels in rows, each under its caption.

use image::{Rgb, RgbImage as Canvas, imageops};

use crate::picture::{
    panel::{CAPTION_PX, MARGIN_PX, Panel, scale},
    text::{TEXT_PX, write_text},
};

/// Height of a panel, in pixels.
const SHEET_PX: u32 = 192;
/// Panels in a row.
const COLS: usize = 4;

/// Draws the panels on white, row by row.
#[must_use]
pub fn sheet(panels: &[Panel]) -> Canvas {
    let scaled: Vec<Canvas> = panels.iter().map(|panel| scale(&panel.image, SHEET_PX)).collect();
    let row_width = |row: &[Canvas]| MARGIN_PX + row.iter().map(|panel| panel.width() + MARGIN_PX).sum::<u32>();
    let width = scaled.chunks(COLS).map(row_width).max().unwrap_or(MARGIN_PX);
    let row_height = SHEET_PX + CAPTION_PX;
    let n_rows = u32::try_from(panels.len().div_ceil(COLS)).unwrap_or(1);
    let mut canvas = Canvas::from_pixel(width, n_rows * row_height + MARGIN_PX, Rgb([255; 3]));
    let rows = panels.chunks(COLS).zip(scaled.chunks(COLS)).zip((0..).step_by(row_height as usize));
    for ((panels, images), top) in rows {
        let mut left = MARGIN_PX;
        for (panel, image) in panels.iter().zip(images) {
            write_text(&mut canvas, &panel.caption, [left, top + (CAPTION_PX - TEXT_PX) / 2], image.width());
            imageops::replace(&mut canvas, image, i64::from(left), i64::from(top + CAPTION_PX));
            left += image.width() + MARGIN_PX;
        }
    }
    canvas
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::tensor::RgbImage;

    #[test]
    fn panels_stand_in_rows_of_four() {
        let panels: Vec<Panel> = (0..5u8)
            .map(|value| Panel { caption: value.to_string(), image: RgbImage::new(2, 2, vec![value; 12]).unwrap() })
            .collect();
        let picture = sheet(&panels);
        assert_eq!((picture.width(), picture.height()), (4 * SHEET_PX + 5 * MARGIN_PX, 2 * (SHEET_PX + CAPTION_PX) + MARGIN_PX));
        assert_eq!(picture.get_pixel(MARGIN_PX, SHEET_PX + 2 * CAPTION_PX).0, [4; 3], "the fifth begins the second row");
        assert_eq!(sheet(&[]).width(), MARGIN_PX);
    }
}
