//! Images as the data sets store them.

use std::{io::Cursor, path::Path};

use densevit::tensor::RgbImage;
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};

use crate::checkpoint;

/// Quality of the files: above that of the data sets, so that what is measured are features and not blocks.
const QUALITY: u8 = 95;

/// Writes a JPEG file.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, image: &RgbImage) -> anyhow::Result<()> {
    let mut file = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut file, QUALITY).encode(
        image.data(),
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    )?;
    checkpoint::write_bytes(path, file.get_ref())
}
