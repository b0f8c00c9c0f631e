//! A photo as the images of one training example: a square, its half, its quarter and so on.

use std::path::Path;

use densevit::{
    manifest::{Interpolation, ResizePolicy},
    preprocess::{Recipe, Rect, prepare},
    tensor::RgbImage,
};

use crate::{
    config::{Downscale, Framing, LiftConfig},
    data::{jitter::jittered, photos},
};

/// Smallest side of a random crop, as a share of the shorter side of the photo.
const SMALLEST_CROP: f64 = 0.5;

/// The images of one example.
#[derive(Clone, Debug)]
pub struct View {
    /// `size` pixels a side: what the targets of the first term are computed from.
    pub full: RgbImage,
    /// Half of it, a quarter and so on, one a scale.
    pub smaller: Vec<RgbImage>,
}

/// Makes the example `idx` of a photo. The same photo content (`digest`), index, seed and settings always give the same example.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn make_view(path: &Path, digest: &str, idx: u32, config: &LiftConfig) -> Result<View, String> {
    let photo = photos::open(path)?;
    let leading = digest.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
    let mut random = fastrand::Rng::with_seed(leading ^ config.seed.rotate_left(32) ^ u64::from(idx));
    let (crop, is_mirrored) = match config.framing {
        Framing::Squeeze => (None, false),
        Framing::Crop => (Some(square(&photo, &mut random)), random.bool()),
    };
    let full = resized(&photo, [config.size; 2], Interpolation::Bilinear, crop)?;
    let full = if is_mirrored { mirrored(&full) } else { full };
    let full = if config.jitter > 0.0 { jittered(full, config.jitter, &mut random) } else { full };
    let smaller = |factor: u32| match config.downscale {
        Downscale::Stride => Ok(strided(&full, factor)),
        Downscale::Antialias => resized(&full, [config.size / factor; 2], Interpolation::Bilinear, None),
    };
    let smaller = (1..=config.scales).map(|scale| smaller(1 << scale)).collect::<Result<_, _>>()?;
    Ok(View { full, smaller })
}

fn square(photo: &RgbImage, random: &mut fastrand::Rng) -> Rect {
    let (height, width) = (f64::from(photo.height()), f64::from(photo.width()));
    let side = height.min(width) * (SMALLEST_CROP + (1.0 - SMALLEST_CROP) * random.f64());
    Rect { x: (width - side) * random.f64(), y: (height - side) * random.f64(), width: side, height: side }
}

/// An image, or a part of it, as rows x columns of pixels; antialiased when it shrinks.
///
/// # Errors
/// When the part lies outside the image.
pub fn resized(
    image: &RgbImage,
    [height, width]: [u32; 2],
    interpolation: Interpolation,
    crop: Option<Rect>,
) -> Result<RgbImage, String> {
    let resize = ResizePolicy::Exact { height, width };
    let max_input_pixels = u64::from(height) * u64::from(width);
    let recipe = Recipe { resize, interpolation, crop, patch: 1, fill: [0; 3], max_input_pixels };
    prepare(image.clone(), &recipe).map(|prepared| prepared.image).map_err(|error| error.to_string())
}

/// Every `factor`-th pixel of every `factor`-th row.
fn strided(image: &RgbImage, factor: u32) -> RgbImage {
    let (height, width) = (image.height() / factor, image.width() / factor);
    let (factor, row_bytes) = (factor as usize, image.width() as usize * 3);
    let rows = image.data().chunks_exact(row_bytes).step_by(factor);
    let data = rows.flat_map(|row| row.chunks_exact(3).step_by(factor).flatten().copied()).collect();
    // A square whose side is a multiple of four patches divides evenly.
    RgbImage::new(height, width, data).unwrap_or_else(|| image.clone())
}

/// Left and right exchanged.
pub(crate) fn mirrored(image: &RgbImage) -> RgbImage {
    let rows = image.data().chunks_exact(image.width() as usize * 3);
    let data = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
    RgbImage::new(image.height(), image.width(), data).unwrap_or_else(|| image.clone())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn ramp() -> RgbImage {
        RgbImage::new(4, 4, (0..48).collect()).unwrap()
    }

    #[test]
    fn striding_keeps_every_second_pixel() {
        assert_eq!(strided(&ramp(), 2).data(), [0, 1, 2, 6, 7, 8, 24, 25, 26, 30, 31, 32]);
    }

    #[test]
    fn mirroring_twice_changes_nothing() {
        assert_eq!(mirrored(&ramp()).data()[..6], [9, 10, 11, 6, 7, 8]);
        assert_eq!(mirrored(&mirrored(&ramp())), ramp());
    }

    #[test]
    fn an_example_depends_on_content_index_and_seed_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image::RgbImage::from_fn(90, 60, |x, y| image::Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), 0]))
            .save(&path)
            .unwrap();
        let config = LiftConfig { size: 56, scales: 2, ..LiftConfig::default() };
        let view = |idx, seed| make_view(&path, &"ab".repeat(32), idx, &LiftConfig { seed, ..config.clone() }).unwrap();
        assert_eq!(view(0, 0).full, view(0, 0).full);
        assert_ne!(view(0, 0).full, view(1, 0).full);
        assert_ne!(view(0, 0).full, view(0, 1).full);
        assert_eq!(view(0, 0).smaller.iter().map(RgbImage::width).collect::<Vec<_>>(), [28, 14]);
    }
}
