//! Bright colours for things that are drawn over photos.

/// Turn from one colour to the next, in sixths of the wheel: the golden angle, so that neighbours differ and no colour comes back soon.
const TURN: f64 = 6.0 * 0.618_033_988_749_895;

/// So many colours that are easily told apart from each other and from most photos.
#[must_use]
pub fn hues(n: usize) -> Vec<[u8; 3]> {
    (0..n).map(|idx| full((idx as f64 * TURN) % 6.0)).collect()
}

/// The full colour at a place on the wheel, red at 0, green at 2, blue at 4.
fn full(place: f64) -> [u8; 3] {
    [0.0, 2.0, 4.0].map(|peak: f64| {
        let distance = (place - peak).abs().min(6.0 - (place - peak).abs());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u8")]
        let level = ((2.0 - distance).clamp(0.0, 1.0) * 255.0).round() as u8;
        level
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_full_and_differ() {
        assert_eq!([0.0, 1.0, 2.0, 4.0].map(full), [[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 0, 255]]);
        let colors = hues(16);
        let is_new = |idx: usize| !colors[..idx].contains(&colors[idx]);
        assert!((0..16).all(is_new), "{colors:?}");
    }
}
