//! Protobuf segmentation requests into the engine's terms. Every check that needs neither the model nor the image is here.

use crate::{
    engine::{InferError, MaskFormat, MaskRequest, MaskSize, SegmentRequest, WindowRequest},
    grpc::convert::{feature_request, input_request, known, rect},
    grpc::pb::v1 as pb,
};

/// Parses a request for masks.
///
/// # Errors
/// [`InferError::InvalidArgument`] with the path of the field at fault.
pub(super) fn segment_request(request: pb::SegmentRequest) -> Result<SegmentRequest, InferError> {
    Ok(SegmentRequest {
        input: input_request(request.model, request.image, request.preprocess)?,
        masks: mask_request(request.masks.unwrap_or_default())?,
        features: request.features.map(feature_request).transpose()?,
    })
}

fn mask_request(masks: pb::SegmentOptions) -> Result<MaskRequest, InferError> {
    let format = format(masks.format, "masks.format")?;
    let is_per_class = matches!(format, MaskFormat::Bits | MaskFormat::Rle | MaskFormat::Polygons);
    if !(0.0..=1.0).contains(&masks.min_score) {
        return Err(InferError::invalid("masks.min_score", format!("{} lies outside [0, 1]", masks.min_score)));
    }
    if let Some(threshold) = masks.threshold {
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(InferError::invalid("masks.threshold", format!("{threshold} lies outside (0, 1]")));
        }
        if !is_per_class {
            return Err(InferError::invalid("masks.threshold", "needs one mask a class: format BITS, RLE or POLYGONS"));
        }
    }
    let tolerance = masks.tolerance;
    if !(tolerance >= 0.0 && tolerance.is_finite()) || (tolerance > 0.0 && format != MaskFormat::Polygons) {
        return Err(InferError::invalid("masks.tolerance", "must be finite, not negative, and is for format POLYGONS only"));
    }
    Ok(MaskRequest {
        format,
        size: size(masks.size, "masks.size")?,
        region: masks.region.map(|region| rect(region, "masks.region")).transpose()?,
        classes: masks.classes,
        class_indices: masks.class_indices,
        min_score: masks.min_score,
        threshold: masks.threshold,
        tolerance,
        keep_empty: masks.keep_empty,
        windows: masks.windows.map_or(Ok(WindowRequest::Automatic), windows)?,
        with_scores: false,
    })
}

/// A format of masks.
pub(super) fn format(value: i32, field: &str) -> Result<MaskFormat, InferError> {
    Ok(match known::<pb::MaskFormat>(value, field)? {
        pb::MaskFormat::Unspecified | pb::MaskFormat::Labels => MaskFormat::Labels,
        pb::MaskFormat::Scores => MaskFormat::Scores,
        pb::MaskFormat::Bits => MaskFormat::Bits,
        pb::MaskFormat::Rle => MaskFormat::Rle,
        pb::MaskFormat::Polygons => MaskFormat::Polygons,
        pb::MaskFormat::Png => MaskFormat::Png,
        pb::MaskFormat::None => MaskFormat::Nothing,
    })
}

/// A raster of masks.
pub(super) fn size(value: i32, field: &str) -> Result<MaskSize, InferError> {
    Ok(match known::<pb::MaskSize>(value, field)? {
        pb::MaskSize::Unspecified | pb::MaskSize::Image => MaskSize::Image,
        pb::MaskSize::Scores => MaskSize::Scores,
    })
}

fn windows(windows: pb::Windows) -> Result<WindowRequest, InferError> {
    let sides = |size: pb::Size| [size.height, size.width];
    match (windows.whole, windows.size, windows.stride) {
        (true, None, None) => Ok(WindowRequest::Whole),
        (true, ..) => Err(InferError::invalid("masks.windows.whole", "excludes size and stride")),
        (false, size, stride) => Ok(WindowRequest::Tiles { size: size.map(sides), stride: stride.map(sides) }),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;

    fn parse(masks: pb::SegmentOptions) -> Result<SegmentRequest, InferError> {
        let image = pb::Image { source: Some(pb::image::Source::Encoded(Bytes::from_static(b"x"))) };
        segment_request(pb::SegmentRequest { image: Some(image), masks: Some(masks), ..Default::default() })
    }

    #[test]
    fn empty_options_ask_for_labels_of_the_image_in_windows_as_needed() {
        let masks = parse(pb::SegmentOptions::default()).unwrap().masks;
        assert_eq!((masks.format, masks.size, masks.windows), (MaskFormat::Labels, MaskSize::Image, WindowRequest::Automatic));
        assert!(masks.threshold.is_none() && masks.region.is_none() && masks.classes.is_empty());
    }

    #[test]
    fn each_bad_field_is_named() {
        let options = pb::SegmentOptions::default;
        let rle = pb::MaskFormat::Rle as i32;
        let cases = [
            (pb::SegmentOptions { format: 99, ..options() }, "masks.format"),
            (pb::SegmentOptions { size: 9, ..options() }, "masks.size"),
            (pb::SegmentOptions { min_score: 1.5, ..options() }, "masks.min_score"),
            (pb::SegmentOptions { min_score: f32::NAN, ..options() }, "masks.min_score"),
            (pb::SegmentOptions { threshold: Some(0.0), format: rle, ..options() }, "masks.threshold"),
            (pb::SegmentOptions { threshold: Some(0.5), ..options() }, "masks.threshold"),
            (pb::SegmentOptions { tolerance: 1.0, ..options() }, "masks.tolerance"),
            (pb::SegmentOptions { tolerance: f32::INFINITY, ..options() }, "masks.tolerance"),
            (pb::SegmentOptions { region: Some(pb::Box::default()), ..options() }, "masks.region"),
            (
                pb::SegmentOptions {
                    windows: Some(pb::Windows { whole: true, size: Some(pb::Size::default()), stride: None }),
                    ..options()
                },
                "masks.windows.whole",
            ),
        ];
        for (options, field) in cases {
            assert_eq!(parse(options).unwrap_err().field(), Some(field));
        }
    }
}
