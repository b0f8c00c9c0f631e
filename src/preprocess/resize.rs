//! Crop and resize. Kernels are those of PIL: support grows with the reduction (antialias), half-pixel centres, weights
//! renormalised at the border.

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};

use crate::{
    manifest::{Interpolation, ResizePolicy},
    preprocess::{
        geometry::{Geometry, Rect},
        size::{PrepareError, Recipe, plan_size, used_part},
    },
    tensor::RgbImage,
};

/// Pixels that the widest kernel, Lanczos, reaches to each side when it does not shrink.
const LARGEST_SUPPORT: f64 = 3.0;

/// The model's input and the way back from it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Pixels of the model's size.
    pub image: RgbImage,
    /// Relation to the original.
    pub geometry: Geometry,
}

/// Makes the model's input of an upright image.
///
/// # Errors
/// [`PrepareError`] when the recipe does not fit the image.
pub fn prepare(image: RgbImage, recipe: &Recipe) -> Result<Prepared, PrepareError> {
    let original = (image.height(), image.width());
    let input = plan_size(original.0, original.1, recipe)?;
    let used = used_part(original.0, original.1, recipe)?;
    let content = content_size(&used, input, recipe.resize);
    let geometry = Geometry { original, input, used, content };
    let is_whole = recipe.crop.is_none();
    let resized = if is_whole && content == original { image } else { resize(&image, &geometry, recipe.interpolation)? };
    let image = if content == input { resized } else { pad(&resized, input, recipe.fill)? };
    Ok(Prepared { image, geometry })
}

/// Rows and columns of the input that show the image: all but for letterboxing, which keeps the aspect ratio.
fn content_size(used: &Rect, input: (u32, u32), policy: ResizePolicy) -> (u32, u32) {
    if !matches!(policy, ResizePolicy::Letterbox { .. }) {
        return input;
    }
    let scale = (f64::from(input.0) / used.height).min(f64::from(input.1) / used.width);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the side of the input")]
    let side = |extent: f64, limit: u32| ((extent * scale).round().max(1.0) as u32).min(limit);
    (side(used.height, input.0), side(used.width, input.1))
}

/// Resizes the used part of an image.
///
/// # Design
/// A part is resized in two calls, rows before columns, as one call would do it: `fast_image_resize` 6.1 makes the image between its passes as
/// wide as the first and the last kernel reach. Inside an image a kernel whose outermost weight is zero reaches less far than the one
/// beside it, which then reads outside. At the borders of a whole image no such weight is zero.
fn resize(image: &RgbImage, geometry: &Geometry, interpolation: Interpolation) -> Result<RgbImage, PrepareError> {
    let (height, width) = geometry.content;
    let used = geometry.used;
    let whole = Rect { x: 0.0, y: 0.0, width: f64::from(image.width()), height: f64::from(image.height()) };
    if used == whole {
        return resize_part(image, &used, (height, width), interpolation);
    }
    let (first, n_cols) = columns(&used, width, image.width());
    let rows = Rect { x: f64::from(first), width: f64::from(n_cols), ..used };
    let between = resize_part(image, &rows, (height, n_cols), interpolation)?;
    let cols = Rect { x: used.x - f64::from(first), y: 0.0, width: used.width, height: f64::from(height) };
    resize_part(&between, &cols, (height, width), interpolation)
}

/// The first column that a kernel on `used` may reach, and their number.
fn columns(used: &Rect, width: u32, image_width: u32) -> (u32, u32) {
    let reach = LARGEST_SUPPORT * (used.width / f64::from(width)).max(1.0) + 1.0;
    let first = (used.x - reach).floor().max(0.0);
    let end = (used.x + used.width + reach).ceil().min(f64::from(image_width));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers of columns of the image")]
    (first as u32, (end - first).max(1.0) as u32)
}

fn resize_part(
    image: &RgbImage,
    part: &Rect,
    (height, width): (u32, u32),
    interpolation: Interpolation,
) -> Result<RgbImage, PrepareError> {
    let failed = |error: &dyn std::fmt::Display| PrepareError::Resize(error.to_string());
    let mut data = vec![0; height as usize * width as usize * 3];
    // By the type of its pixels: by their name would compile the kernels of all types, for minutes.
    let source: TypedImageRef<'_, U8x3> =
        TypedImageRef::from_buffer(image.width(), image.height(), image.data()).map_err(|error| failed(&error))?;
    let mut target: TypedImage<'_, U8x3> = TypedImage::from_buffer(width, height, &mut data).map_err(|error| failed(&error))?;
    let options = ResizeOptions::new().resize_alg(algorithm(interpolation)).use_alpha(false);
    let options = options.crop(part.x, part.y, part.width, part.height);
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| failed(&error))?;
    RgbImage::new(height, width, data).ok_or_else(|| failed(&"no pixels"))
}

fn algorithm(interpolation: Interpolation) -> ResizeAlg {
    match interpolation {
        Interpolation::Nearest => ResizeAlg::Nearest,
        Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Interpolation::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
    }
}

/// The image in the top-left corner of a larger one filled with one colour.
fn pad(image: &RgbImage, (height, width): (u32, u32), fill: [u8; 3]) -> Result<RgbImage, PrepareError> {
    let row_bytes = width as usize * 3;
    let mut data = fill.repeat(height as usize * width as usize);
    let content_bytes = image.width() as usize * 3;
    for (target, source) in data.chunks_exact_mut(row_bytes).zip(image.data().chunks_exact(content_bytes)) {
        target[..content_bytes].copy_from_slice(source);
    }
    RgbImage::new(height, width, data).ok_or_else(|| PrepareError::Resize("no pixels".into()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn recipe(resize: ResizePolicy) -> Recipe {
        let interpolation = Interpolation::Bilinear;
        Recipe { resize, interpolation, crop: None, patch: 2, fill: [9, 8, 7], max_input_pixels: 1 << 20 }
    }

    fn pixel(image: &RgbImage, row: usize, col: usize) -> &[u8] {
        let start = (row * image.width() as usize + col) * 3;
        &image.data()[start..start + 3]
    }

    #[test]
    fn an_image_of_the_right_size_is_passed_on_untouched() {
        let image = RgbImage::new(2, 4, (0..24).collect()).unwrap();
        let prepared = prepare(image.clone(), &recipe(ResizePolicy::Native)).unwrap();
        assert_eq!(prepared.image, image);
    }

    /// Both round to bytes between the two passes, but one begins with rows and the other with columns.
    const PILLOW: u8 = 2;

    fn fixture(name: &str) -> RgbImage {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images/").to_owned() + name;
        let image = image::open(path).unwrap().into_rgb8();
        RgbImage::new(image.height(), image.width(), image.into_raw()).unwrap()
    }

    #[test]
    fn kernels_agree_with_pillow_when_shrinking_and_enlarging() {
        let kernels =
            [(Interpolation::Bilinear, "bilinear"), (Interpolation::Bicubic, "bicubic"), (Interpolation::Lanczos, "lanczos")];
        for (interpolation, name) in kernels {
            for (height, width) in [(28, 42), (84, 126)] {
                let recipe = Recipe { interpolation, patch: 14, ..recipe(ResizePolicy::Exact { height, width }) };
                let resized = prepare(fixture("resize_source.png"), &recipe).unwrap().image;
                let expected = fixture(&format!("resize_{name}_{height}x{width}.png"));
                let differences = resized.data().iter().zip(expected.data()).map(|(got, expected)| got.abs_diff(*expected));
                let worst = differences.max().unwrap();
                assert!(worst <= PILLOW, "{name} to {height} x {width} differs by up to {worst} levels");
            }
        }
    }

    #[test]
    fn a_part_between_pixels_agrees_with_pillow() {
        // The second one has weights of exactly zero at its left edge.
        let parts = [
            ("inside", 7.3, 5.8, 40.25, 30.5),
            ("zero", 22.2, 10.867_924_528_301_886, 57.599_999_999_999_994, 38.641_509_433_962_26),
        ];
        let kernels =
            [(Interpolation::Bilinear, "bilinear"), (Interpolation::Bicubic, "bicubic"), (Interpolation::Lanczos, "lanczos")];
        for (part, x, y, width, height) in parts {
            let crop = Some(Rect { x, y, width, height });
            for (interpolation, name) in kernels {
                let exact = ResizePolicy::Exact { height: 64, width: 96 };
                let recipe = Recipe { interpolation, crop, ..recipe(exact) };
                let resized = prepare(fixture("resize_source.png"), &recipe).unwrap().image;
                let expected = fixture(&format!("resize_{name}_part_{part}.png"));
                let differences = resized.data().iter().zip(expected.data()).map(|(got, expected)| got.abs_diff(*expected));
                let worst = differences.max().unwrap();
                assert!(worst <= PILLOW, "{name} of {part} differs by up to {worst} levels");
            }
        }
    }

    proptest! {
        #[test]
        fn any_part_of_a_plain_image_is_plain(
            (x, y, width, height) in (0f64..95.0, 0f64..63.0, 0.5f64..96.0, 0.5f64..64.0),
            (rows, cols) in (1u32..60, 1u32..90),
        ) {
            let image = RgbImage::new(64, 96, vec![50; 64 * 96 * 3]).unwrap();
            let crop = Some(Rect { x, y, width, height });
            for interpolation in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos] {
                let exact = ResizePolicy::Exact { height: 2 * rows, width: 2 * cols };
                let prepared = prepare(image.clone(), &Recipe { interpolation, crop, ..recipe(exact) }).unwrap();
                prop_assert!(prepared.image.data().iter().all(|value| *value == 50));
            }
        }
    }

    #[test]
    fn letterboxing_keeps_the_aspect_ratio_and_fills_below() {
        let image = RgbImage::new(2, 4, vec![100; 24]).unwrap();
        let prepared = prepare(image, &recipe(ResizePolicy::Letterbox { height: 8, width: 8 })).unwrap();
        assert_eq!(pixel(&prepared.image, 3, 7), [100; 3]);
        assert_eq!(pixel(&prepared.image, 4, 0), [9, 8, 7]);
        assert_eq!(prepared.geometry.cell_centre(0, 0, 2.0), [0.5, 0.5], "twice the size: a cell of 2 is one pixel");
    }

    #[test]
    fn shrinking_averages_what_it_leaves_out() {
        // One white pixel in sixteen: an antialiased reduction to one keeps its brightness, subsampling would lose it.
        let mut data = vec![0; 8 * 8 * 3];
        data[(3 * 8 + 3) * 3..(3 * 8 + 3) * 3 + 3].fill(255);
        let image = RgbImage::new(8, 8, data).unwrap();
        let prepared = prepare(image, &recipe(ResizePolicy::Exact { height: 2, width: 2 })).unwrap();
        assert!(prepared.image.data().iter().all(|value| *value > 0), "{:?}", prepared.image.data());
    }

    #[test]
    fn a_crop_takes_its_part_of_the_image() {
        let image = RgbImage::new(4, 4, (0..48).collect()).unwrap();
        let crop = Some(Rect { x: 2.0, y: 2.0, width: 2.0, height: 2.0 });
        let prepared = prepare(image.clone(), &Recipe { crop, ..recipe(ResizePolicy::Native) }).unwrap();
        assert_eq!(pixel(&prepared.image, 0, 0), pixel(&image, 2, 2));
        assert_eq!(pixel(&prepared.image, 1, 1), pixel(&image, 3, 3));
    }
}
