//! Which colour means what.

use image::{Rgb, RgbImage as Canvas};

use crate::{
    picture::{
        panel::PANEL_PX,
        text::{ADVANCE_PX, TEXT_PX, fill, write_text},
    },
    tensor::RgbImage,
};

/// Height of an entry, in pixels.
const ENTRY_PX: u32 = 28;
/// Side of a patch of colour, in pixels.
const SWATCH_PX: u32 = 20;
/// Space around things, in pixels.
const MARGIN_PX: u32 = 8;

/// A list of colours and what they mean, as high as a panel; none for no entries. Those that find no room are counted at the end.
#[must_use]
pub fn legend(entries: &[(String, [u8; 3])]) -> Option<RgbImage> {
    let room = (PANEL_PX / ENTRY_PX) as usize;
    let shown = if entries.len() > room { &entries[..room - 1] } else { entries };
    let more = (entries.len() > room).then(|| format!("and {} more", entries.len() - shown.len()));
    let longest = shown.iter().map(|(text, _)| text.as_str()).chain(more.as_deref()).map(|text| text.chars().count()).max()?;
    let text_px = u32::try_from(longest).ok()?.clamp(1, PANEL_PX) * ADVANCE_PX;
    let (left, width) = (SWATCH_PX + MARGIN_PX, SWATCH_PX + 2 * MARGIN_PX + text_px);
    let mut canvas = Canvas::from_pixel(width, PANEL_PX, Rgb([255; 3]));
    let tops = (0..).step_by(ENTRY_PX as usize);
    for (top, (text, color)) in tops.clone().zip(shown) {
        fill(&mut canvas, [0, top], [SWATCH_PX; 2], Rgb(*color));
        write_text(&mut canvas, text, [left, top + (SWATCH_PX - TEXT_PX) / 2], text_px);
    }
    for (top, text) in tops.skip(shown.len()).zip(&more) {
        write_text(&mut canvas, text, [left, top + (SWATCH_PX - TEXT_PX) / 2], text_px);
    }
    RgbImage::new(PANEL_PX, width, canvas.into_raw())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn at(image: &RgbImage, x: u32, y: u32) -> &[u8] {
        let first = 3 * (y * image.width() + x) as usize;
        &image.data()[first..first + 3]
    }

    #[test]
    fn every_entry_has_its_colour_and_what_finds_no_room_is_counted() {
        let entries = |n: u8| (0..n).map(|idx| (format!("class {idx}"), [idx, 7, 9])).collect::<Vec<_>>();
        let few = legend(&entries(3)).unwrap();
        assert_eq!((few.height(), at(&few, 2, 2), at(&few, 2, ENTRY_PX * 2 + 2)), (PANEL_PX, &[0, 7, 9][..], &[2, 7, 9][..]));
        assert_eq!(at(&few, 2, ENTRY_PX * 3 + 2), [255; 3]);
        let many = legend(&entries(40)).unwrap();
        assert_eq!((at(&many, 2, ENTRY_PX * 14 + 2), at(&many, 2, ENTRY_PX * 15 + 2)), (&[14, 7, 9][..], &[255; 3][..]));
        assert!(legend(&[]).is_none());
    }
}
