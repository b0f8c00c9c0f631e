//! The windows that slide over an image larger than the model's training size.

use crate::masks::{MaskError, MaskLimits};

/// A part of the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Left, in pixels.
    pub x: u32,
    /// Top, in pixels.
    pub y: u32,
    /// Rows, in pixels.
    pub height: u32,
    /// Columns, in pixels.
    pub width: u32,
}

/// Sizes in pixels, (height, width), all multiples of the patch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Size of a window. Where the image is smaller, windows are as small.
    pub window: [u32; 2],
    /// Distance of two windows, at most their size.
    pub stride: [u32; 2],
    /// Patch size of the model.
    pub patch: u32,
}

impl SlidingWindow {
    /// The windows on an image of (height, width) pixels, row by row. The last ones of a row or column are shifted inwards, so that all
    /// have the same size and every pixel lies in at least one.
    ///
    /// # Errors
    /// [`MaskError::Multiple`], [`MaskError::Stride`], [`MaskError::TooManyWindows`].
    pub fn windows(&self, image: [u32; 2], limits: &MaskLimits) -> Result<Vec<Window>, MaskError> {
        for (what, [height, width]) in [("image", image), ("window", self.window), ("stride", self.stride)] {
            let fits = |side: u32| side > 0 && self.patch > 0 && side.is_multiple_of(self.patch);
            if !fits(height) || !fits(width) {
                return Err(MaskError::Multiple { what, height, width, patch: self.patch });
            }
        }
        let is_gapped = |(stride, window): (&u32, &u32)| stride > window;
        if let Some((stride, window)) = self.stride.iter().zip(&self.window).find(|pair| is_gapped(*pair)) {
            return Err(MaskError::Stride { stride: *stride, window: *window });
        }
        let [n_rows, n_cols] = [0, 1].map(|axis| count(image[axis], self.window[axis], self.stride[axis]));
        let n_windows = u64::from(n_rows) * u64::from(n_cols);
        if n_windows > limits.max_windows {
            return Err(MaskError::TooManyWindows { n_windows, max: limits.max_windows });
        }
        let [height, width] = [0, 1].map(|axis| self.window[axis].min(image[axis]));
        let begin = |idx: u32, axis: usize, side: u32| (idx * self.stride[axis]).min(image[axis] - side);
        let window = |(row, col): (u32, u32)| Window { x: begin(col, 1, width), y: begin(row, 0, height), height, width };
        Ok((0..n_rows).flat_map(|row| (0..n_cols).map(move |col| (row, col))).map(window).collect())
    }
}

/// Windows along an axis.
fn count(image: u32, window: u32, stride: u32) -> u32 {
    image.saturating_sub(window).div_ceil(stride) + 1
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn sliding(window: u32, stride: u32) -> SlidingWindow {
        SlidingWindow { window: [window; 2], stride: [stride; 2], patch: 14 }
    }

    #[test]
    fn the_last_windows_are_shifted_inwards() {
        let windows = sliding(56, 42).windows([56, 112], &MaskLimits::default()).unwrap();
        // 112 = 42 + 70: windows at 0, 42, and 84 shifted to 56.
        assert_eq!(windows.iter().map(|window| (window.x, window.y)).collect::<Vec<_>>(), [(0, 0), (42, 0), (56, 0)]);
        let small = sliding(56, 42).windows([28, 42], &MaskLimits::default()).unwrap();
        assert_eq!(small, [Window { x: 0, y: 0, height: 28, width: 42 }]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let windows = |sliding: SlidingWindow, image| sliding.windows(image, &MaskLimits::default());
        assert!(matches!(windows(sliding(56, 14), [56, 57]), Err(MaskError::Multiple { what: "image", .. })));
        assert!(matches!(windows(sliding(0, 14), [56, 56]), Err(MaskError::Multiple { what: "window", .. })));
        assert!(matches!(windows(sliding(56, 15), [56, 56]), Err(MaskError::Multiple { what: "stride", .. })));
        assert!(matches!(windows(SlidingWindow { patch: 0, ..sliding(56, 14) }, [56, 56]), Err(MaskError::Multiple { .. })));
        assert!(matches!(windows(sliding(56, 70), [56, 56]), Err(MaskError::Stride { stride: 70, window: 56 })));
        let error = windows(sliding(14, 14), [14 * 17, 14 * 17]).unwrap_err();
        assert_eq!(error.to_string(), "the image needs 289 windows, the limit is 256 (limits.masks.max_windows)");
        let huge = u32::MAX / 14 * 14;
        assert!(matches!(windows(sliding(14, 14), [huge, huge]), Err(MaskError::TooManyWindows { .. })));
        assert!(windows(sliding(huge, huge), [huge, huge]).is_ok());
    }

    proptest! {
        #[test]
        fn every_patch_is_covered_and_no_window_leaves_the_image(
            (height, width) in (1u32..20, 1u32..20),
            (window, stride) in (1u32..8).prop_flat_map(|window| (Just(window), 1..=window)),
        ) {
            let image = [height * 14, width * 14];
            let limits = MaskLimits { max_windows: u64::MAX, ..Default::default() };
            let windows = sliding(window * 14, stride * 14).windows(image, &limits).unwrap();
            for window in &windows {
                prop_assert!(window.y + window.height <= image[0] && window.x + window.width <= image[1]);
                prop_assert!(window.x % 14 == 0 && window.y % 14 == 0);
            }
            for (row, col) in (0..height).flat_map(|row| (0..width).map(move |col| (row * 14, col * 14))) {
                let covers = |window: &Window| {
                    (window.y..window.y + window.height).contains(&row) && (window.x..window.x + window.width).contains(&col)
                };
                prop_assert!(windows.iter().any(covers));
            }
            let unique: std::collections::HashSet<_> = windows.iter().map(|window| (window.x, window.y)).collect();
            prop_assert_eq!(unique.len(), windows.len());
        }
    }
}
