//! `Propagate`: the first message into the engine's terms, answers out of them.

use crate::{
    correspond::{PropagateOptions, Shares},
    engine::{ClassMask, FirstLabels, ImageSource, InferError, MapInfo, MaskData, PropagateRequest, Segmented},
    grpc::{
        convert::{image, input_request},
        map_message::{map_header, map_request},
        pb::v1::{self as pb, propagate_response},
        segment_answer,
        segment_convert::{format, size},
        status::stream_error,
        tail::Tailed,
    },
};

/// Number of the field `PropagateResponse.masks`.
const MASKS: u32 = 2;

/// Parses the first message of a call.
///
/// # Errors
/// [`InferError::InvalidArgument`] with the path of the field at fault.
pub(super) fn propagate_request(start: pb::PropagateStart) -> Result<PropagateRequest, InferError> {
    let pb::PropagateStart { model, frame, preprocess, features, labels, options, format: as_format, size: raster } = start;
    let options = options.unwrap_or_default();
    let shares = if options.stretch { Shares::Stretched } else { Shares::Plain };
    let parsed = || {
        Ok(PropagateRequest {
            input: input_request(model, frame, preprocess)?,
            features: map_request(features)?,
            labels: first_labels(labels.unwrap_or_default())?,
            options: propagate_options(options),
            shares,
            format: format(as_format, "format")?,
            size: size(raster, "size")?,
        })
    };
    parsed().map_err(|error: InferError| error.inside("start").renamed("start.image", "start.frame"))
}

/// Parses a further frame.
///
/// # Errors
/// [`InferError::InvalidArgument`] for `frame`.
pub(super) fn frame(frame: pb::Image) -> Result<ImageSource, InferError> {
    image(Some(frame)).map_err(|error| error.renamed("image", "frame"))
}

fn propagate_options(options: pb::PropagateOptions) -> PropagateOptions {
    let default = PropagateOptions::default();
    let count = |value: Option<u32>, default: usize| value.map_or(default, |value| value as usize);
    PropagateOptions {
        n_frames: count(options.context_frames, default.n_frames),
        radius: count(options.radius, default.radius),
        top_k: count(options.top_k, default.top_k),
        temperature: options.temperature.unwrap_or(default.temperature),
    }
}

fn first_labels(labels: pb::LabelMap) -> Result<FirstLabels, InferError> {
    let pb::LabelMap { masks, png, raw } = labels;
    match (masks.is_empty(), png.is_empty(), raw.is_empty()) {
        (false, true, true) => masks.into_iter().enumerate().map(labelled_mask).collect::<Result<_, _>>().map(FirstLabels::Masks),
        (true, false, true) => Ok(FirstLabels::Png(png)),
        (true, true, false) => Ok(FirstLabels::Raw(raw)),
        (true, true, true) => Err(InferError::invalid("labels", "is required: set labels.masks, labels.png or labels.raw")),
        _ => Err(InferError::invalid("labels", "must be one of masks, png and raw")),
    }
}

fn labelled_mask((idx, mask): (usize, pb::Mask)) -> Result<ClassMask, InferError> {
    let bad = |message: &str| InferError::invalid(format!("labels.masks[{idx}]"), message);
    let data = match mask.mask {
        Some(pb::mask::Mask::Bits(bits)) => MaskData::Bits(bits),
        Some(pb::mask::Mask::Rle(runs)) => {
            MaskData::Rle(String::from_utf8(runs.into()).map_err(|_binary| bad("holds run lengths that are no text"))?)
        }
        Some(pb::mask::Mask::Polygons(_)) | None => return Err(bad("must be bits or run lengths")),
    };
    Ok(ClassMask { index: mask.class_index as usize, bounds: None, mask: data })
}

/// The answer to a frame; with its map for the first.
#[must_use]
pub(super) fn masks(frame: u64, masks: Segmented, map: Option<&MapInfo>) -> Tailed<pb::PropagateResponse> {
    let map = map.map(map_header);
    let message = |result: Option<_>| pb::PropagateResponse { frame, map, result: result.map(propagate_response::Result::Masks) };
    segment_answer::response(masks).inside(MASKS, message)
}

/// The answer to a frame that failed.
#[must_use]
pub(super) fn failure(frame: u64, error: &InferError) -> Tailed<pb::PropagateResponse> {
    pb::PropagateResponse { frame, map: None, result: Some(propagate_response::Result::Error(stream_error(error))) }.into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;

    fn start(labels: pb::LabelMap) -> pb::PropagateStart {
        let frame = pb::Image { source: Some(pb::image::Source::Encoded(Bytes::from_static(b"x"))) };
        pb::PropagateStart { frame: Some(frame), labels: Some(labels), ..Default::default() }
    }

    fn raw() -> pb::LabelMap {
        pb::LabelMap { raw: Bytes::from_static(&[1]), ..Default::default() }
    }

    #[test]
    fn empty_options_are_those_of_the_evaluations() {
        let parsed = propagate_request(start(raw())).unwrap();
        assert_eq!((parsed.options, parsed.shares), (PropagateOptions::default(), Shares::Plain));
        let none = pb::PropagateOptions { context_frames: Some(0), ..Default::default() };
        let parsed = propagate_request(pb::PropagateStart { options: Some(none), ..start(raw()) }).unwrap();
        assert_eq!(parsed.options.n_frames, 0, "zero is no default");
    }

    #[test]
    fn each_bad_field_is_named() {
        let both = pb::LabelMap { png: Bytes::from_static(b"x"), ..raw() };
        let outlines = pb::Mask { mask: Some(pb::mask::Mask::Polygons(pb::Polygons::default())), ..Default::default() };
        let binary = pb::Mask { mask: Some(pb::mask::Mask::Rle(Bytes::from_static(&[0xFF]))), ..Default::default() };
        let masks = |masks: Vec<pb::Mask>| pb::LabelMap { masks, ..Default::default() };
        let cases = [
            (start(pb::LabelMap::default()), "start.labels"),
            (start(both), "start.labels"),
            (start(masks(vec![outlines])), "start.labels.masks[0]"),
            (start(masks(vec![binary])), "start.labels.masks[0]"),
            (pb::PropagateStart { format: 99, ..start(raw()) }, "start.format"),
            (pb::PropagateStart { size: 9, ..start(raw()) }, "start.size"),
            (pb::PropagateStart { frame: None, ..start(raw()) }, "start.frame"),
        ];
        for (start, field) in cases {
            assert_eq!(propagate_request(start).unwrap_err().field(), Some(field));
        }
    }
}
