//! Label maps as PNG files.
//!
//! # Design
//! Values are read as they are stored. Decoders for pictures would turn the palette of VOC's files into colours and scale shallow greys.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits, OutputInfo, Transformations};

use crate::masks::{LabelMap, Labels, MaskError, Palette, column_runs::as_u32, palette::VOID_COLOR};

/// Values of a PNG file of one value a pixel.
///
/// # Shapes
/// - `values`: `[rows, cols]`, row-major
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFile {
    /// The values.
    pub values: Vec<u16>,
    /// Colours of the first values; none for a file of greys.
    pub palette: Vec<[u8; 3]>,
}

impl LabelFile {
    /// Reads a file of `[rows, cols]` pixels; another size is refused before anything is decoded.
    ///
    /// # Errors
    /// [`MaskError::Unreadable`], [`MaskError::Colours`], [`MaskError::SizeMismatch`].
    pub fn read(file: &[u8], [rows, cols]: [usize; 2]) -> Result<Self, MaskError> {
        // Values of at most two bytes, and as much again for the decoder itself.
        let max_bytes = rows.saturating_mul(cols).saturating_mul(4).saturating_add(1 << 20);
        let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: max_bytes });
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(MaskError::Unreadable)?;
        let (color, _depth) = reader.output_color_type();
        if !matches!(color, ColorType::Grayscale | ColorType::Indexed) {
            return Err(MaskError::Colours);
        }
        let (file_rows, file_cols) = (reader.info().height as usize, reader.info().width as usize);
        if [file_rows, file_cols] != [rows, cols] {
            let what = "the image";
            return Err(MaskError::SizeMismatch { what, rows, cols, label_rows: file_rows, label_cols: file_cols });
        }
        let palette = reader.info().palette.as_deref().unwrap_or_default().as_chunks().0.to_vec();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap_or_default()];
        let info = reader.next_frame(&mut bytes).map_err(MaskError::Unreadable)?;
        Ok(Self { values: stored_values(&bytes, &info), palette })
    }
}

/// Values of a decoded frame of one value a pixel, as they are stored, row by row.
#[must_use]
pub fn stored_values(bytes: &[u8], info: &OutputInfo) -> Vec<u16> {
    let lines = bytes.chunks_exact(info.line_size.max(1)).take(info.height as usize);
    lines.flat_map(|line| unpacked(line, info.bit_depth).take(info.width as usize)).collect()
}

/// Values of a line; shallow ones are packed from the left.
fn unpacked(line: &[u8], depth: BitDepth) -> Box<dyn Iterator<Item = u16> + '_> {
    let n_bits = match depth {
        BitDepth::Sixteen => return Box::new(line.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair))),
        BitDepth::Eight => return Box::new(line.iter().map(|byte| u16::from(*byte))),
        BitDepth::One => 1,
        BitDepth::Two => 2,
        BitDepth::Four => 4,
    };
    let parts = move |byte: &u8| {
        let byte = u16::from(*byte);
        (0..8 / n_bits).rev().map(move |place| (byte >> (place * n_bits)) & ((1 << n_bits) - 1))
    };
    Box::new(line.iter().flat_map(parts))
}

/// The file. Pixel values are the labels: 8-bit ones with the classes' colours as palette (entry 255 is void's when no class has it),
/// 16-bit ones as grey levels without colours.
///
/// # Errors
/// [`MaskError::ForeignClasses`] when there are more or fewer colours than classes, [`MaskError::Png`].
pub fn label_png(map: &LabelMap, palette: &Palette) -> Result<Vec<u8>, MaskError> {
    palette.check(map)?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, as_u32(map.cols()), as_u32(map.rows()));
    // Labels are numbers, not levels: differences of neighbours mean nothing.
    encoder.set_filter(png::Filter::NoFilter);
    match map.labels() {
        Labels::U8(labels) => {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_depth(png::BitDepth::Eight);
            let mut colors = palette.colors().to_vec();
            colors.resize(256, VOID_COLOR);
            encoder.set_palette(colors.concat());
            write(encoder, labels)?;
        }
        Labels::U16(labels) => {
            encoder.set_color(png::ColorType::Grayscale);
            encoder.set_depth(png::BitDepth::Sixteen);
            let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_be_bytes()).collect();
            write(encoder, &bytes)?;
        }
    }
    Ok(file)
}

fn write(encoder: png::Encoder<'_, &mut Vec<u8>>, data: &[u8]) -> Result<(), MaskError> {
    let mut writer = encoder.write_header().map_err(MaskError::Png)?;
    writer.write_image_data(data).map_err(MaskError::Png)?;
    writer.finish().map_err(MaskError::Png)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn eight_bit_labels_are_indices_of_the_classes_colours() {
        let map = LabelMap::new(2, 2, 2, Labels::U8(vec![0, 1, 255, 0])).unwrap();
        let palette = Palette::new(vec![[1, 2, 3], [250, 0, 9]]).unwrap();
        let file = label_png(&map, &palette).unwrap();
        let rgb = image::load_from_memory(&file).unwrap().into_rgb8();
        assert_eq!(rgb.into_raw(), [[1, 2, 3], [250, 0, 9], VOID_COLOR, [1, 2, 3]].concat());
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        assert_eq!(reader.output_color_type(), (png::ColorType::Indexed, png::BitDepth::Eight));
        let mut labels = [0; 4];
        reader.next_frame(&mut labels).unwrap();
        assert_eq!(labels, [0, 1, 255, 0]);
    }

    #[test]
    fn more_classes_are_sixteen_bit_grey() {
        let map = LabelMap::new(1, 3, 300, Labels::U16(vec![299, 65_535, 7])).unwrap();
        let file = label_png(&map, &Palette::distinct(300).unwrap()).unwrap();
        let image::DynamicImage::ImageLuma16(grey) = image::load_from_memory(&file).unwrap() else { panic!("not 16-bit grey") };
        assert_eq!(grey.into_raw(), [299, 65_535, 7]);
    }

    #[test]
    fn what_was_written_is_read_and_other_sizes_and_colours_are_refused() {
        let map = LabelMap::new(2, 2, 2, Labels::U8(vec![0, 1, 255, 0])).unwrap();
        let palette = Palette::new(vec![[1, 2, 3], [250, 0, 9]]).unwrap();
        let file = label_png(&map, &palette).unwrap();
        let read = LabelFile::read(&file, [2, 2]).unwrap();
        assert_eq!((read.values, &read.palette[..2]), (vec![0, 1, 255, 0], palette.colors()));
        let error = LabelFile::read(&file, [2, 3]).unwrap_err();
        assert_eq!(error.to_string(), "the image has 2 x 3 pixels (height x width), the labels have 2 x 2");
        assert!(matches!(LabelFile::read(&file[..40], [2, 2]), Err(MaskError::Unreadable(_))));
        let mut photo = Cursor::new(Vec::new());
        image::RgbImage::new(2, 2).write_to(&mut photo, image::ImageFormat::Png).unwrap();
        assert!(matches!(LabelFile::read(photo.get_ref(), [2, 2]), Err(MaskError::Colours)));
    }

    #[test]
    fn shallow_values_are_read_one_by_one() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 3, 2);
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(BitDepth::Four);
        encoder.set_palette([[0; 3], [9; 3]].concat());
        encoder.write_header().unwrap().write_image_data(&[0x01, 0x20, 0x34, 0x50]).unwrap();
        let read = LabelFile::read(&file, [2, 3]).unwrap();
        assert_eq!((read.values, read.palette), (vec![0, 1, 2, 3, 4, 5], vec![[0; 3], [9; 3]]));
    }

    #[test]
    fn colours_must_fit_the_classes() {
        let map = LabelMap::new(1, 1, 2, Labels::U8(vec![0])).unwrap();
        let error = label_png(&map, &Palette::distinct(3).unwrap()).unwrap_err();
        assert!(matches!(error, MaskError::ForeignClasses { expected: 3, n_classes: 2 }));
    }
}
