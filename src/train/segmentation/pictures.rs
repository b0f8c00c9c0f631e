//! Pictures of results: what was taken for what, and photo, truth and prediction side by side.

use std::path::Path;

use densevit::{
    manifest::ClassSpec,
    picture::{Panel, side_by_side, write_png},
    tensor::RgbImage,
};
use embedded_graphics::{
    Drawable as _,
    geometry::{Point, Size},
    mono_font::{MonoTextStyle, ascii::FONT_9X15},
    pixelcolor::Rgb888,
    primitives::{Primitive as _, PrimitiveStyle, Rectangle},
    text::{Alignment, Text},
};

use crate::{
    canvas::Canvas,
    segmentation::{
        confusion::Confusion,
        data::{classes::IGNORED, labels::Labels},
    },
};

/// Side of a cell with a number in it, in pixels.
const CELL: u32 = 42;
/// Side of a cell where there are too many classes for numbers.
const SMALL_CELL: u32 = 6;
/// Most classes whose names and numbers are written.
const MAX_NAMED: usize = 40;
/// Room for names, in pixels.
const MARGIN: u32 = 190;
/// Pixels of a letter.
const LETTER: [i32; 2] = [9, 15];

const INK: Rgb888 = Rgb888::new(40, 40, 40);
const PAPER: Rgb888 = Rgb888::new(255, 255, 255);

/// Writes a confusion matrix as PNG: a row a true class, in percent of its pixels, the darker the more.
///
/// # Errors
/// When the file cannot be written.
pub fn draw_confusion(path: &Path, confusion: &Confusion, classes: &[ClassSpec]) -> anyhow::Result<()> {
    let n = confusion.n_classes();
    let is_named = n <= MAX_NAMED;
    let (cell, margin) = if is_named { (CELL, MARGIN) } else { (SMALL_CELL, SMALL_CELL) };
    let side = margin + u32::try_from(n)? * cell + cell;
    let mut canvas = Canvas::white(side, side);
    let place = |idx: usize| i32::try_from(margin + u32::try_from(idx).unwrap_or_default() * cell).unwrap_or_default();
    let half = i32::try_from(cell / 2)?;
    for truth in 0..n {
        let total = confusion.n_true(truth);
        for predicted in 0..n {
            let percent = (100 * confusion.count(truth, predicted) + total / 2).checked_div(total).unwrap_or_default();
            let corner = Point::new(place(predicted), place(truth));
            let fill = PrimitiveStyle::with_fill(shade(percent));
            let Ok(()) = Rectangle::new(corner, Size::new(cell - 1, cell - 1)).into_styled(fill).draw(&mut canvas);
            if is_named && percent > 0 {
                let ink = if percent > 50 { PAPER } else { INK };
                let at = corner + Point::new(half, half + LETTER[1] / 3);
                write(&mut canvas, &percent.to_string(), at, ink, Alignment::Center);
            }
        }
    }
    if is_named {
        for (idx, class) in classes.iter().enumerate() {
            let middle = place(idx) + half + LETTER[1] / 3;
            write(&mut canvas, &class.name, Point::new(place(0) - 8, middle), INK, Alignment::Right);
            // Names of columns are written downwards, letter below letter.
            let letters = i32::try_from(class.name.chars().count())?;
            for (letter, character) in (0i32..).zip(class.name.chars()) {
                let at = Point::new(place(idx) + half, place(0) - 10 - (letters - 1 - letter) * (LETTER[1] - 4));
                write(&mut canvas, &character.to_string(), at, INK, Alignment::Center);
            }
        }
    }
    canvas.write(path)
}

/// Writes photo, truth and prediction side by side as PNG.
///
/// # Errors
/// When the file cannot be written.
pub fn draw_panels(path: &Path, photo: &RgbImage, [truth, predicted]: [&Labels; 2], classes: &[ClassSpec]) -> anyhow::Result<()> {
    let panel = |caption: &str, image: RgbImage| Panel { caption: caption.to_owned(), image };
    let of = |labels: &Labels| coloured(labels, classes).unwrap_or_else(|| photo.clone());
    let panels = [panel("photo", photo.clone()), panel("truth", of(truth)), panel("prediction", of(predicted))];
    Ok(write_png(path, &side_by_side(&panels))?)
}

/// Labels in the colours of their classes; black where they do not count.
fn coloured(labels: &Labels, classes: &[ClassSpec]) -> Option<RgbImage> {
    let colour =
        |label: &u8| if *label == IGNORED { [0; 3] } else { classes.get(usize::from(*label)).map_or([0; 3], |c| c.color) };
    RgbImage::new(labels.height, labels.width, labels.data.iter().flat_map(colour).collect())
}

/// From white to dark blue.
fn shade(percent: u64) -> Rgb888 {
    let share = |full: u64| u8::try_from(255 - (255 - full) * percent.min(100) / 100).unwrap_or_default();
    Rgb888::new(share(20), share(60), share(120))
}

fn write(canvas: &mut Canvas, text: &str, at: Point, colour: Rgb888, alignment: Alignment) {
    let Ok(_next) = Text::with_alignment(text, at, MonoTextStyle::new(&FONT_9X15, colour), alignment).draw(canvas);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tch::Tensor;

    use super::*;

    #[test]
    fn what_was_found_is_dark_on_the_diagonal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("confusion.png");
        let mut confusion = Confusion::new(2);
        let labels = Labels { height: 1, width: 4, data: vec![0, 0, 1, 1] };
        confusion.add(&Tensor::from_slice(&[0i64, 0, 1, 0]), &labels).unwrap();
        let class = |name: &str| ClassSpec { name: name.into(), color: [0; 3] };
        draw_confusion(&path, &confusion, &[class("sky"), class("road")]).unwrap();
        let picture = image::open(&path).unwrap().into_rgb8();
        let red = |truth: u32, predicted: u32| picture.get_pixel(MARGIN + predicted * CELL + 2, MARGIN + truth * CELL + 2).0[0];
        assert_eq!([red(0, 0), red(0, 1), red(1, 0), red(1, 1)], [20, 255, 138, 138]);
    }

    #[test]
    fn labels_take_the_colours_of_their_classes() {
        let labels = Labels { height: 1, width: 3, data: vec![0, IGNORED, 7] };
        let classes = [ClassSpec { name: "sky".into(), color: [1, 2, 3] }];
        assert_eq!(coloured(&labels, &classes).unwrap().data(), [1, 2, 3, 0, 0, 0, 0, 0, 0]);
    }
}
