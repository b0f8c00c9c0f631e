//! The middle of a photo as a square, for measurements on whole images.

use std::path::Path;

use anyhow::anyhow;
use densevit::{
    manifest::{Interpolation, ResizePolicy},
    preprocess::{Recipe, Rect, prepare},
    tensor::RgbImage,
};

use crate::data::photos;

/// Reads a photo, and makes the middle `part` of its short side, in \(0, 1\], a square of `size` pixels (bicubic), a multiple of `patch`.
///
/// # Errors
/// When it cannot be read.
pub fn middle(path: &Path, part: f64, size: u32, patch: u32) -> anyhow::Result<RgbImage> {
    let photo = photos::open(path).map_err(|problem| anyhow!("{}: it {problem}", path.display()))?;
    let side = f64::from(photo.height().min(photo.width())) * part;
    let [x, y] = [photo.width(), photo.height()].map(|of| (f64::from(of) - side) / 2.0);
    let recipe = Recipe {
        resize: ResizePolicy::Exact { height: size, width: size },
        interpolation: Interpolation::Bicubic,
        crop: Some(Rect { x, y, width: side, height: side }),
        patch,
        fill: [0; 3],
        max_input_pixels: u64::from(size) * u64::from(size),
    };
    Ok(prepare(photo, &recipe)?.image)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_middle_is_taken_and_the_rest_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.png");
        // 8 x 16 pixels, white but for a black square of 4 x 4 in the middle.
        let is_inside = |x: u32, y: u32| (6..10).contains(&x) && (2..6).contains(&y);
        image::RgbImage::from_fn(16, 8, |x, y| image::Rgb([if is_inside(x, y) { 0 } else { 255 }; 3])).save(&path).unwrap();
        let half = middle(&path, 0.5, 4, 2).unwrap();
        assert_eq!((half.height(), half.width()), (4, 4));
        assert!(half.data().iter().all(|value| *value == 0), "{:?}", half.data());
        let whole = middle(&path, 1.0, 8, 2).unwrap();
        assert_eq!(whole.data().iter().filter(|value| **value == 0).count(), 3 * 16);
        assert!(middle(Path::new("/nowhere.png"), 1.0, 8, 2).unwrap_err().to_string().contains("/nowhere.png"));
    }
}
