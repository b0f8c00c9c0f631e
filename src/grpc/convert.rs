//! Protobuf requests into the engine's terms. Every check that needs neither the model nor the image is here.

use crate::{
    engine::{ExtractRequest, FeatureRequest, ImageSource, InferError, InputRequest, ModelSelector, Part},
    grpc::pb::v1 as pb,
    manifest::{Facet, Interpolation, ResizePolicy},
    postprocess::{DType, Layout},
    preprocess::Rect,
};

/// Parses a request for features.
///
/// # Errors
/// [`InferError::InvalidArgument`] with the path of the field at fault.
pub fn extract_request(request: pb::ExtractRequest) -> Result<ExtractRequest, InferError> {
    Ok(ExtractRequest {
        input: input_request(request.model, request.image, request.preprocess)?,
        features: feature_request(request.features.unwrap_or_default())?,
    })
}

/// Parses what model, image and preparation are.
pub(super) fn input_request(
    model: Option<pb::ModelRef>,
    source: Option<pb::Image>,
    preprocess: Option<pb::Preprocess>,
) -> Result<InputRequest, InferError> {
    let preprocess = preprocess.unwrap_or_default();
    let interpolation = interpolation(preprocess.interpolation)?;
    Ok(InputRequest {
        model: model_selector(model),
        image: image(source)?,
        resize: preprocess.resize.map(resize).transpose()?,
        interpolation,
        crop: preprocess.crop.map(|crop| rect(crop, "preprocess.crop")).transpose()?,
    })
}

/// Parses which features are wanted.
pub(super) fn feature_request(features: pb::FeatureOptions) -> Result<FeatureRequest, InferError> {
    Ok(FeatureRequest {
        facet: facet(features.facet)?,
        layer: features.layer,
        lift_passes: features.lift_passes,
        dtype: dtype(features.dtype)?,
        layout: layout(features.layout)?,
        l2_normalize: features.l2_normalize,
        part: part(features.region, &features.points)?,
        cls_token: features.cls_token,
        register_tokens: features.register_tokens,
    })
}

/// Parses a model reference; none means the default model.
#[must_use]
pub fn model_selector(model: Option<pb::ModelRef>) -> ModelSelector {
    let model = model.unwrap_or_default();
    ModelSelector { name: model.name, version: model.version }
}

pub(super) fn image(image: Option<pb::Image>) -> Result<ImageSource, InferError> {
    let source = image.and_then(|image| image.source);
    match source.ok_or_else(|| InferError::invalid("image", "is required: set image.encoded or image.raw"))? {
        pb::image::Source::Encoded(data) => Ok(ImageSource::Encoded(data)),
        pb::image::Source::Raw(raw) => Ok(ImageSource::Raw { height: raw.height, width: raw.width, data: raw.data }),
    }
}

fn resize(resize: pb::preprocess::Resize) -> Result<ResizePolicy, InferError> {
    Ok(match resize {
        pb::preprocess::Resize::Exact(pb::Size { height, width }) => ResizePolicy::Exact { height, width },
        pb::preprocess::Resize::Letterbox(pb::Size { height, width }) => ResizePolicy::Letterbox { height, width },
        pb::preprocess::Resize::ShortSide(pixels) => ResizePolicy::ShortSide { pixels },
        pb::preprocess::Resize::Native(true) => ResizePolicy::Native,
        pb::preprocess::Resize::Native(false) => {
            return Err(InferError::invalid("preprocess.native", "must be true when it is set; leave it out for another policy"));
        }
    })
}

pub(super) fn rect(rect: pb::Box, field: &str) -> Result<Rect, InferError> {
    let pb::Box { x, y, width, height } = rect;
    let is_finite = [x, y, width, height].iter().all(|value| value.is_finite());
    if !is_finite || width <= 0.0 || height <= 0.0 {
        return Err(InferError::invalid(field, "needs finite numbers and a positive width and height"));
    }
    Ok(Rect { x, y, width, height })
}

fn part(region: Option<pb::Box>, points: &[pb::Point]) -> Result<Part, InferError> {
    match (region, points) {
        (None, []) => Ok(Part::All),
        (Some(region), []) => Ok(Part::Region(rect(region, "features.region")?)),
        (Some(_), [_, ..]) => Err(InferError::invalid("features.points", "cannot be combined with features.region")),
        (None, points) => finite_points("features.points", points).map(Part::Points),
    }
}

/// Points of numbers.
pub(super) fn finite_points(field: &str, points: &[pb::Point]) -> Result<Vec<[f64; 2]>, InferError> {
    let odd = points.iter().position(|point| !point.x.is_finite() || !point.y.is_finite());
    match odd {
        Some(idx) => Err(InferError::invalid(format!("{field}[{idx}]"), "needs finite coordinates")),
        None => Ok(points.iter().map(|point| [point.x, point.y]).collect()),
    }
}

fn facet(value: i32) -> Result<Option<Facet>, InferError> {
    match known::<pb::Facet>(value, "features.facet")? {
        pb::Facet::Unspecified => Ok(None),
        pb::Facet::Key => Ok(Some(Facet::Key)),
        pb::Facet::Query => Ok(Some(Facet::Query)),
        pb::Facet::Value => Ok(Some(Facet::Value)),
        pb::Facet::Token => Ok(Some(Facet::Token)),
        pb::Facet::NormToken => Ok(Some(Facet::NormToken)),
    }
}

fn dtype(value: i32) -> Result<DType, InferError> {
    match known::<pb::DType>(value, "features.dtype")? {
        pb::DType::DtypeUnspecified | pb::DType::DtypeF32 => Ok(DType::F32),
        pb::DType::DtypeF16 => Ok(DType::F16),
        pb::DType::DtypeI8 => Ok(DType::I8),
    }
}

fn layout(value: i32) -> Result<Layout, InferError> {
    match known::<pb::Layout>(value, "features.layout")? {
        pb::Layout::Unspecified | pb::Layout::Hwc => Ok(Layout::Hwc),
        pb::Layout::Chw => Ok(Layout::Chw),
    }
}

fn interpolation(value: i32) -> Result<Option<Interpolation>, InferError> {
    match known::<pb::Interpolation>(value, "preprocess.interpolation")? {
        pb::Interpolation::Unspecified => Ok(None),
        pb::Interpolation::Nearest => Ok(Some(Interpolation::Nearest)),
        pb::Interpolation::Bilinear => Ok(Some(Interpolation::Bilinear)),
        pb::Interpolation::Bicubic => Ok(Some(Interpolation::Bicubic)),
        pb::Interpolation::Lanczos => Ok(Some(Interpolation::Lanczos)),
    }
}

/// An enum value of the protocol, or an error for a number that this version does not know.
pub(super) fn known<T: TryFrom<i32>>(value: i32, field: &str) -> Result<T, InferError> {
    T::try_from(value).map_err(|_unknown| InferError::invalid(field, format!("{value} is not a value of this enum")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;

    fn request(features: pb::FeatureOptions, preprocess: pb::Preprocess) -> pb::ExtractRequest {
        let image = pb::Image { source: Some(pb::image::Source::Encoded(Bytes::from_static(b"x"))) };
        pb::ExtractRequest { model: None, image: Some(image), preprocess: Some(preprocess), features: Some(features) }
    }

    #[test]
    fn empty_options_leave_every_choice_to_the_model() {
        let parsed = extract_request(request(pb::FeatureOptions::default(), pb::Preprocess::default())).unwrap();
        let ExtractRequest { input, features } = parsed;
        assert_eq!((features.facet, features.layer, features.lift_passes, input.resize), (None, None, None, None));
        assert_eq!((features.dtype, features.layout, features.part), (DType::F32, Layout::Hwc, Part::All));
        assert_eq!(input.model, ModelSelector::default());
    }

    #[test]
    fn each_bad_field_is_named() {
        let nan = pb::Point { x: f64::NAN, y: 0.0 };
        let point = pb::Point { x: 1.0, y: 1.0 };
        let flat = pb::Box { x: 0.0, y: 0.0, width: 0.0, height: 4.0 };
        let whole = pb::Box { x: 0.0, y: 0.0, width: 4.0, height: 4.0 };
        let features = pb::FeatureOptions::default;
        let preprocess = pb::Preprocess::default;
        let cases = [
            (request(pb::FeatureOptions { facet: 99, ..features() }, preprocess()), "features.facet"),
            (request(pb::FeatureOptions { dtype: -1, ..features() }, preprocess()), "features.dtype"),
            (request(pb::FeatureOptions { layout: 7, ..features() }, preprocess()), "features.layout"),
            (request(pb::FeatureOptions { points: vec![point, nan], ..features() }, preprocess()), "features.points[1]"),
            (request(pb::FeatureOptions { region: Some(flat), ..features() }, preprocess()), "features.region"),
            (
                request(pb::FeatureOptions { region: Some(whole), points: vec![point], ..features() }, preprocess()),
                "features.points",
            ),
            (request(features(), pb::Preprocess { crop: Some(flat), ..preprocess() }), "preprocess.crop"),
            (request(features(), pb::Preprocess { interpolation: 42, ..preprocess() }), "preprocess.interpolation"),
            (
                request(features(), pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(false)), ..preprocess() }),
                "preprocess.native",
            ),
            (pb::ExtractRequest::default(), "image"),
        ];
        for (request, field) in cases {
            assert_eq!(extract_request(request).unwrap_err().field(), Some(field));
        }
    }
}
