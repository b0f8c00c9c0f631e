//! Colour jitter: brightness, contrast, saturation and hue, each by a random amount, in a random order.

use densevit::tensor::RgbImage;

/// Luma of ITU-R 601, as common image libraries weigh it.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// The image with other colours: three factors drawn from `1 ± amount`, and a hue turned by up to `amount` of a whole turn.
#[must_use]
pub fn jittered(image: RgbImage, amount: f64, random: &mut fastrand::Rng) -> RgbImage {
    jittered_by(image, [amount; 4], random)
}

/// The same with amounts for brightness, contrast, saturation and hue.
#[must_use]
pub fn jittered_by(image: RgbImage, amounts: [f64; 4], random: &mut fastrand::Rng) -> RgbImage {
    let (height, width) = (image.height(), image.width());
    let mut pixels: Vec<[f32; 3]> = image.data().chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(f32::from)).collect();
    let mut order = [0, 1, 2, 3];
    random.shuffle(&mut order);
    for change in order {
        let amount = amounts.get(change).copied().unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "a factor near 1")]
        let shift = (amount * (2.0 * random.f64() - 1.0)) as f32;
        match change {
            0 => blend(&mut pixels, 1.0 + shift, |_pixel| 0.0),
            1 => {
                #[expect(clippy::cast_precision_loss, reason = "far fewer pixels than 2^24")]
                let mean = pixels.iter().map(luma).sum::<f32>() / pixels.len().max(1) as f32;
                blend(&mut pixels, 1.0 + shift, |_pixel| mean);
            }
            2 => blend(&mut pixels, 1.0 + shift, luma),
            _ => pixels.iter_mut().for_each(|pixel| *pixel = turned(*pixel, shift)),
        }
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
    let data = pixels.iter().flat_map(|pixel| pixel.map(|value| value.round().clamp(0.0, 255.0) as u8)).collect();
    RgbImage::new(height, width, data).unwrap_or(image)
}

pub(crate) fn luma(pixel: &[f32; 3]) -> f32 {
    pixel.iter().zip(LUMA).map(|(value, weight)| value * weight).sum()
}

/// `factor` of the pixel, the rest of something else; clamped, as the next change expects colours.
fn blend(pixels: &mut [[f32; 3]], factor: f32, other: impl Fn(&[f32; 3]) -> f32) {
    for pixel in pixels {
        let rest = (1.0 - factor) * other(pixel);
        *pixel = pixel.map(|value| (factor * value + rest).clamp(0.0, 255.0));
    }
}

/// The pixel with its hue turned by a share of the whole turn; value and saturation (HSV) stay.
pub(crate) fn turned(pixel: [f32; 3], share: f32) -> [f32; 3] {
    let [red, green, blue] = pixel;
    let high = red.max(green).max(blue);
    let spread = high - red.min(green).min(blue);
    if spread <= 0.0 {
        return pixel;
    }
    let sixths = if high == red {
        (green - blue) / spread
    } else if high == green {
        2.0 + (blue - red) / spread
    } else {
        4.0 + (red - green) / spread
    };
    let hue = (sixths + 6.0 * share).rem_euclid(6.0);
    // Each channel falls from its peak to zero over two sixths of the circle and stays there for two.
    [5.0, 3.0, 1.0].map(|offset| {
        let along = (offset + hue).rem_euclid(6.0);
        high - spread * along.min(4.0 - along).clamp(0.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_a_turn_makes_green_of_red_and_leaves_grey() {
        let close = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(close(turned([200.0, 40.0, 40.0], 1.0 / 3.0), [40.0, 200.0, 40.0]));
        assert!(close(turned([200.0, 40.0, 40.0], -1.0 / 3.0), [40.0, 40.0, 200.0]));
        assert!(close(turned([90.0, 130.0, 20.0], 1.0), [90.0, 130.0, 20.0]));
        assert_eq!(turned([7.0; 3], 0.3), [7.0; 3]);
    }

    #[test]
    fn colours_change_within_bounds_and_no_amount_changes_nothing() {
        let image = RgbImage::new(2, 2, vec![10, 200, 30, 250, 128, 0, 77, 77, 77, 0, 0, 255]).unwrap_or_else(|| unreachable!());
        assert_eq!(jittered(image.clone(), 0.0, &mut fastrand::Rng::with_seed(1)), image);
        let other = jittered(image.clone(), 0.2, &mut fastrand::Rng::with_seed(1));
        assert_ne!(other, image);
        assert_eq!(other, jittered(image, 0.2, &mut fastrand::Rng::with_seed(1)));
    }
}
