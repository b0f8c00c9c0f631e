//! Maps of labels: PNG files of one value a pixel, as classes.
//!
//! # Design
//! Values are taken as they are stored. Decoders for pictures would turn the palette of VOC's files into colours and scale shallow greys.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use png::{ColorType, Decoder, Limits, Transformations};

use crate::{
    data::photos,
    segmentation::data::{
        DataError,
        classes::{Classes, IGNORED},
        layout::Sample,
    },
};
use densevit::{masks::stored_values, tensor::RgbImage};

/// Most bytes of a decoded map.
const MAX_BYTES: usize = 1 << 29;

/// Classes of an image's pixels.
///
/// # Shapes
/// - `data`: `[height, width]` u8, row-major: class, or [`IGNORED`]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Rows, in pixels.
    pub height: u32,
    /// Columns, in pixels.
    pub width: u32,
    /// The pixels.
    pub data: Vec<u8>,
}

impl Labels {
    /// Reads a file of labels.
    ///
    /// # Errors
    /// [`DataError`], naming the file: it cannot be read, is no PNG of one value a pixel, or holds a value that is no class.
    pub fn read(path: &Path, classes: &Classes) -> Result<Self, DataError> {
        let (height, width, values) = values(path)?;
        let mut data = Vec::with_capacity(values.len());
        for (place, value) in values.into_iter().enumerate() {
            let Some(class) = classes.of(value) else {
                let (row, col) = (place / width as usize, place % width as usize);
                return Err(DataError::Value { path: path.to_path_buf(), value, row, col });
            };
            data.push(class);
        }
        Ok(Self { height, width, data })
    }

    /// The label of the pixel whose centre is nearest to a point, in pixels; the border goes on outside.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the map")]
    pub fn at(&self, y: f64, x: f64) -> u8 {
        let clamped = |value: f64, extent: u32| value.clamp(0.0, f64::from(extent.saturating_sub(1))) as usize;
        let place = clamped(y, self.height) * self.width as usize + clamped(x, self.width);
        self.data.get(place).copied().unwrap_or(IGNORED)
    }
}

impl Sample {
    /// Decodes the image and reads its labels.
    ///
    /// # Errors
    /// [`DataError`], naming the file; another size of image and labels is one.
    pub fn open(&self, classes: &Classes) -> Result<(RgbImage, Labels), DataError> {
        let image = photos::open(&self.image).map_err(|problem| DataError::Image { path: self.image.clone(), problem })?;
        let labels = Labels::read(&self.labels, classes)?;
        let (got, expected) = ([labels.height, labels.width], [image.height(), image.width()]);
        if got != expected {
            return Err(DataError::Size { labels: self.labels.clone(), image: self.image.clone(), got, expected });
        }
        Ok((image, labels))
    }
}

/// Rows, columns and values of a PNG file.
pub(crate) fn values(path: &Path) -> Result<(u32, u32, Vec<u16>), DataError> {
    let bad = |problem: String| DataError::Labels { path: PathBuf::from(path), problem };
    let file = File::open(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let mut decoder = Decoder::new_with_limits(BufReader::new(file), Limits { bytes: MAX_BYTES });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(|error| bad(format!("is no PNG file: {error}")))?;
    let (color, _depth) = reader.output_color_type();
    if !matches!(color, ColorType::Grayscale | ColorType::Indexed) {
        return Err(bad(format!("holds colours ({color:?}), not one value a pixel")));
    }
    let n_bytes = reader.output_buffer_size().ok_or_else(|| bad("is too large".into()))?;
    let mut bytes = vec![0; n_bytes];
    let info = reader.next_frame(&mut bytes).map_err(|error| bad(format!("is damaged: {error}")))?;
    Ok((info.height, info.width, stored_values(&bytes, &info)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use png::BitDepth;

    use super::*;

    fn write(path: &Path, color: ColorType, depth: BitDepth, size: [u32; 2], bytes: &[u8]) {
        let mut encoder = png::Encoder::new(File::create(path).unwrap(), size[1], size[0]);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![7; 48]);
        }
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
    }

    fn classes() -> Classes {
        let rows: Vec<String> = (0..16).map(|value| format!("{{ name = '{value}', color = [0, 0, 0] }}")).collect();
        Classes::parse(&format!("ignore = [255, 300]\nclass = [{}]", rows.join(", ")), Path::new("c")).unwrap()
    }

    #[test]
    fn values_are_read_as_stored_whatever_the_depth() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let read = || Labels::read(&path, &classes()).unwrap().data;
        write(&path, ColorType::Indexed, BitDepth::Eight, [2, 3], &[0, 1, 2, 15, 255, 4]);
        assert_eq!(read(), [0, 1, 2, 15, 255, 4]);
        write(&path, ColorType::Indexed, BitDepth::Four, [2, 3], &[0x12, 0x30, 0x4F, 0x50]);
        assert_eq!(read(), [1, 2, 3, 4, 15, 5]);
        write(&path, ColorType::Grayscale, BitDepth::One, [1, 3], &[0b1010_0000]);
        assert_eq!(read(), [1, 0, 1]);
        write(&path, ColorType::Grayscale, BitDepth::Sixteen, [1, 2], &[0, 9, 1, 44]);
        assert_eq!(read(), [9, IGNORED]);
    }

    #[test]
    fn other_files_and_values_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let refused = || Labels::read(&path, &classes()).unwrap_err().to_string();
        assert!(refused().contains("a.png"));
        std::fs::write(&path, "no picture").unwrap();
        assert!(refused().contains("a.png: is no PNG file"), "{}", refused());
        write(&path, ColorType::Rgb, BitDepth::Eight, [1, 1], &[1, 2, 3]);
        assert!(refused().contains("holds colours"), "{}", refused());
        write(&path, ColorType::Grayscale, BitDepth::Eight, [2, 3], &[0, 1, 2, 3, 4, 16]);
        assert!(refused().contains("a.png holds label 16 at row 1, column 2"), "{}", refused());
    }

    #[test]
    fn the_nearest_pixel_is_found_and_the_border_goes_on() {
        let labels = Labels { height: 2, width: 2, data: vec![1, 2, 3, 4] };
        assert_eq!([labels.at(0.2, 0.9), labels.at(1.1, 1.9), labels.at(-3.0, 5.0)], [1, 4, 2]);
    }
}
