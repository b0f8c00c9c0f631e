//! Every kind of file against Pillow (tests/reference/make_images.py), and files that are none.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf};

use super::*;

const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 10_000 };
/// Lossless formats decode to the same values; alpha and 16 bits may round the other way.
const LOSSLESS: u8 = 1;
/// JPEG and lossy WebP decoders differ in the rounding of transform and colour conversion.
const LOSSY: u8 = 4;
/// CMYK to RGB is arithmetic of its own in every decoder; without a colour profile none is right.
const CMYK: u8 = 8;

fn file(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images").join(name)).unwrap()
}

fn assert_decodes(name: &str, tolerance: u8) {
    let image = decode(&file(name), &LIMITS).unwrap();
    let expected = image::load_from_memory(&file(&format!("{name}.expected.png"))).unwrap().into_rgb8();
    assert_eq!((image.height(), image.width()), (expected.height(), expected.width()), "{name}");
    assert_eq!(probe(&file(name), &LIMITS).unwrap(), (image.height(), image.width()), "{name}");
    let worst = image.data().iter().zip(expected.as_raw()).map(|(got, expected)| got.abs_diff(*expected)).max().unwrap();
    assert!(worst <= tolerance, "{name} differs by up to {worst} levels");
}

#[test]
fn every_exif_orientation_comes_out_upright() {
    (1..=8).for_each(|orientation| assert_decodes(&format!("orientation_{orientation}.jpg"), LOSSY));
}

#[test]
fn grey_alpha_palette_and_sixteen_bit_images_become_rgb() {
    for name in ["grey16.png", "rgba.png", "grey_alpha.png", "palette.png"] {
        assert_decodes(name, LOSSLESS);
    }
    assert_decodes("grey.jpg", LOSSY);
}

#[test]
fn every_format_is_decoded_and_of_animations_the_first_frame() {
    for name in ["lossless.webp", "rgb.bmp", "lzw.tif", "animated.gif"] {
        assert_decodes(name, LOSSLESS);
    }
    assert_decodes("progressive.jpg", LOSSY);
    assert_decodes("lossy.webp", LOSSY);
}

#[test]
fn cmyk_images_become_rgb() {
    assert_decodes("cmyk.jpg", CMYK);
}

#[test]
fn every_truncated_file_is_refused_and_none_panics() {
    for name in
        ["orientation_6.jpg", "progressive.jpg", "rgba.png", "lossless.webp", "lossy.webp", "rgb.bmp", "lzw.tif", "animated.gif"]
    {
        let whole = file(name);
        for n_bytes in (0..whole.len() - 2).step_by(7) {
            let outcome = decode(&whole[..n_bytes], &LIMITS);
            // Bytes behind the last pixel may be missing without harm: checksums, trailers, frames that are not shown.
            let is_harmless = n_bytes * 10 > whole.len() * 6 && !name.ends_with("jpg");
            assert!(outcome.is_err() || is_harmless, "{name} cut to {n_bytes} of {} bytes is taken", whole.len());
        }
    }
}

#[test]
fn a_header_that_claims_too_many_pixels_is_refused_before_decoding() {
    let limits = DecodeLimits { max_pixels: 16 * 24 - 1, ..LIMITS };
    let error = decode(&file("rgba.png"), &limits).unwrap_err();
    assert_eq!(error.to_string(), "has 24 x 16 = 384 pixels, the limit is 383 (limits.max_image_pixels)");
    assert!(matches!(probe(&file("rgba.png"), &limits), Err(DecodeError::TooManyPixels { .. })));
}

#[test]
fn what_is_no_image_is_named() {
    assert_eq!(decode(b"", &LIMITS).unwrap_err().to_string(), "is empty");
    assert!(matches!(decode(b"hello, world", &LIMITS), Err(DecodeError::UnknownFormat)));
    let big = vec![0; (LIMITS.max_bytes + 1) as usize];
    assert!(matches!(decode(&big, &LIMITS), Err(DecodeError::TooManyBytes { .. })));
}

#[test]
fn raw_pixels_must_fit_their_size() {
    let pixels = |height, width, data: &'static [u8]| raw(height, width, &Bytes::from_static(data), &LIMITS);
    assert_eq!(pixels(1, 2, &[1, 2, 3, 4, 5, 6]).unwrap().data(), [1, 2, 3, 4, 5, 6]);
    let short = pixels(1, 2, &[0; 5]).unwrap_err();
    assert_eq!(short.to_string(), "has 5 bytes, 2 x 1 RGB pixels need 6");
    assert_eq!(short.field(true), "image.raw.data");
    assert!(matches!(pixels(0, 2, &[0]), Err(DecodeError::RawEmpty)));
    assert!(matches!(pixels(u32::MAX, u32::MAX, &[0]), Err(DecodeError::TooManyPixels { .. })));
}
