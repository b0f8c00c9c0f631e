//! What of a request decides its answer, for the cache.
//!
//! # Design
//! Every request type is taken apart without `..`: a field that is added later does not compile here before it was decided whether it
//! belongs. The model is the one that was found, by name, version and digest, whatever the caller wrote. Deadline, priority, ids and (unless
//! the configuration says so) the tenant decide when an answer comes, not what it is; they are no part of requests at all.

use bytes::Bytes;

use crate::{
    batch::Tenant,
    cache::{Fields, Question},
    engine::{
        ExtractRequest, FeatureRequest, ImageSource, InputRequest, LoadedModel, MaskFormat, MaskRequest, MaskSize, Part,
        SegmentRequest, WindowRequest,
    },
    manifest::{Facet, Interpolation, ResizePolicy},
    postprocess::{DType, Layout},
    preprocess::Rect,
};

/// A request that can be told from all others.
pub(super) trait Ask {
    /// The image as it came.
    fn image(&self) -> &ImageSource;

    /// Everything else but the model.
    fn write(&self, fields: &mut Fields);
}

/// What a request asks of a model. With a tenant, its answer is that tenant's own.
pub(super) fn question(request: &impl Ask, model: &LoadedModel, tenant: Option<Tenant>) -> Question {
    let manifest = model.manifest();
    question_of(request, (&manifest.name, manifest.version, model.digest()), tenant)
}

fn question_of(request: &impl Ask, (name, version, digest): (&str, u32, &str), tenant: Option<Tenant>) -> Question {
    let mut fields = Fields::default();
    fields.text(name);
    fields.number(version);
    fields.text(digest);
    fields.option(tenant, |fields, tenant| fields.text(tenant.as_str()));
    let contents: &Bytes = match request.image() {
        ImageSource::Encoded(data) => {
            fields.number(0u8);
            data
        }
        ImageSource::Raw { height, width, data } => {
            fields.number(1u8);
            fields.number(*height);
            fields.number(*width);
            data
        }
    };
    request.write(&mut fields);
    Question::new(fields, contents)
}

impl Ask for ExtractRequest {
    fn image(&self) -> &ImageSource {
        &self.input.image
    }

    fn write(&self, fields: &mut Fields) {
        let Self { input, features } = self;
        fields.text("extract");
        write_input(fields, input);
        write_features(fields, features);
    }
}

impl Ask for SegmentRequest {
    fn image(&self) -> &ImageSource {
        &self.input.image
    }

    fn write(&self, fields: &mut Fields) {
        let Self { input, masks, features } = self;
        fields.text("segment");
        write_input(fields, input);
        write_masks(fields, masks);
        fields.option(features.as_ref(), write_features);
    }
}

fn write_input(fields: &mut Fields, input: &InputRequest) {
    // The model that was found and the image are written by the caller.
    let InputRequest { model: _, image: _, resize, interpolation, crop } = input;
    fields.option(*resize, |fields, resize| match resize {
        ResizePolicy::Exact { height, width } => numbers(fields, [0, height, width]),
        ResizePolicy::ShortSide { pixels } => numbers(fields, [1, pixels, 0]),
        ResizePolicy::Letterbox { height, width } => numbers(fields, [2, height, width]),
        ResizePolicy::Native => numbers(fields, [3, 0, 0]),
    });
    fields.option(*interpolation, |fields, interpolation| {
        fields.number(match interpolation {
            Interpolation::Nearest => 0u8,
            Interpolation::Bilinear => 1,
            Interpolation::Bicubic => 2,
            Interpolation::Lanczos => 3,
        });
    });
    fields.option(*crop, write_rect);
}

fn write_features(fields: &mut Fields, features: &FeatureRequest) {
    let FeatureRequest { facet, layer, lift_passes, dtype, layout, l2_normalize, part, cls_token, register_tokens } = features;
    fields.option(*facet, |fields, facet| {
        fields.number(match facet {
            Facet::Key => 0u8,
            Facet::Query => 1,
            Facet::Value => 2,
            Facet::Token => 3,
            Facet::NormToken => 4,
        });
    });
    fields.option(*layer, Fields::number);
    fields.option(*lift_passes, Fields::number);
    fields.number(match dtype {
        DType::F32 => 0u8,
        DType::F16 => 1,
        DType::I8 => 2,
    });
    fields.number(match layout {
        Layout::Hwc => 0u8,
        Layout::Chw => 1,
    });
    fields.number(*l2_normalize);
    match part {
        Part::All => fields.number(0u8),
        Part::Region(rect) => {
            fields.number(1u8);
            write_rect(fields, *rect);
        }
        Part::Points(points) => {
            fields.number(2u8);
            fields.list(points, |fields, point| point.iter().for_each(|value| fields.float(*value)));
        }
    }
    fields.number(*cls_token);
    fields.number(*register_tokens);
}

fn write_masks(fields: &mut Fields, masks: &MaskRequest) {
    let MaskRequest {
        format,
        size,
        region,
        classes,
        class_indices,
        min_score,
        threshold,
        tolerance,
        keep_empty,
        windows,
        with_scores,
    } = masks;
    fields.number(match format {
        MaskFormat::Labels => 0u8,
        MaskFormat::Scores => 1,
        MaskFormat::Bits => 2,
        MaskFormat::Rle => 3,
        MaskFormat::Polygons => 4,
        MaskFormat::Png => 5,
        MaskFormat::Nothing => 6,
    });
    fields.number(match size {
        MaskSize::Image => 0u8,
        MaskSize::Scores => 1,
    });
    fields.option(*region, write_rect);
    fields.list(classes, |fields, class| fields.text(class));
    fields.list(class_indices, |fields, index| fields.number(*index));
    fields.float(f64::from(*min_score));
    fields.option(*threshold, |fields, threshold| fields.float(f64::from(threshold)));
    fields.float(f64::from(*tolerance));
    fields.number(*keep_empty);
    match windows {
        WindowRequest::Automatic => fields.number(0u8),
        WindowRequest::Whole => fields.number(1u8),
        WindowRequest::Tiles { size, stride } => {
            fields.number(2u8);
            fields.option(*size, numbers);
            fields.option(*stride, numbers);
        }
    }
    fields.number(*with_scores);
}

fn write_rect(fields: &mut Fields, rect: Rect) {
    let Rect { x, y, width, height } = rect;
    [x, y, width, height].into_iter().for_each(|value| fields.float(value));
}

fn numbers<const N: usize>(fields: &mut Fields, values: [u32; N]) {
    values.into_iter().for_each(|value| fields.number(value));
}

#[cfg(test)]
mod tests;
