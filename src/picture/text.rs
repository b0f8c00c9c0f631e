//! Lines of text on a picture.

use image::{Rgb, RgbImage as Canvas};

use crate::picture::font::{HEIGHT, WIDTH, glyph};

/// Side of a letter's pixel, in pixels.
const SCALE: u32 = 2;
/// Height of a line, in pixels.
pub(super) const TEXT_PX: u32 = HEIGHT as u32 * SCALE;
/// From one letter to the next, in pixels.
pub(super) const ADVANCE_PX: u32 = (WIDTH as u32 + 1) * SCALE;
/// Colour of letters.
const INK: Rgb<u8> = Rgb([32; 3]);

/// Writes as much of a text as fits `width` pixels, its upper left corner at `[left, top]`. What lies outside the canvas is left out.
pub(super) fn write_text(canvas: &mut Canvas, text: &str, [left, top]: [u32; 2], width: u32) {
    for (x, character) in (0..).map(|idx| left + idx * ADVANCE_PX).zip(text.chars()) {
        if x + ADVANCE_PX > left + width {
            return;
        }
        for (y, row) in (top..).step_by(SCALE as usize).zip(glyph(character)) {
            for (x, _) in (x..).step_by(SCALE as usize).zip((0..WIDTH).rev()).filter(|(_, bit)| row >> bit & 1 == 1) {
                fill(canvas, [x, y], [SCALE, SCALE], INK);
            }
        }
    }
}

/// Fills a rectangle, as far as it lies on the canvas.
pub(super) fn fill(canvas: &mut Canvas, [left, top]: [u32; 2], [width, height]: [u32; 2], color: Rgb<u8>) {
    let (right, bottom) = ((left + width).min(canvas.width()), (top + height).min(canvas.height()));
    (top..bottom).for_each(|y| (left..right).for_each(|x| canvas.put_pixel(x, y, color)));
}
