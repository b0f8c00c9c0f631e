//! Two images side by side, and lines between what belongs together.

use image::RgbImage as Canvas;

use crate::picture::{
    drawing::Drawing,
    panel::{Panel, origins, side_by_side},
};

/// Width of lines, in pixels.
const LINE_PX: u32 = 2;

/// A place in each image, `[x, y]` in its pixels, and the colour of the line between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// In the first image.
    pub source: [f64; 2],
    /// In the second.
    pub target: [f64; 2],
    /// Red, green, blue.
    pub color: [u8; 3],
}

/// Draws both panels, and over them the lines.
#[must_use]
pub fn pairs(panels: &[Panel; 2], pairs: &[Pair]) -> Canvas {
    let mut drawing = Drawing::on(side_by_side(panels), LINE_PX);
    let origins = origins(panels);
    let [source, target] = [0, 1].map(|idx| {
        let ([left, top], scale) = origins[idx];
        move |[x, y]: [f64; 2]| [left + x * scale[0], top + y * scale[1]]
    });
    for pair in pairs {
        drawing.line(source(pair.source), target(pair.target), pair.color);
    }
    for pair in pairs {
        drawing.dot(source(pair.source), pair.color);
        drawing.dot(target(pair.target), pair.color);
    }
    drawing.into_canvas()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::tensor::RgbImage;

    #[test]
    fn a_line_leads_from_one_image_to_the_other() {
        let panels = [100, 200].map(|side| Panel {
            caption: String::new(),
            image: RgbImage::new(side, side, vec![0; 3 * (side * side) as usize]).unwrap(),
        });
        let middle = Pair { source: [50.0, 50.0], target: [100.0, 100.0], color: [0, 255, 0] };
        let picture = pairs(&panels, &[middle]);
        let centre = picture.height() / 2 + 8;
        let is_green = |x: u32, y: u32| picture.get_pixel(x, y).0 == [0, 255, 0];
        // Panels of 448 pixels between margins of 8, under captions of 24.
        assert!(is_green(8 + 224, 24 + 224) && is_green(2 * 8 + 448 + 224, 24 + 224) && is_green(8 + 448 + 4, 24 + 224));
        assert!(!is_green(8 + 100, centre) && !is_green(8 + 224, 24 + 300));
    }
}
