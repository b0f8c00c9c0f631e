//! The engine's answers into protobuf messages.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    engine::{Extracted, Source, Timing},
    grpc::{
        pb::v1 as pb,
        tail::{Tail, Tailed},
    },
    manifest::Facet,
    postprocess::{DType, Layout},
    tensor::F32View,
};

/// Number of the field `data`, the tensor or raster of answers.
const DATA: u32 = 15;

/// One message with the whole tensor.
#[must_use]
pub fn response(extracted: Extracted) -> Tailed<pb::ExtractResponse> {
    let header = header(&extracted);
    let message = pb::ExtractResponse { header: Some(header), data: Bytes::new() };
    data(extracted.tensor.data).after(message)
}

/// The field `data`, or nothing where it is empty.
pub(super) fn data(bytes: Bytes) -> Tail {
    let mut tail = Tail::default();
    if !bytes.is_empty() {
        tail.push(DATA, [bytes]);
    }
    tail
}

/// Everything about an answer but the tensor.
#[must_use]
pub fn header(extracted: &Extracted) -> pb::FeatureHeader {
    let manifest = extracted.model.manifest();
    let extent = extracted.extent;
    let n_points = if extracted.tensor.dims.len() == 2 { extracted.tensor.dims[0] } else { 0 };
    pb::FeatureHeader {
        model: manifest.name.clone(),
        version: manifest.version.to_string(),
        digest: extracted.model.digest().to_owned(),
        facet: facet(extracted.tap.facet) as i32,
        layer: extracted.tap.layer,
        lift_passes: extracted.lift_passes,
        dtype: dtype(extracted.dtype) as i32,
        layout: layout(extracted.layout) as i32,
        rows: to_u32(extent.rows),
        cols: to_u32(extent.cols),
        channels: manifest.architecture.width,
        n_points: to_u32(n_points),
        grid_rows: to_u32(extracted.grid[0]),
        grid_cols: to_u32(extracted.grid[1]),
        row_offset: to_u32(extent.row),
        col_offset: to_u32(extent.col),
        input: Some(size(extracted.geometry.input_size())),
        original: Some(size(extracted.geometry.original_size())),
        stride: extracted.stride,
        grid_to_image: Some(affine(extracted)),
        scale: extracted.tensor.scale.clone(),
        data_bytes: extracted.tensor.data.len() as u64,
        warnings: extracted.warnings.clone(),
        timing: Some(timing(&extracted.timing)),
        cls_token: cls_token(extracted),
        register_tokens: register_tokens(extracted),
    }
}

/// Centres of the returned cells in pixels of the original image.
pub(super) fn affine(extracted: &Extracted) -> pb::Affine {
    let centre = |row: usize, col: usize| extracted.geometry.cell_centre(row, col, extracted.stride);
    let (row, col) = (extracted.extent.row, extracted.extent.col);
    let [x0, y0] = centre(row, col);
    let [x1, y1] = centre(row + 1, col + 1);
    pb::Affine { x0, dx: x1 - x0, y0, dy: y1 - y0 }
}

pub(super) fn timing(timing: &Timing) -> pb::Timing {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    pb::Timing {
        decode_ms: ms(timing.decode),
        resize_ms: ms(timing.resize),
        queue_ms: ms(timing.queue),
        backbone_ms: ms(timing.backbone),
        lift_ms: ms(timing.lift),
        segment_ms: ms(timing.segment),
        postprocess_ms: ms(timing.postprocess),
        total_ms: ms(timing.total),
        batch_size: to_u32(timing.batch_size),
        source: source(timing.source) as i32,
        cache_ms: ms(timing.cache),
        receive_ms: ms(timing.receive),
        assemble_ms: ms(timing.assemble),
    }
}

fn source(source: Source) -> pb::Source {
    match source {
        Source::Run => pb::Source::Run,
        Source::Shared => pb::Source::Shared,
        Source::Cache => pb::Source::Cache,
    }
}

/// The CLS token as little-endian f32; empty when it was not asked for.
pub(super) fn cls_token(extracted: &Extracted) -> Bytes {
    extracted.cls_token.as_ref().map(|token| token_bytes(token, extracted)).unwrap_or_default()
}

/// The register tokens as little-endian f32; empty when they were not asked for.
pub(super) fn register_tokens(extracted: &Extracted) -> Bytes {
    extracted.register_tokens.as_ref().map(|tokens| token_bytes(tokens, extracted)).unwrap_or_default()
}

fn token_bytes(tokens: &F32View, extracted: &Extracted) -> Bytes {
    let (manifest, normalize) = (extracted.model.manifest(), extracted.l2_normalize);
    let mut bytes = Vec::with_capacity(tokens.len() * size_of::<f32>());
    for token in tokens.chunks(manifest.architecture.width as usize) {
        let norm = token.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        let factor = if normalize && norm > 0.0 { 1.0 / norm } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, reason = "back to the precision it came in")]
        token.iter().for_each(|value| bytes.extend_from_slice(&((f64::from(*value) * factor) as f32).to_le_bytes()));
    }
    bytes.into()
}

pub(super) fn facet(facet: Facet) -> pb::Facet {
    match facet {
        Facet::Key => pb::Facet::Key,
        Facet::Query => pb::Facet::Query,
        Facet::Value => pb::Facet::Value,
        Facet::Token => pb::Facet::Token,
        Facet::NormToken => pb::Facet::NormToken,
    }
}

fn dtype(dtype: DType) -> pb::DType {
    match dtype {
        DType::F32 => pb::DType::DtypeF32,
        DType::F16 => pb::DType::DtypeF16,
        DType::I8 => pb::DType::DtypeI8,
    }
}

fn layout(layout: Layout) -> pb::Layout {
    match layout {
        Layout::Hwc => pb::Layout::Hwc,
        Layout::Chw => pb::Layout::Chw,
    }
}

pub(super) fn size((height, width): (u32, u32)) -> pb::Size {
    pb::Size { height, width }
}

/// Extents of tensors fit `u32`: the limits on pixels and points see to that.
pub(super) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
