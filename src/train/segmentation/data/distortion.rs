//! Photometric distortion: brightness, contrast, saturation and hue, each half of the time, as detectors and segmenters are usually
//! trained (Liu et al., SSD, ECCV 2016, section 2.2).

use densevit::tensor::RgbImage;

use crate::data::jitter::turned;

/// Most that is added to every channel.
const BRIGHTNESS: f64 = 32.0;
/// Smallest and largest factor of contrast and of saturation.
const FACTOR: [f64; 2] = [0.5, 1.5];
/// Largest share of a whole turn of the hue.
const HUE: f64 = 0.1;

/// The image with other colours. Contrast comes before saturation and hue or after them, by the toss of a coin.
#[must_use]
pub fn distorted(image: RgbImage, random: &mut fastrand::Rng) -> RgbImage {
    let (height, width) = (image.height(), image.width());
    let mut maybe = |low: f64, high: f64| {
        let value = low + (high - low) * random.f64();
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        random.bool().then_some(value as f32)
    };
    let brightness = maybe(-BRIGHTNESS, BRIGHTNESS);
    let contrast = maybe(FACTOR[0], FACTOR[1]);
    let saturation = maybe(FACTOR[0], FACTOR[1]);
    let hue = maybe(-HUE, HUE);
    let is_contrast_first = random.bool();
    let change = |pixel: [f32; 3]| {
        let mut pixel = pixel.map(|value| (value + brightness.unwrap_or(0.0)).clamp(0.0, 255.0));
        let contrasted = |pixel: [f32; 3]| pixel.map(|value| (value * contrast.unwrap_or(1.0)).clamp(0.0, 255.0));
        if is_contrast_first {
            pixel = contrasted(pixel);
        }
        pixel = saturation.map_or(pixel, |factor| saturated(pixel, factor));
        pixel = hue.map_or(pixel, |share| turned(pixel, share));
        if is_contrast_first { pixel } else { contrasted(pixel) }
    };
    let pixels = image.data().chunks_exact(3).map(|pixel| change([pixel[0], pixel[1], pixel[2]].map(f32::from)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
    let data = pixels.flat_map(|pixel| pixel.map(|value| value.round().clamp(0.0, 255.0) as u8)).collect();
    RgbImage::new(height, width, data).unwrap_or(image)
}

/// The pixel with its saturation (HSV) times a factor, at most 1; value and hue stay.
fn saturated(pixel: [f32; 3], factor: f32) -> [f32; 3] {
    let high = pixel[0].max(pixel[1]).max(pixel[2]);
    let spread = high - pixel[0].min(pixel[1]).min(pixel[2]);
    if spread <= 0.0 {
        return pixel;
    }
    let factor = factor.min(high / spread);
    pixel.map(|value| high - (high - value) * factor)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn saturation_moves_the_lower_channels_and_stops_at_pure_colours() {
        assert_eq!(saturated([200.0, 100.0, 150.0], 0.5), [200.0, 150.0, 175.0]);
        assert_eq!(saturated([200.0, 100.0, 150.0], 3.0), [200.0, 0.0, 100.0]);
        assert_eq!(saturated([7.0; 3], 2.0), [7.0; 3]);
    }

    #[test]
    fn colours_differ_from_draw_to_draw() {
        let image = RgbImage::new(2, 2, vec![10, 200, 30, 250, 128, 0, 77, 77, 77, 0, 0, 255]).unwrap();
        let of = |seed| distorted(image.clone(), &mut fastrand::Rng::with_seed(seed));
        assert_eq!(of(1), of(1));
        assert!((0..8).filter(|seed| of(*seed) != image).count() >= 6);
    }
}
