//! Boxes, dots and lines on an image.

use image::{Rgb, RgbImage as Canvas};

use crate::tensor::RgbImage;

/// Sides of an image over the width of a line on it.
const LINES_A_SIDE: u32 = 160;
/// Radius of a dot over the width of a line.
const DOT: f64 = 2.5;

/// An image that is drawn on. Positions are `[x, y]` in its pixels, the corner of the first being (0, 0); what lies outside is left out.
#[derive(Clone, Debug)]
pub struct Drawing {
    canvas: Canvas,
    /// Width of lines, in pixels.
    width: u32,
}

impl Drawing {
    /// Begins on an image, with lines that are seen on one of its size.
    #[must_use]
    pub fn new(image: &RgbImage) -> Self {
        let canvas = Canvas::from_raw(image.width(), image.height(), image.data().to_vec()).unwrap_or_default();
        Self::on(canvas, (image.height().min(image.width()) / LINES_A_SIDE).max(2))
    }

    /// Begins on a picture, with lines of a width in pixels.
    pub(super) fn on(canvas: Canvas, width: u32) -> Self {
        Self { canvas, width }
    }

    /// Draws the outline of a rectangle.
    pub fn rect(&mut self, [left, top]: [f64; 2], [right, bottom]: [f64; 2], color: [u8; 3]) {
        let corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]];
        corners.windows(2).for_each(|ends| self.line(ends[0], ends[1], color));
    }

    /// Draws a dot with a white rim.
    pub fn dot(&mut self, [x, y]: [f64; 2], color: [u8; 3]) {
        let radius = DOT * f64::from(self.width);
        let rim = radius + f64::from(self.width.div_ceil(2));
        let reach = |centre: f64| pixels(centre - rim, centre + rim);
        for (row, col) in reach(y).flat_map(|row| reach(x).map(move |col| (row, col))) {
            let distance = (f64::from(col) + 0.5 - x).hypot(f64::from(row) + 0.5 - y);
            if distance <= rim {
                self.put(col, row, if distance <= radius { color } else { [255; 3] });
            }
        }
    }

    /// Draws a straight line.
    pub fn line(&mut self, [x0, y0]: [f64; 2], [x1, y1]: [f64; 2], color: [u8; 3]) {
        let half = f64::from(self.width) / 2.0;
        // No farther than a pen that leaves the picture at once: ends may lie anywhere.
        let longest = f64::from(self.canvas.width().max(self.canvas.height())) * 4.0;
        let n_steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().clamp(1.0, longest);
        let mut step = 0.0;
        while step <= n_steps {
            let (x, y) = (x0 + (x1 - x0) * step / n_steps, y0 + (y1 - y0) * step / n_steps);
            for row in pixels(y - half, y + half) {
                pixels(x - half, x + half).for_each(|col| self.put(col, row, color));
            }
            step += 1.0;
        }
    }

    /// The picture.
    pub(super) fn into_canvas(self) -> Canvas {
        self.canvas
    }

    /// The image; none for one without pixels.
    #[must_use]
    pub fn into_image(self) -> Option<RgbImage> {
        RgbImage::new(self.canvas.height(), self.canvas.width(), self.canvas.into_raw())
    }

    fn put(&mut self, col: u32, row: u32, color: [u8; 3]) {
        if col < self.canvas.width() && row < self.canvas.height() {
            self.canvas.put_pixel(col, row, Rgb(color));
        }
    }
}

/// Pixels whose centres lie between two positions.
fn pixels(begin: f64, end: f64) -> std::ops::Range<u32> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates at the ends of an image")]
    let first = |position: f64| (position - 0.5).ceil().max(0.0) as u32;
    first(begin)..first(end)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const RED: [u8; 3] = [255, 0, 0];

    fn drawn(draw: impl FnOnce(&mut Drawing)) -> Vec<(usize, usize)> {
        let mut drawing = Drawing::new(&RgbImage::new(20, 30, vec![0; 1800]).unwrap());
        draw(&mut drawing);
        let image = drawing.into_image().unwrap();
        let pixels = image.data().chunks(3).enumerate().filter(|(_, pixel)| **pixel == RED);
        pixels.map(|(idx, _)| (idx / 30, idx % 30)).collect()
    }

    #[test]
    fn lines_boxes_and_dots_cover_their_pixels() {
        let line = drawn(|drawing| drawing.line([5.0, 10.0], [8.0, 10.0], RED));
        assert_eq!(line, (9..11).flat_map(|row| (4..9).map(move |col| (row, col))).collect::<Vec<_>>());
        let outline = drawn(|drawing| drawing.rect([4.0, 4.0], [20.0, 16.0], RED));
        assert!(outline.contains(&(4, 12)) && outline.contains(&(10, 20)) && !outline.contains(&(10, 12)));
        let dot = drawn(|drawing| drawing.dot([10.0, 10.0], RED));
        assert!(dot.contains(&(9, 9)) && dot.contains(&(10, 10)) && !dot.contains(&(10, 16)), "{dot:?}");
    }

    #[test]
    fn what_lies_outside_or_nowhere_is_left_out() {
        let far = drawn(|drawing| {
            drawing.line([-1e300, f64::NAN], [1e300, 5.0], RED);
            drawing.dot([1e9, -1e9], RED);
            drawing.rect([-50.0, -50.0], [500.0, 500.0], RED);
        });
        assert!(far.is_empty(), "{far:?}");
    }
}
