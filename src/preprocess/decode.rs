//! Image files and raw bytes into upright 8-bit RGB.
//!
//! # Design
//! The header is read first: an image whose header claims more pixels than the limit is refused before a byte of it is decoded.
//! Decoding itself runs under an allocation limit, because a decoder may need more than its output.

use std::io::Cursor;

use bytes::Bytes;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, metadata::Orientation};
use thiserror::Error;

use crate::tensor::RgbImage;

/// Memory that a decoder may take per pixel of the limit: 16 bits in four channels, and as much again for its own work.
const DECODER_BYTES_PER_PIXEL: u64 = 16;

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Size of the file or of the raw pixels, in bytes.
    pub max_bytes: u64,
    /// Rows times columns.
    pub max_pixels: u64,
}

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("is empty")]
    Empty,
    /// There are too many bytes.
    #[error("has {n_bytes} bytes, the limit is {max} (limits.max_image_bytes)")]
    TooManyBytes {
        /// Bytes of the image.
        n_bytes: u64,
        /// The limit.
        max: u64,
    },
    /// There are too many pixels.
    #[error("has {width} x {height} = {n_pixels} pixels, the limit is {max} (limits.max_image_pixels)")]
    TooManyPixels {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Their product.
        n_pixels: u64,
        /// The limit.
        max: u64,
    },
    /// The bytes begin like no image file that is supported.
    #[error("is no JPEG, PNG, WebP, BMP, TIFF or GIF file")]
    UnknownFormat,
    /// The file is damaged or uses something that is not supported.
    #[error("cannot be decoded as {format}: {reason}")]
    Damaged {
        /// Name of the format.
        format: &'static str,
        /// In the decoder's words.
        reason: String,
    },
    /// Raw pixels do not fit their size.
    #[error("has {n_bytes} bytes, {width} x {height} RGB pixels need {expected}")]
    RawLength {
        /// Bytes given.
        n_bytes: usize,
        /// Bytes needed.
        expected: u64,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
    /// Raw pixels without rows or columns.
    #[error("has a side of 0 pixels")]
    RawEmpty,
}

impl DecodeError {
    /// Path of the request field at fault, inside `image`; `is_raw` tells which of the two sources it came from.
    #[must_use]
    pub fn field(&self, is_raw: bool) -> &'static str {
        match self {
            Self::RawLength { .. } => "image.raw.data",
            _ if is_raw => "image.raw",
            _ => "image.encoded",
        }
    }
}

/// Rows and columns of an image file after its orientation was applied, read from the header.
///
/// # Errors
/// [`DecodeError`] for what the header already gives away.
pub fn probe(bytes: &[u8], limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    let (mut decoder, format) = open(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().map_err(|error| damaged(format, &error))?;
    Ok(if swaps_sides(orientation) { (width, height) } else { (height, width) })
}

/// Decodes an image file: first frame, orientation applied, alpha composited on black, 8 bits a channel.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    let (mut decoder, format) = open(bytes, limits)?;
    let orientation = decoder.orientation().map_err(|error| damaged(format, &error))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| damaged(format, &error))?;
    if format == ImageFormat::Jpeg && !ends_with_marker(bytes) {
        return Err(DecodeError::Damaged { format: "JPEG", reason: "the file ends in the middle of the image".into() });
    }
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    RgbImage::new(height, width, rgb(image)).ok_or(DecodeError::Empty)
}

/// Checks and wraps raw pixels, `[height, width, 3]`, without a copy.
///
/// # Errors
/// [`DecodeError`] when the length does not fit the size, or a limit is exceeded.
pub fn raw(height: u32, width: u32, data: &Bytes, limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    check_bytes(data, limits)?;
    check_pixels(height, width, limits)?;
    let expected = u64::from(height) * u64::from(width) * 3;
    if expected == 0 {
        return Err(DecodeError::RawEmpty);
    }
    let wrong_length = DecodeError::RawLength { n_bytes: data.len(), expected, height, width };
    if data.len() as u64 != expected {
        return Err(wrong_length);
    }
    RgbImage::from_bytes(height, width, data.clone()).ok_or(wrong_length)
}

/// A decoder that has read the header, and nothing more.
fn open<'a>(bytes: &'a [u8], limits: &DecodeLimits) -> Result<(Box<dyn ImageDecoder + 'a>, ImageFormat), DecodeError> {
    check_bytes(bytes, limits)?;
    let format = image::guess_format(bytes).map_err(|_unknown| DecodeError::UnknownFormat)?;
    if name(format).is_empty() {
        return Err(DecodeError::UnknownFormat);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allocation = image::Limits::no_limits();
    allocation.max_alloc = Some(limits.max_pixels.saturating_mul(DECODER_BYTES_PER_PIXEL));
    reader.limits(allocation);
    let decoder = reader.into_decoder().map_err(|error| damaged(format, &error))?;
    let (width, height) = decoder.dimensions();
    check_pixels(height, width, limits)?;
    Ok((Box::new(decoder), format))
}

fn check_bytes(bytes: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    let n_bytes = bytes.len() as u64;
    if n_bytes == 0 {
        return Err(DecodeError::Empty);
    }
    if n_bytes > limits.max_bytes {
        return Err(DecodeError::TooManyBytes { n_bytes, max: limits.max_bytes });
    }
    Ok(())
}

fn check_pixels(height: u32, width: u32, limits: &DecodeLimits) -> Result<(), DecodeError> {
    let n_pixels = u64::from(height) * u64::from(width);
    if n_pixels > limits.max_pixels {
        return Err(DecodeError::TooManyPixels { height, width, n_pixels, max: limits.max_pixels });
    }
    Ok(())
}

fn damaged(format: ImageFormat, error: &ImageError) -> DecodeError {
    DecodeError::Damaged { format: name(format), reason: error.to_string() }
}

/// Name of a supported format, empty for others.
fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Gif => "GIF",
        _ => "",
    }
}

fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    )
}

/// Whether a JPEG file holds its end-of-image marker after the last scan. The decoder fills what is missing with grey.
///
/// Walks the segments: inside entropy-coded data `FF` is followed by `00` or a restart marker, elsewhere by a length.
fn ends_with_marker(bytes: &[u8]) -> bool {
    const START: u8 = 0xD8;
    const END: u8 = 0xD9;
    let mut at = 0;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xFF)) {
        let marker_at = at + offset + 1;
        let Some(marker) = bytes.get(marker_at) else { return false };
        match *marker {
            END => return true,
            // Filling, an escaped FF, restarts, the start.
            0xFF => at = marker_at,
            0x00 | 0x01 | 0xD0..=0xD7 | START => at = marker_at + 1,
            _ => {
                let Some(&[high, low]) = bytes.get(marker_at + 1..marker_at + 3).and_then(|length| length.first_chunk::<2>())
                else {
                    return false;
                };
                at = marker_at + 1 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// `[H, W, 3]` bytes; transparent pixels become black.
fn rgb(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_alpha() {
        return image.into_rgb8().into_raw();
    }
    let blend = |value: u8, alpha: u8| u8::try_from((u16::from(value) * u16::from(alpha) + 127) / 255).unwrap_or(u8::MAX);
    let pixels = image.into_rgba8();
    pixels.pixels().flat_map(|pixel| [0, 1, 2].map(|channel: usize| blend(pixel.0[channel], pixel.0[3]))).collect()
}

#[cfg(test)]
mod tests;
