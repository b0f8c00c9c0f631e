//! The engine's segmentations into protobuf messages.

use bytes::Bytes;

use crate::{
    engine::{ClassArea, ClassMask, MaskData, MaskFormat, Segmented},
    grpc::{answer, pb::v1 as pb, tail::Tailed},
    manifest::SegmenterFile,
    masks::Polygon,
    preprocess::Rect,
};

/// Number of the field `SegmentResponse.features`.
const FEATURES: u32 = 3;

/// One message with everything.
#[must_use]
pub(super) fn response(segmented: Segmented) -> Tailed<pb::SegmentResponse> {
    let header = header(&segmented);
    let message = pb::SegmentResponse {
        header: Some(header),
        masks: segmented.masks.into_iter().map(mask).collect(),
        features: None,
        data: Bytes::new(),
    };
    let mut tail = segmented.features.map(|features| answer::response(features).at(FEATURES)).unwrap_or_default();
    tail.join(answer::data(segmented.data));
    tail.after(message)
}

/// Everything about an answer but masks, data and features.
#[must_use]
pub(super) fn header(segmented: &Segmented) -> pb::SegmentHeader {
    let manifest = segmented.model.manifest();
    let has_labels = matches!(segmented.format, MaskFormat::Labels | MaskFormat::Png);
    pb::SegmentHeader {
        model: manifest.name.clone(),
        version: manifest.version.to_string(),
        digest: segmented.model.digest().to_owned(),
        format: format(segmented.format) as i32,
        rows: answer::to_u32(segmented.size[0]),
        cols: answer::to_u32(segmented.size[1]),
        label_bytes: if has_labels { answer::to_u32(segmented.label_bytes) } else { 0 },
        void_label: if segmented.label_bytes == 1 { u32::from(u8::MAX) } else { u32::from(u16::MAX) },
        classes: segmented.classes.iter().map(|found| class_area(*found, segmented)).collect(),
        input: Some(answer::size(segmented.geometry.input_size())),
        original: Some(answer::size(segmented.geometry.original_size())),
        raster_to_image: Some(affine(segmented)),
        n_windows: answer::to_u32(segmented.n_windows),
        data_bytes: segmented.data.len() as u64,
        n_masks: answer::to_u32(segmented.masks.len()),
        warnings: segmented.warnings.clone(),
        timing: Some(answer::timing(&segmented.timing)),
    }
}

/// Centres of the raster's pixels in pixels of the original image.
pub(super) fn affine(segmented: &Segmented) -> pb::Affine {
    let [x, y, dx, dy] = segmented.raster;
    pb::Affine { x0: x + dx / 2.0, dx, y0: y + dy / 2.0, dy }
}

/// A class of the model, or a label of the caller's, which has no name.
fn class_area(found: ClassArea, segmented: &Segmented) -> pb::ClassArea {
    let described = match &segmented.palette {
        Some(palette) => palette.colors().get(found.index).map(|rgb| describe(found.index, String::new(), *rgb)),
        None => {
            let classes = segmented.model.manifest().segmenter.as_ref().map(|segmenter| &segmenter.classes);
            classes
                .and_then(|classes| classes.get(found.index))
                .map(|class| describe(found.index, class.name.clone(), class.color))
        }
    };
    pb::ClassArea { area: found.area, score: found.score, ..described.unwrap_or_default() }
}

fn describe(index: usize, name: String, rgb: [u8; 3]) -> pb::ClassArea {
    let [red, green, blue] = rgb.map(u32::from);
    pb::ClassArea { index: answer::to_u32(index), name, color: red << 16 | green << 8 | blue, area: 0, score: 0.0 }
}

/// What clients may know of a head.
#[must_use]
pub(super) fn segmenter(head: &SegmenterFile) -> pb::Segmenter {
    pb::Segmenter {
        form: head.form.name().to_owned(),
        classes: head.classes.iter().enumerate().map(|(index, class)| describe(index, class.name.clone(), class.color)).collect(),
        size: head.size.map(|[height, width]| pb::Size { height, width }),
        upscale: head.upscale,
        parameters: head.parameters,
    }
}

/// The message of one mask.
#[must_use]
pub(super) fn mask(mask: ClassMask) -> pb::Mask {
    let data = match mask.mask {
        MaskData::Bits(bits) => pb::mask::Mask::Bits(bits),
        MaskData::Rle(runs) => pb::mask::Mask::Rle(Bytes::from(runs)),
        MaskData::Polygons(all) => pb::mask::Mask::Polygons(pb::Polygons { polygons: all.iter().map(polygon).collect() }),
    };
    pb::Mask { class_index: answer::to_u32(mask.index), r#box: mask.bounds.map(to_box), mask: Some(data) }
}

/// The message of a rectangle.
pub(super) fn to_box(rect: Rect) -> pb::Box {
    let Rect { x, y, width, height } = rect;
    pb::Box { x, y, width, height }
}

fn polygon(polygon: &Polygon) -> pb::Polygon {
    pb::Polygon { outer: Some(ring(&polygon.outer)), holes: polygon.holes.iter().map(|hole| ring(hole)).collect() }
}

fn ring(corners: &[[u32; 2]]) -> pb::Ring {
    pb::Ring { corners: corners.as_flattened().to_vec() }
}

fn format(format: MaskFormat) -> pb::MaskFormat {
    match format {
        MaskFormat::Labels => pb::MaskFormat::Labels,
        MaskFormat::Scores => pb::MaskFormat::Scores,
        MaskFormat::Bits => pb::MaskFormat::Bits,
        MaskFormat::Rle => pb::MaskFormat::Rle,
        MaskFormat::Polygons => pb::MaskFormat::Polygons,
        MaskFormat::Png => pb::MaskFormat::Png,
        MaskFormat::Nothing => pb::MaskFormat::None,
    }
}
