//! What happens to the pixels of a crop after it was cut (BYOL, SwAV, DINO): jitter, grey, blur, solarisation, each with a probability.

use densevit::tensor::RgbImage;

use crate::data::jitter::{jittered_by, luma};

/// Amounts of brightness, contrast, saturation and hue.
const JITTER: [f64; 4] = [0.4, 0.4, 0.2, 0.1];
/// Probability of a jitter.
const P_JITTER: f64 = 0.8;
/// Probability of grey.
const P_GREY: f64 = 0.2;
/// Spread of the blur in pixels: least and most.
const BLUR: [f64; 2] = [0.1, 2.0];
/// Values from here on are inverted by solarisation.
const SOLARISED_FROM: u8 = 128;
/// Spreads that a blur reaches to.
const REACH: f64 = 3.0;

/// How likely the rarer changes are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odds {
    /// Of a blur.
    pub blur: f64,
    /// Of solarisation.
    pub solarise: f64,
}

impl Odds {
    /// The crop with other colours.
    #[must_use]
    pub fn apply(self, crop: RgbImage, random: &mut fastrand::Rng) -> RgbImage {
        let mut crop = crop;
        if random.f64() < P_JITTER {
            crop = jittered_by(crop, JITTER, random);
        }
        if random.f64() < P_GREY {
            crop = grey(&crop);
        }
        if random.f64() < self.blur {
            crop = blurred(&crop, BLUR[0] + (BLUR[1] - BLUR[0]) * random.f64());
        }
        if random.f64() < self.solarise {
            crop = solarised(&crop);
        }
        crop
    }
}

/// Every pixel as grey as it is bright.
#[must_use]
pub fn grey(image: &RgbImage) -> RgbImage {
    let pixel = |pixel: &[u8]| [as_byte(luma(&[pixel[0], pixel[1], pixel[2]].map(f32::from))); 3];
    with_data(image, image.data().chunks_exact(3).flat_map(pixel).collect())
}

/// Bright values inverted.
#[must_use]
pub fn solarised(image: &RgbImage) -> RgbImage {
    with_data(image, image.data().iter().map(|value| if *value < SOLARISED_FROM { *value } else { 255 - value }).collect())
}

/// Convolved with a Gaussian of this spread in pixels; beyond the border lies what is at the border.
#[must_use]
pub fn blurred(image: &RgbImage, spread: f64) -> RgbImage {
    let kernel = gaussian(spread);
    let (height, width) = (image.height() as usize, image.width() as usize);
    let values: Vec<f32> = image.data().iter().copied().map(f32::from).collect();
    let across = convolved(&values, &kernel, [height, width * 3], 3);
    // Down the rows, a row is one step.
    let down = convolved(&across, &kernel, [1, height * width * 3], width * 3);
    with_data(image, down.into_iter().map(as_byte).collect())
}

/// Weights of a pixel and of those on one side of it; together with the other side they sum to 1.
fn gaussian(spread: f64) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let reach = (REACH * spread).ceil().clamp(0.0, 64.0) as u32;
    let weights: Vec<f64> = (0..=reach).map(|at| (-0.5 * (f64::from(at) / spread).powi(2)).exp()).collect();
    let sum = 2.0 * weights.iter().sum::<f64>() - weights.first().copied().unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "a weight below 1")]
    let kernel = weights.iter().map(|weight| (weight / sum) as f32).collect();
    kernel
}

/// Each line of `lines[0]` lines of `lines[1]` values convolved along itself; neighbours in it are `step` values apart.
fn convolved(values: &[f32], kernel: &[f32], [n_lines, length]: [usize; 2], step: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    let n_cells = length / step;
    for line in values.chunks_exact(length).take(n_lines) {
        for (cell, within) in (0..n_cells).flat_map(|cell| (0..step).map(move |within| (cell, within))) {
            let value = |cell: usize| line[cell * step + within];
            let around =
                (1..kernel.len()).map(|at| kernel[at] * (value(cell.saturating_sub(at)) + value((cell + at).min(n_cells - 1))));
            out.push(kernel[0] * value(cell) + around.sum::<f32>());
        }
    }
    out
}

fn as_byte(value: f32) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
    let byte = value.round().clamp(0.0, 255.0) as u8;
    byte
}

fn with_data(image: &RgbImage, data: Vec<u8>) -> RgbImage {
    RgbImage::new(image.height(), image.width(), data).unwrap_or_else(|| image.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: u32, width: u32, data: &[u8]) -> RgbImage {
        RgbImage::new(height, width, data.to_vec()).unwrap_or_else(|| unreachable!())
    }

    #[test]
    fn grey_is_luma_and_solarisation_inverts_what_is_bright() {
        let pixels = image(1, 2, &[255, 0, 0, 10, 200, 127]);
        assert_eq!(grey(&pixels).data(), [76, 76, 76, 135, 135, 135]);
        assert_eq!(solarised(&pixels).data(), [0, 0, 0, 10, 55, 127]);
    }

    #[test]
    fn a_blurred_point_is_a_gaussian_and_a_plain_area_stays() {
        assert_eq!(blurred(&image(3, 3, &[90; 27]), 1.5), image(3, 3, &[90; 27]));
        let mut data = vec![0; 11 * 11 * 3];
        data[(5 * 11 + 5) * 3 + 1] = 255;
        let blurred = blurred(&image(11, 11, &data), 1.0);
        let at = |row: usize, col: usize, channel: usize| blurred.data()[(row * 11 + col) * 3 + channel];
        // 255 / (2 pi), times exp(-1/2) a step along one axis.
        assert_eq!([at(5, 5, 1), at(5, 6, 1), at(4, 5, 1), at(4, 4, 1)], [41, 25, 25, 15]);
        assert_eq!([at(5, 5, 0), at(5, 5, 2)], [0, 0]);
    }

    #[test]
    fn odds_of_one_and_none_are_certain() {
        let pixels = image(2, 2, &[200, 10, 30, 20, 220, 90, 7, 8, 250, 128, 128, 128]);
        let of = |odds: Odds, seed| odds.apply(pixels.clone(), &mut fastrand::Rng::with_seed(seed));
        let never = Odds { blur: 0.0, solarise: 0.0 };
        assert_eq!(of(never, 3), of(never, 3));
        let n_changed = (0..200).filter(|seed| of(never, *seed) != pixels).count();
        // 0.8 are jittered, a fifth of the rest is grey.
        assert!((150..190).contains(&n_changed), "{n_changed}");
    }
}
