//! A photo under the colours of its classes.

use crate::{
    masks::{LabelMap, Labels, MaskError, Palette, label_map::Label},
    tensor::RgbImage,
};

/// How labels are drawn on a photo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverlayStyle {
    /// Share of the class's colour in a pixel, 0 to 1. Default 0.5.
    pub opacity: f32,
    /// Colour of the pixels to the left of and above a border between two labels; `None`: borders are not drawn. Default white.
    pub border: Option<[u8; 3]>,
}

impl Default for OverlayStyle {
    fn default() -> Self {
        Self { opacity: 0.5, border: Some([255; 3]) }
    }
}

/// Draws labels on a photo of their size. Void pixels show the photo.
///
/// # Errors
/// [`MaskError::SizeMismatch`], [`MaskError::ForeignClasses`] when there are more or fewer colours than classes,
/// [`MaskError::Opacity`].
pub fn overlay(photo: &RgbImage, map: &LabelMap, palette: &Palette, style: &OverlayStyle) -> Result<RgbImage, MaskError> {
    palette.check(map)?;
    if !(0.0..=1.0).contains(&style.opacity) {
        return Err(MaskError::Opacity { opacity: style.opacity });
    }
    let (rows, cols) = (photo.height() as usize, photo.width() as usize);
    let mismatch = MaskError::SizeMismatch { what: "the photo", rows, cols, label_rows: map.rows(), label_cols: map.cols() };
    if (rows, cols) != (map.rows(), map.cols()) {
        return Err(mismatch);
    }
    let mut pixels = photo.data().to_vec();
    match map.labels() {
        Labels::U8(labels) => draw(&mut pixels, labels, cols, palette, style),
        Labels::U16(labels) => draw(&mut pixels, labels, cols, palette, style),
    }
    RgbImage::new(photo.height(), photo.width(), pixels).ok_or(mismatch)
}

fn draw<T: Label>(pixels: &mut [u8], labels: &[T], cols: usize, palette: &Palette, style: &OverlayStyle) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 256")]
    let share = (style.opacity * 256.0).round() as u32;
    for (idx, label) in labels.iter().enumerate() {
        let is_last_col = (idx + 1) % cols == 0;
        let differs = |beside: Option<&T>| beside.is_some_and(|beside| beside != label);
        let is_border = (!is_last_col && differs(labels.get(idx + 1))) || differs(labels.get(idx + cols));
        let pixel = &mut pixels[3 * idx..3 * idx + 3];
        if let Some(color) = style.border.filter(|_| is_border) {
            pixel.copy_from_slice(&color);
        } else if let Some(color) = palette.color((*label).into()) {
            blend(pixel, color, share);
        }
    }
}

/// Mixes `share` 256ths of a colour into a pixel.
fn blend(pixel: &mut [u8], color: [u8; 3], share: u32) {
    for (channel, level) in pixel.iter_mut().enumerate() {
        let mixed = u32::from(*level) * (256 - share) + u32::from(color[channel]) * share;
        #[expect(clippy::cast_possible_truncation, reason = "between two levels")]
        let mixed = ((mixed + 128) / 256) as u8;
        *level = mixed;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn photo() -> RgbImage {
        RgbImage::new(2, 3, vec![100; 18]).unwrap()
    }

    fn map() -> LabelMap {
        LabelMap::new(2, 3, 2, Labels::U8(vec![0, 0, 1, 0, 0, 255])).unwrap()
    }

    fn palette() -> Palette {
        Palette::new(vec![[200, 0, 100], [0, 50, 0]]).unwrap()
    }

    #[test]
    fn classes_tint_the_photo_and_void_does_not() {
        let style = OverlayStyle { opacity: 0.25, border: None };
        let drawn = overlay(&photo(), &map(), &palette(), &style).unwrap();
        let (first, second, void) = ([125, 75, 100], [75, 88, 75], [100; 3]);
        assert_eq!(drawn.data(), [first, first, second, first, first, void].concat());
    }

    #[test]
    fn borders_are_drawn_before_the_label_that_follows() {
        let style = OverlayStyle { opacity: 0.0, border: Some([1, 2, 3]) };
        let drawn = overlay(&photo(), &map(), &palette(), &style).unwrap();
        let (plain, border) = ([100; 3], [1, 2, 3]);
        assert_eq!(drawn.data(), [plain, border, border, plain, border, plain].concat());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let style = OverlayStyle::default();
        let small = RgbImage::new(1, 3, vec![0; 9]).unwrap();
        let error = overlay(&small, &map(), &palette(), &style).unwrap_err();
        assert_eq!(error.to_string(), "the photo has 1 x 3 pixels (height x width), the labels have 2 x 3");
        assert!(overlay(&photo(), &map(), &Palette::distinct(3).unwrap(), &style).is_err());
        for opacity in [-0.1, 1.1, f32::NAN] {
            let style = OverlayStyle { opacity, ..style };
            assert!(matches!(overlay(&photo(), &map(), &palette(), &style), Err(MaskError::Opacity { .. })));
        }
    }
}
