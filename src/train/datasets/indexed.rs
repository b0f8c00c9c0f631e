//! Masks as PNG files with a palette: a value an object or a class, 0 for the background, in VOC's colours.

use std::path::Path;

use anyhow::{Context as _, ensure};
use densevit::masks::{LabelMap, Labels as Values, Palette, label_png};

use crate::{
    checkpoint,
    segmentation::data::labels::{Labels, values},
};

/// Objects that a palette has colours for; 255 is void.
const N_COLORS: usize = 255;

/// Black, then VOC's colours.
///
/// # Errors
/// Never: there are as many colours as a palette may have.
pub fn palette() -> anyhow::Result<Palette> {
    let mut colors = vec![[0; 3]];
    colors.extend_from_slice(Palette::distinct(N_COLORS - 1)?.colors());
    Ok(Palette::new(colors)?)
}

/// Writes a mask.
///
/// # Errors
/// When the file cannot be written, or the mask does not fill its size.
pub fn write(path: &Path, labels: &Labels) -> anyhow::Result<()> {
    let values = Values::U8(labels.data.clone());
    let map = LabelMap::new(labels.height as usize, labels.width as usize, N_COLORS, values)?;
    checkpoint::write_bytes(path, &label_png(&map, &palette()?)?)
}

/// Reads a mask as it is stored, whatever its palette.
///
/// # Errors
/// When the file cannot be read or holds values above 255.
pub fn read(path: &Path) -> anyhow::Result<Labels> {
    let (height, width, values) = values(path)?;
    let largest = values.iter().max().copied().unwrap_or_default();
    ensure!(largest <= 255, "{} holds the value {largest}; masks have 0 to 255", path.display());
    let data = values.into_iter().map(u8::try_from).collect::<Result<_, _>>().context("values are too large")?;
    Ok(Labels { height, width, data })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn masks_come_back_as_they_were_in_the_colours_of_voc() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let labels = Labels { height: 2, width: 3, data: vec![0, 1, 2, 15, 255, 0] };
        write(&path, &labels).unwrap();
        assert_eq!(read(&path).unwrap(), labels);
        let colours = image::open(&path).unwrap().into_rgb8();
        let at = |x, y| colours.get_pixel(x, y).0;
        // Background, aeroplane, bicycle, person.
        assert_eq!([at(0, 0), at(1, 0), at(2, 0), at(0, 1)], [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128]]);
    }
}
