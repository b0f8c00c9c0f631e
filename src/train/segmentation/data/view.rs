//! A labelled image as a training example: scaled, cropped, mirrored, coloured, padded.
//!
//! # Design
//! As SegViT was trained (`mmsegmentation`'s usual pipeline): the image is scaled so that it fits a base size times a random ratio, a
//! window is cut out of it in which no class fills more than a given share, it is mirrored half of the time, colours are distorted, and
//! what is missing of the window is filled at the right and at the bottom with the mean colour, whose labels do not count. Only the window
//! is ever resampled, whatever the scale.

use densevit::{manifest::Interpolation, preprocess::Rect, tensor::RgbImage};
use serde::{Deserialize, Serialize};

use crate::{
    data::view::{mirrored, resized},
    segmentation::data::{classes::IGNORED, distortion::distorted, labels::Labels},
};

/// Windows that are tried before one is taken in which a class fills more than its share.
const N_TRIES: usize = 10;

/// How examples are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Rows and columns of the window, in pixels.
    pub size: [u32; 2],
    /// At ratio 1 the image fits this: its longer side the first, its shorter side the second, in pixels.
    pub base: [u32; 2],
    /// Smallest and largest ratio.
    pub ratio: [f64; 2],
    /// Largest share of a class in the window; 1 for any.
    pub max_share: f64,
    /// Whether images are mirrored half of the time.
    pub flip: bool,
    /// Whether colours are distorted.
    pub distort: bool,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { size: [336, 448], base: [448, 336], ratio: [0.75, 1.75], max_share: 0.75, flip: true, distort: true }
    }
}

/// What the backbone wants of pixels.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Kernel of the resize.
    pub interpolation: Interpolation,
    /// Colour of the padding, RGB.
    pub fill: [u8; 3],
}

/// An image and its labels, of the window's size.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The image.
    pub image: RgbImage,
    /// Its labels.
    pub labels: Labels,
}

/// A window of the scaled image, in its pixels; the scaled image may be smaller.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Rows and columns of the scaled image.
    scaled: [u32; 2],
    /// First row and column.
    first: [u32; 2],
    /// Rows and columns.
    size: [u32; 2],
}

/// Makes an example. The same image and random numbers always give the same one.
///
/// # Errors
/// When the image cannot be resized, in words.
pub fn make_view(
    (image, labels): (&RgbImage, &Labels),
    augmentation: &Augmentation,
    pixels: Pixels,
    random: &mut fastrand::Rng,
) -> Result<View, String> {
    let [low, high] = augmentation.ratio;
    let ratio = low + (high - low) * random.f64();
    let scaled = fitted([image.height(), image.width()], augmentation.base, ratio);
    let (window, labels) = chosen(labels, scaled, augmentation, random);
    let image = cut(image, &window, pixels.interpolation)?;
    let is_mirrored = augmentation.flip && random.bool();
    let (image, labels) = if is_mirrored { (mirrored(&image), mirrored_labels(&labels)) } else { (image, labels) };
    let image = if augmentation.distort { distorted(image, random) } else { image };
    Ok(padded(&image, &labels, augmentation.size, pixels.fill))
}

/// Rows and columns of an image that fits `base` times `ratio` and keeps its aspect.
fn fitted(size: [u32; 2], base: [u32; 2], ratio: f64) -> [u32; 2] {
    let [long, short] = base.map(|side| f64::from(side) * ratio);
    let sides = size.map(f64::from);
    let factor = (long / sides[0].max(sides[1])).min(short / sides[0].min(sides[1]));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of pixels")]
    let pixels = |side: f64| (side * factor).round().max(1.0) as u32;
    sides.map(pixels)
}

/// A random window in which no class fills more than its share, or the last that was tried, and its labels.
fn chosen(labels: &Labels, scaled: [u32; 2], augmentation: &Augmentation, random: &mut fastrand::Rng) -> (Window, Labels) {
    let size = [0, 1].map(|axis: usize| augmentation.size[axis].min(scaled[axis]));
    let mut draw = || {
        let first = [0, 1].map(|axis: usize| random.u32(0..=scaled[axis] - size[axis]));
        let window = Window { scaled, first, size };
        (window, sampled(labels, &window))
    };
    let mut tried = draw();
    for _ in 1..N_TRIES {
        if largest_share(&tried.1) < augmentation.max_share {
            break;
        }
        tried = draw();
    }
    tried
}

/// Share of the largest class among the pixels that count; all of it where none does.
fn largest_share(labels: &Labels) -> f64 {
    let mut counts = [0u32; 256];
    labels.data.iter().for_each(|label| counts[usize::from(*label)] += 1);
    let counts = &counts[..usize::from(IGNORED)];
    let (total, largest) = (counts.iter().sum::<u32>(), counts.iter().max().copied().unwrap_or_default());
    if total == 0 { 1.0 } else { f64::from(largest) / f64::from(total) }
}

/// Labels of the nearest pixels.
fn sampled(labels: &Labels, window: &Window) -> Labels {
    let factor = [f64::from(labels.height) / f64::from(window.scaled[0]), f64::from(labels.width) / f64::from(window.scaled[1])];
    let place = |axis: usize, idx: u32| (f64::from(window.first[axis] + idx) + 0.5) * factor[axis];
    let [height, width] = window.size;
    let rows = (0..height).map(|row| place(0, row));
    let data = rows.flat_map(|y| (0..width).map(move |col| labels.at(y, place(1, col)))).collect();
    Labels { height, width, data }
}

/// Pixels of a window.
fn cut(image: &RgbImage, window: &Window, interpolation: Interpolation) -> Result<RgbImage, String> {
    let factor =
        [f64::from(image.height()) / f64::from(window.scaled[0]), f64::from(image.width()) / f64::from(window.scaled[1])];
    let [y, x] = [0, 1].map(|axis: usize| f64::from(window.first[axis]) * factor[axis]);
    let [height, width] = [0, 1].map(|axis: usize| f64::from(window.size[axis]) * factor[axis]);
    resized(image, window.size, interpolation, Some(Rect { x, y, width, height }))
}

fn mirrored_labels(labels: &Labels) -> Labels {
    let rows = labels.data.chunks_exact(labels.width as usize);
    Labels { data: rows.flat_map(|row| row.iter().rev().copied()).collect(), ..*labels }
}

/// Fills what is missing at the right and at the bottom.
fn padded(image: &RgbImage, labels: &Labels, size: [u32; 2], fill: [u8; 3]) -> View {
    let [height, width] = size;
    let missing = (width - labels.width) as usize;
    let whole = |n: usize| fill.repeat(n);
    let mut pixels: Vec<u8> = Vec::with_capacity(height as usize * width as usize * 3);
    for row in image.data().chunks_exact(image.width() as usize * 3) {
        pixels.extend_from_slice(row);
        pixels.extend(whole(missing));
    }
    let mut data: Vec<u8> = Vec::with_capacity(height as usize * width as usize);
    for row in labels.data.chunks_exact(labels.width as usize) {
        data.extend_from_slice(row);
        data.resize(data.len() + missing, IGNORED);
    }
    let n_pixels = height as usize * width as usize;
    pixels.extend(whole(n_pixels - data.len()));
    data.resize(n_pixels, IGNORED);
    let image = RgbImage::new(height, width, pixels).unwrap_or_else(|| image.clone());
    View { image, labels: Labels { height, width, data } }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const PIXELS: Pixels = Pixels { interpolation: Interpolation::Bilinear, fill: [9, 8, 7] };

    /// Red says the column and green the row, of 32 each; labels say both in eighths.
    fn picture() -> (RgbImage, Labels) {
        let cells = (0u8..32).flat_map(|row| (0u8..32).map(move |col| (row, col)));
        let pixels = cells.clone().flat_map(|(row, col)| [col * 8 + 4, row * 8 + 4, 0]).collect();
        let data = cells.map(|(row, col)| (row / 8) * 4 + col / 8).collect();
        (RgbImage::new(32, 32, pixels).unwrap(), Labels { height: 32, width: 32, data })
    }

    fn plain(size: [u32; 2], ratio: f64) -> Augmentation {
        Augmentation { size, base: [32, 32], ratio: [ratio, ratio], max_share: 1.0, flip: false, distort: false }
    }

    fn view(augmentation: &Augmentation, seed: u64) -> View {
        let (image, labels) = picture();
        make_view((&image, &labels), augmentation, PIXELS, &mut fastrand::Rng::with_seed(seed)).unwrap()
    }

    /// How many pixels have the label that their colour says.
    fn n_matching(view: &View) -> usize {
        let pairs = view.image.data().chunks_exact(3).zip(&view.labels.data);
        pairs.filter(|(pixel, label)| **label == (pixel[1] / 64) * 4 + pixel[0] / 64).count()
    }

    #[test]
    fn labels_stay_on_their_pixels_at_every_scale_mirrored_or_not() {
        for (seed, ratio) in [(0, 0.5), (1, 1.0), (2, 1.7), (3, 2.0)] {
            for flip in [false, true] {
                let made = view(&Augmentation { flip, ..plain([16, 16], ratio) }, seed);
                let (n, all) = (n_matching(&made), made.labels.data.len());
                // Only where a resampled pixel straddles two cells may they differ.
                assert!(n * 100 >= all * 85, "ratio {ratio}, flip {flip}: {n} of {all}");
            }
        }
        assert_eq!(n_matching(&view(&plain([16, 16], 1.0), 5)), 256);
    }

    #[test]
    fn what_is_missing_is_filled_and_does_not_count() {
        let made = view(&plain([20, 24], 0.5), 0);
        assert_eq!((made.image.height(), made.image.width()), (20, 24));
        let pixel = |row: usize, col: usize| (&made.image.data()[(row * 24 + col) * 3..][..3], made.labels.data[row * 24 + col]);
        assert_eq!(pixel(15, 16), ([9, 8, 7].as_slice(), IGNORED));
        assert_eq!(pixel(19, 0), ([9, 8, 7].as_slice(), IGNORED));
        assert_ne!(pixel(15, 15).1, IGNORED);
    }

    #[test]
    fn windows_in_which_a_class_fills_too_much_are_drawn_again() {
        // Three of four windows of 4 x 4 pixels lie within one cell or nearly so; ten in a row do for 6 % of the images.
        let full = |max_share: f64| {
            let share = |seed| largest_share(&view(&Augmentation { max_share, ..plain([4, 4], 1.0) }, seed).labels);
            (0..64).filter(|seed| share(*seed) >= 0.75).count()
        };
        assert!(full(1.1) > 32 && full(0.75) < 10, "{} {}", full(1.1), full(0.75));
    }

    #[test]
    fn an_example_depends_on_its_random_numbers_only() {
        let augmentation = Augmentation { flip: true, distort: true, ratio: [0.5, 2.0], ..plain([16, 16], 1.0) };
        assert_eq!(view(&augmentation, 7), view(&augmentation, 7));
        assert_ne!(view(&augmentation, 7), view(&augmentation, 8));
    }

    #[test]
    fn parts_whose_edges_are_no_whole_pixels_are_cut_without_a_crash() {
        let image = RgbImage::new(64, 96, vec![50; 64 * 96 * 3]).unwrap();
        let part = Rect { x: 22.2, y: 10.867_924_528_301_886, width: 57.599_999_999_999_994, height: 38.641_509_433_962_26 };
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos] {
            let resized = resized(&image, [64, 96], interpolation, Some(part)).unwrap();
            assert!(resized.data().iter().all(|value| *value == 50));
        }
    }

    #[test]
    fn images_fit_the_base_size_as_the_usual_pipeline_has_it() {
        assert_eq!(fitted([360, 480], [448, 336], 1.0), [336, 448]);
        assert_eq!(fitted([1024, 2048], [2048, 512], 2.0), [1024, 2048]);
        assert_eq!(fitted([100, 1000], [2048, 512], 0.5), [102, 1024]);
    }
}
