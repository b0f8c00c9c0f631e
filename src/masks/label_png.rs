//! A label map as a PNG file.

use crate::masks::{LabelMap, Labels, MaskError, Palette, column_runs::as_u32, palette::VOID_COLOR};

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
    fn colours_must_fit_the_classes() {
        let map = LabelMap::new(1, 1, 2, Labels::U8(vec![0])).unwrap();
        let error = label_png(&map, &Palette::distinct(3).unwrap()).unwrap_err();
        assert!(matches!(error, MaskError::ForeignClasses { expected: 3, n_classes: 2 }));
    }
}
