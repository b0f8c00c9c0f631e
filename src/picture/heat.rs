//! A grid of numbers as colours.

use crate::tensor::RgbImage;

/// Stops of the scale, evenly spaced, dark to light: lightness grows steadily, so that the order shows in grey and to the colour-blind.
const STOPS: [[f32; 3]; 6] = [
    [30.0, 8.0, 60.0],
    [62.0, 48.0, 136.0],
    [42.0, 108.0, 148.0],
    [40.0, 160.0, 132.0],
    [140.0, 206.0, 80.0],
    [250.0, 236.0, 60.0],
];

/// The colours of `values`, a pixel each, the lowest dark and the highest light; `range` fixes lowest and highest. Numbers that are not
/// finite are drawn as the lowest. `None` when the values do not fill the grid.
///
/// # Shapes
/// - `values`: `[rows, cols]`, row by row
#[must_use]
pub fn heat(values: &[f32], [rows, cols]: [usize; 2], range: Option<[f32; 2]>) -> Option<RgbImage> {
    if values.len() != rows.checked_mul(cols)? {
        return None;
    }
    let [low, high] = range.unwrap_or_else(|| extremes(values));
    let span = if high > low { high - low } else { 1.0 };
    let pixels = values.iter().flat_map(|value| colour((value - low) / span)).collect();
    RgbImage::new(u32::try_from(rows).ok()?, u32::try_from(cols).ok()?, pixels)
}

fn extremes(values: &[f32]) -> [f32; 2] {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    finite.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], value| [low.min(value), high.max(value)])
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "between the stops, below 256"
)]
fn colour(share: f32) -> [u8; 3] {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let at = share * (STOPS.len() - 1) as f32;
    let idx = (at as usize).min(STOPS.len() - 2);
    let part = at - idx as f32;
    let (from, to) = (STOPS[idx], STOPS[idx + 1]);
    [0, 1, 2].map(|channel: usize| (from[channel] + part * (to[channel] - from[channel])).round() as u8)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn lightness(pixel: &[u8]) -> f32 {
        pixel.iter().zip([0.3, 0.59, 0.11]).map(|(channel, weight)| f32::from(*channel) * weight).sum()
    }

    #[test]
    fn higher_numbers_are_lighter() {
        let values: Vec<f32> = (0..32u8).map(f32::from).collect();
        let image = heat(&values, [4, 8], None).unwrap();
        let shades: Vec<f32> = image.data().chunks_exact(3).map(lightness).collect();
        assert!(shades.windows(2).all(|pair| pair[1] > pair[0]), "{shades:?}");
    }

    #[test]
    fn equal_and_broken_numbers_are_drawn_and_a_wrong_size_is_none() {
        assert_eq!(heat(&[2.0; 4], [2, 2], None).unwrap().data(), [STOPS[0].map(|of| of as u8); 4].concat());
        let broken = heat(&[f32::NAN, 0.0, 1.0, f32::INFINITY], [2, 2], None).unwrap();
        assert_eq!(broken.data()[..3], broken.data()[3..6]);
        assert!(heat(&[0.0; 3], [2, 2], None).is_none());
    }
}
