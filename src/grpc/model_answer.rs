//! Models into protobuf messages.

use crate::{
    engine::{Engine, Limits, LoadedModel, MAX_LIFT_PASSES},
    grpc::{answer::facet, pb::v1 as pb, segment_answer},
    manifest::{Interpolation, Manifest, PositionVariant, ResizePolicy, Tap},
};

/// What clients may know of a model.
#[must_use]
pub fn model(model: &LoadedModel, engine: &Engine, max_message_bytes: usize) -> pb::Model {
    let Manifest { architecture, preprocess, backbone, .. } = model.manifest();
    let manifest = model.manifest();
    pb::Model {
        name: manifest.name.clone(),
        version: manifest.version.to_string(),
        digest: model.digest().to_owned(),
        is_default: engine.is_default(model),
        description: manifest.provenance.description.clone(),
        architecture: architecture.family.clone(),
        patch_size: architecture.patch,
        channels: architecture.width,
        depth: architecture.depth,
        heads: architecture.heads,
        registers: architecture.registers,
        parameters: architecture.parameters,
        facets: backbone.facets.iter().map(|item| facet(*item) as i32).collect(),
        layers: backbone.layers.clone(),
        default_facet: facet(backbone.default.facet) as i32,
        default_layer: backbone.default.layer,
        mean: preprocess.mean.to_vec(),
        std: preprocess.std.to_vec(),
        interpolation: interpolation(preprocess.interpolation) as i32,
        default_resize: Some(default_resize(manifest)),
        position_interpolation: variant(manifest.position.variant).to_owned(),
        precision: backbone.precision.name().to_owned(),
        provider: model.provider().to_owned(),
        lift: manifest.lift.as_ref().map(|lift| lift_head(lift.form.name(), lift.tap, lift.parameters)),
        license: manifest.provenance.license.clone(),
        limits: Some(limits(engine.limits(), max_message_bytes)),
        segmenter: manifest.segmenter.as_ref().map(segment_answer::segmenter),
    }
}

fn lift_head(form: &str, tap: Tap, parameters: u64) -> pb::LiftHead {
    pb::LiftHead { form: form.to_owned(), facet: facet(tap.facet) as i32, layer: tap.layer, parameters }
}

fn default_resize(manifest: &Manifest) -> pb::Preprocess {
    let policy = match manifest.backbone.baked_size {
        Some([height, width]) => ResizePolicy::Exact { height, width },
        None => manifest.preprocess.resize,
    };
    let resize = match policy {
        ResizePolicy::Exact { height, width } => pb::preprocess::Resize::Exact(pb::Size { height, width }),
        ResizePolicy::ShortSide { pixels } => pb::preprocess::Resize::ShortSide(pixels),
        ResizePolicy::Letterbox { height, width } => pb::preprocess::Resize::Letterbox(pb::Size { height, width }),
        ResizePolicy::Native => pb::preprocess::Resize::Native(true),
    };
    pb::Preprocess { interpolation: interpolation(manifest.preprocess.interpolation) as i32, crop: None, resize: Some(resize) }
}

fn limits(limits: &Limits, max_message_bytes: usize) -> pb::Limits {
    pb::Limits {
        max_image_bytes: limits.max_image_bytes,
        max_image_pixels: limits.max_image_pixels,
        max_input_pixels: limits.max_input_pixels,
        max_message_bytes: max_message_bytes as u64,
        max_lift_passes: MAX_LIFT_PASSES,
        max_points: limits.max_points,
    }
}

fn interpolation(interpolation: Interpolation) -> pb::Interpolation {
    match interpolation {
        Interpolation::Nearest => pb::Interpolation::Nearest,
        Interpolation::Bilinear => pb::Interpolation::Bilinear,
        Interpolation::Bicubic => pb::Interpolation::Bicubic,
        Interpolation::Lanczos => pb::Interpolation::Lanczos,
    }
}

fn variant(variant: PositionVariant) -> &'static str {
    match variant {
        PositionVariant::Offset => "offset",
        PositionVariant::Antialias => "antialias",
        PositionVariant::Exact => "exact",
    }
}
