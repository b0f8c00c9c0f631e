//! The two decoders that make masks of class queries: SegViT, one stage a tap, and its shrunk form, whose queries of the full grid first
//! gather what a backbone of half the grid left.

use ndarray::Axis;

use crate::{
    graph::{
        constants::constant,
        decoder::{Decoder, Queries, extent},
    },
    manifest::Precision,
    onnx::{GraphBuilder, Value},
    weights::{ClassQueries, SegvitWeights, ShrunkWeights},
};

/// Maps of the taps, `[B, h, w, C]` f32, in the order of reading.
pub(super) struct TapMaps {
    pub(super) values: Vec<Value>,
    /// Whether all have one grid.
    pub(super) are_aligned: bool,
}

/// What a decoder leaves, f32.
pub(super) struct Masks {
    /// Of the last stage, "no object" last, `[B, K, K + 1]`.
    pub(super) class_logits: Value,
    /// Before the sigmoid, `[B, K, h, w]`.
    pub(super) mask_logits: Value,
}

/// Stages one after the other, their masks added: `M_s = M_(s-1) + up(m_s)`, where `up` resizes bilinearly to the grid of the last stage.
/// None when the head has no stage.
pub(super) fn segvit(decoder: &mut Decoder<'_>, weights: &SegvitWeights, maps: &TapMaps) -> Option<Masks> {
    let classes = &weights.classes;
    let mut queries = learned(decoder.graph, classes);
    let mut total: Option<Value> = None;
    for (number, (stage, map)) in (1..).zip(weights.stages.iter().zip(&maps.values)) {
        let (updated, source) = decoder.stage(stage, map, queries, &format!("decoder_{number}"));
        let mask = decoder.mask(&source?, map, classes.queries.dim().into());
        let mask = if maps.are_aligned { mask } else { fit(decoder.graph, &mask, maps.values.last()?) };
        total = Some(match total {
            Some(total) => decoder.graph.add(&total, &mask),
            None => mask,
        });
        queries = updated;
    }
    let class_logits = decoder.classified(queries, &classes.class_embed, "class_embed");
    Some(Masks { class_logits, mask_logits: total? })
}

/// Queries of the full grid gather from each tap, shallow first; class queries then make masks on the map that they are. None when the
/// head has no layers.
pub(super) fn shrunk(decoder: &mut Decoder<'_>, weights: &ShrunkWeights, maps: &TapMaps) -> Option<Masks> {
    let full = maps.values.first()?;
    let mut gathered = grid_queries(decoder.graph, weights, full);
    for (number, (stage, map)) in (1..).zip(weights.gather.iter().zip(&maps.values)) {
        (gathered, _) = decoder.stage(stage, map, gathered, &format!("qu.decoder_{number}"));
    }
    let gathered = decoder.of_images(gathered);
    let classes = &weights.classes;
    let queries = learned(decoder.graph, classes);
    let (queries, source) = decoder.stage(&weights.stage, &gathered, queries, "decoder_1");
    let mask_logits = decoder.mask(&source?, full, classes.queries.dim().into());
    let class_logits = decoder.classified(queries, &classes.class_embed, "class_embed");
    Some(Masks { class_logits, mask_logits })
}

/// The learned class queries, `[1, K, D]`.
fn learned(graph: &mut GraphBuilder, classes: &ClassQueries) -> Queries {
    let queries = classes.queries.view().insert_axis(Axis(0));
    Queries::Shared(constant(graph, &queries, Precision::Fp32, "q"))
}

/// The learned queries of the grid of a training, resized bilinearly to that of `map`, `[1, h * w, D]`.
fn grid_queries(graph: &mut GraphBuilder, weights: &ShrunkWeights, map: &Value) -> Queries {
    let width = extent(weights.query_map.dim().0);
    let stored = constant(graph, &weights.query_map.view().insert_axis(Axis(0)), Precision::Fp32, "qu.query");
    let (outer, grid) = (graph.ints(&[1, width]), graph.shape(map, 1, 3));
    let sizes = graph.concat(&[&outer, &grid], 0);
    let resized = graph.resize_bilinear_to(&stored, &sizes);
    let flat = graph.reshape(&resized, &[1, width, -1]);
    Queries::Shared(graph.transpose(&flat, &[0, 2, 1]))
}

/// A mask `[B, K, ..]` on the grid of another map.
fn fit(graph: &mut GraphBuilder, mask: &Value, map: &Value) -> Value {
    let (outer, grid) = (graph.shape(mask, 0, 2), graph.shape(map, 1, 3));
    let sizes = graph.concat(&[&outer, &grid], 0);
    graph.resize_bilinear_to(mask, &sizes)
}
