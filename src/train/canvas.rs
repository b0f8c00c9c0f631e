//! A picture that shapes and letters are drawn on.

use std::{io::Cursor, path::Path};

use embedded_graphics::{
    Pixel,
    draw_target::DrawTarget,
    geometry::{OriginDimensions, Size},
    pixelcolor::{Rgb888, RgbColor as _},
};

use crate::checkpoint;

/// A picture.
#[derive(Debug)]
pub(crate) struct Canvas(image::RgbImage);

impl Canvas {
    /// A white one.
    pub(crate) fn white(width: u32, height: u32) -> Self {
        Self(image::RgbImage::from_pixel(width, height, image::Rgb([255; 3])))
    }

    /// Writes a PNG file; it appears whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut png = Cursor::new(Vec::new());
        self.0.write_to(&mut png, image::ImageFormat::Png)?;
        checkpoint::write_bytes(path, png.get_ref())
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else { continue };
            if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
                *pixel = image::Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}
