//! Marks on photos, for people: tints of labels, boxes, points.

use densevit::{
    masks::{LabelMap, Labels as Values, OverlayStyle, Palette, VOID_U8, overlay},
    tensor::RgbImage,
};

use crate::{datasets::Corners, segmentation::data::labels::Labels};

/// Colour of what is true.
pub const TRUTH: [u8; 3] = [40, 220, 60];
/// Colour of what was found.
pub const FOUND: [u8; 3] = [255, 60, 40];
/// Numbers that have a colour.
const N_COLORS: usize = 255;
/// Thickness of lines, and half of a point's side, in pixels.
const THICKNESS: i64 = 2;
const POINT: i64 = 3;

/// A photo under the colours of its labels; 0, the background, has none.
///
/// # Errors
/// When labels and photo are of different size.
pub fn tinted(photo: &RgbImage, labels: &Labels) -> anyhow::Result<RgbImage> {
    let shifted = labels.data.iter().map(|label| label.checked_sub(1).unwrap_or(VOID_U8)).collect();
    let map = LabelMap::new(labels.height as usize, labels.width as usize, N_COLORS, Values::U8(shifted))?;
    Ok(overlay(photo, &map, &Palette::distinct(N_COLORS)?, &OverlayStyle::default())?)
}

/// Boxes and points drawn into a copy of a photo.
#[derive(Debug)]
pub struct Marks {
    height: i64,
    width: i64,
    pixels: Vec<u8>,
}

impl Marks {
    /// On a photo.
    #[must_use]
    pub fn new(photo: &RgbImage) -> Self {
        Self { height: photo.height().into(), width: photo.width().into(), pixels: photo.data().to_vec() }
    }

    /// Draws the border of a box, inside of it.
    #[must_use]
    pub fn boxed(mut self, [x0, y0, x1, y1]: Corners, colour: [u8; 3]) -> Self {
        let [x0, y0, x1, y1] = [x0, y0, x1, y1].map(pixel);
        self.fill([x0, y0, x1, y0 + THICKNESS], colour);
        self.fill([x0, y1 - THICKNESS, x1, y1], colour);
        self.fill([x0, y0, x0 + THICKNESS, y1], colour);
        self.fill([x1 - THICKNESS, y0, x1, y1], colour);
        self
    }

    /// Draws a point, a square around it.
    #[must_use]
    pub fn dotted(mut self, [x, y]: [f64; 2], colour: [u8; 3]) -> Self {
        let [x, y] = [x, y].map(pixel);
        self.fill([x - POINT, y - POINT, x + POINT, y + POINT], colour);
        self
    }

    /// The picture.
    #[must_use]
    pub fn into_image(self) -> Option<RgbImage> {
        RgbImage::new(u32::try_from(self.height).ok()?, u32::try_from(self.width).ok()?, self.pixels)
    }

    fn fill(&mut self, [x0, y0, x1, y1]: [i64; 4], colour: [u8; 3]) {
        for (y, x) in (y0.max(0)..y1.min(self.height)).flat_map(|y| (x0.max(0)..x1.min(self.width)).map(move |x| (y, x))) {
            let place = usize::try_from(3 * (y * self.width + x)).unwrap_or(usize::MAX);
            if let Some(pixel) = self.pixels.get_mut(place..place.saturating_add(3)) {
                pixel.copy_from_slice(&colour);
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "places in images; saturating")]
fn pixel(place: f64) -> i64 {
    place.round() as i64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn boxes_have_borders_and_what_lies_outside_is_left_out() {
        let photo = RgbImage::new(12, 12, vec![9; 432]).unwrap();
        let marked = Marks::new(&photo).boxed([2.0, 2.0, 30.0, 10.0], TRUTH).dotted([-1.0, 0.0], FOUND).into_image().unwrap();
        let at = |x: usize, y: usize| [0, 1, 2].map(|channel| marked.data()[3 * (12 * y + x) + channel]);
        assert_eq!([at(2, 2), at(11, 3), at(5, 5), at(11, 5), at(1, 1), at(3, 1)], [TRUTH, TRUTH, [9; 3], [9; 3], FOUND, [9; 3]]);
    }

    #[test]
    fn the_background_keeps_its_colours() {
        let photo = RgbImage::new(1, 2, vec![100; 6]).unwrap();
        let labels = Labels { height: 1, width: 2, data: vec![0, 0] };
        assert_eq!(tinted(&photo, &labels).unwrap(), photo);
        let labels = Labels { height: 1, width: 2, data: vec![1, 1] };
        assert_eq!(tinted(&photo, &labels).unwrap().data(), [114, 50, 50, 114, 50, 50]);
    }
}
