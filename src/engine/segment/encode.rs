//! Scores into what the caller asked for.

use bytes::Bytes;

use crate::{
    engine::segment::{
        class_mask::MaskEncoder,
        request::{ClassArea, ClassMask, MaskFormat, MaskRequest},
    },
    manifest::ClassSpec,
    masks::{
        BitMask, ClassSet, ClassSummary, LabelMap, LabelOptions, Labels, MaskError, MaskLimits, Palette, Raster, Sampler, Scores,
        label, label_png, masks_of_labels, masks_of_scores, mean_scores, probabilities,
    },
};

/// Masks as they go over the wire.
#[derive(Debug)]
pub(super) struct EncodedMasks {
    pub(super) classes: Vec<ClassArea>,
    pub(super) masks: Vec<ClassMask>,
    pub(super) data: Bytes,
    pub(super) scores: Option<Bytes>,
    pub(super) unit_bytes: usize,
    pub(super) label_bytes: usize,
}

/// What everything is made from.
#[derive(Debug)]
pub(super) struct Material<'a> {
    pub(super) scores: &'a Scores,
    pub(super) raster: &'a Raster,
    pub(super) classes: &'a ClassSet,
    /// All classes of the model.
    pub(super) specs: &'a [ClassSpec],
    pub(super) limits: &'a MaskLimits,
}

/// Encodes the scores of one image.
pub(super) fn encode(material: &Material<'_>, request: &MaskRequest) -> Result<EncodedMasks, MaskError> {
    let sampler = Sampler::new(material.scores, material.raster, material.classes)?;
    if let Some(threshold) = request.threshold {
        let masks = masks_of_scores(&sampler, threshold, material.limits)?;
        let means = mean_scores(&sampler, &masks)?;
        let summaries = material.classes.classes().iter().zip(&masks).zip(means);
        let summaries =
            summaries.map(|((class, mask), mean_score)| ClassSummary { class: *class, area_px: mask.area_px(), mean_score });
        return per_class(&summaries.collect::<Vec<_>>(), masks, material, request);
    }
    let options = LabelOptions { min_score: (request.min_score > 0.0).then_some(request.min_score), ..Default::default() };
    let labelled = label(&sampler, &options)?;
    let label_bytes = match labelled.map.labels() {
        Labels::U8(_) => 1,
        Labels::U16(_) => 2,
    };
    let row_bytes = labelled.map.cols() * label_bytes;
    let classes = areas(&labelled.summaries, request);
    let plain = |data: Vec<u8>, unit_bytes| EncodedMasks {
        classes: classes.clone(),
        masks: Vec::new(),
        data: data.into(),
        scores: None,
        unit_bytes,
        label_bytes,
    };
    match request.format {
        MaskFormat::Labels => {
            let scores = request.with_scores.then(|| probabilities(&sampler, material.limits.max_values)).transpose()?;
            Ok(EncodedMasks { scores: scores.map(Bytes::from), ..plain(label_data(labelled.map), row_bytes) })
        }
        MaskFormat::Png => {
            let palette = Palette::new(material.specs.iter().map(|class| class.color).collect())?;
            Ok(plain(label_png(&labelled.map, &palette)?, 1))
        }
        MaskFormat::Nothing => Ok(plain(Vec::new(), 1)),
        MaskFormat::Scores => {
            let classes: Vec<ClassArea> = labelled.summaries.iter().map(area).collect();
            let unit_bytes = 2 * sampler.cols() * classes.len();
            let data = probabilities(&sampler, material.limits.max_values)?.into();
            Ok(EncodedMasks { classes, masks: Vec::new(), data, scores: None, unit_bytes, label_bytes })
        }
        MaskFormat::Bits | MaskFormat::Rle | MaskFormat::Polygons => {
            let masks = masks_of_labels(&labelled.map, material.classes, material.limits)?;
            per_class(&labelled.summaries, masks, material, request)
        }
    }
}

/// One mask a class, in the order of their areas.
fn per_class(
    summaries: &[ClassSummary],
    masks: Vec<BitMask>,
    material: &Material<'_>,
    request: &MaskRequest,
) -> Result<EncodedMasks, MaskError> {
    let classes = areas(summaries, request);
    let mut by_class: Vec<Option<BitMask>> = vec![None; material.specs.len()];
    for (class, mask) in material.classes.classes().iter().zip(masks) {
        if let Some(place) = by_class.get_mut(usize::from(*class)) {
            *place = Some(mask);
        }
    }
    let listed = classes.iter().filter_map(|class| Some((class.index, by_class.get_mut(class.index)?.take()?)));
    let mut encoder = MaskEncoder::new(request.format, request.tolerance, material.limits);
    let encoded = listed.map(|(index, mask)| encoder.encode(index, mask));
    let masks = encoded.collect::<Result<_, MaskError>>()?;
    Ok(EncodedMasks { classes, masks, data: Bytes::new(), scores: None, unit_bytes: 1, label_bytes: 1 })
}

fn area(summary: &ClassSummary) -> ClassArea {
    ClassArea { index: usize::from(summary.class), area: summary.area_px, score: summary.mean_score }
}

/// By falling area; of equal areas in the order of the classes.
fn areas(summaries: &[ClassSummary], request: &MaskRequest) -> Vec<ClassArea> {
    let mut areas: Vec<ClassArea> = summaries.iter().map(area).filter(|class| class.area > 0 || request.keep_empty).collect();
    areas.sort_by_key(|class| (std::cmp::Reverse(class.area), class.index));
    areas
}

/// Little-endian labels, row by row.
pub(in crate::engine) fn label_data(map: LabelMap) -> Vec<u8> {
    match map.into_labels() {
        Labels::U8(labels) => labels,
        Labels::U16(labels) => labels.iter().flat_map(|label| label.to_le_bytes()).collect(),
    }
}
