//! The segmentation head's graph: from maps of its taps to scores of every cell for every class.
//!
//! # Design
//! - A decoder leaves a mask and a distribution over classes for each of its K queries. The scores are the published inference,
//!   `out[c] = sum_q softmax(class_q)[c] sigmoid(mask_q)`, with the masks resized before the sigmoid and "no object" dropped after the
//!   softmax: values in \[0, 1\] for a trained head, which need not sum to one.
//! - Masks lie channels first through the resize, the layout that CUDA resizes, and are transposed when they have become scores. For 150
//!   classes at 128 x 128 cells channels last throughout would take 0.87 times as long on the CPU, and a transposition before the sum over
//!   queries 1.37 times; for 11 classes all three are within 15 % (`benches/graph_forms.py`, one thread, AMD EPYC Zen 3, 2026-11-25).
//! - The BatchNorm of a linear head is folded into its layer.

use ndarray::{Array1, Array2};

use crate::{
    graph::{
        constants::{linear, narrow, widen},
        decoder::{Decoder, extent},
        segvit::{Masks, TapMaps, segvit, shrunk},
    },
    manifest::{Precision, io_names},
    onnx::{
        Along, Dim, GraphBuilder, ModelProto, OnnxError, Value,
        proto::{DataType, TensorProto},
    },
    weights::{Linear, LinearHeadWeights, SegmentWeights},
};

/// How the graph is built.
#[derive(Clone, Debug)]
pub struct SegmenterOptions {
    /// Element type of weights and products.
    pub precision: Precision,
    /// Cells of the scores on a side of a cell of the grid (u).
    pub upscale: u32,
    /// Of each tap, whether its map has half the rows and columns of the patches
    /// ([`BackboneFile::is_halved`](crate::manifest::BackboneFile::is_halved)).
    pub is_halved: Vec<bool>,
}

/// Builds the graph of a head with K classes for taps of C channels.
///
/// # Shapes
/// - `map_1`, `map_2`, ...: `[B, h, w, C]` f32, a tap each, in the order of reading
/// - `probabilities`: `[B, u * h, u * w, K]` f32; the grid is that of the last tap, of the first in the shrunk form
/// - `class_logits`: `[B, K, K + 1]` f32, of the last stage; not of linear heads
/// - `mask_logits`: `[B, K, h, w]` f32, of all stages together, before the sigmoid; not of linear heads
///
/// # Errors
/// [`OnnxError`] when the graph does not hold together: a decoder without stages or layers, or a bug here.
pub fn build_segmenter(weights: &SegmentWeights, options: &SegmenterOptions) -> Result<ModelProto, OnnxError> {
    let shape = weights.shape();
    let mut graph = GraphBuilder::new("segmenter");
    let maps = inputs(&mut graph, options, [shape.n_taps, shape.channels]);
    let first = maps.values.first().ok_or_else(no_masks)?;
    let precision = options.precision;
    let masks = match weights {
        SegmentWeights::Segvit(head) => segvit(&mut Decoder::new(&mut graph, precision, head.classes.heads, first), head, &maps),
        SegmentWeights::Shrunk(head) => shrunk(&mut Decoder::new(&mut graph, precision, head.classes.heads, first), head, &maps),
        SegmentWeights::Linear(head) => {
            let scores = linear_scores(&mut graph, head, options, first);
            offer_scores(&mut graph, &scores, shape.n_classes);
            return graph.finish();
        }
    };
    let masks = masks.ok_or_else(no_masks)?;
    let scores = scores(&mut graph, &masks, options, shape.n_classes);
    offer_scores(&mut graph, &scores, shape.n_classes);
    let (batch, n_classes) = (Dim::Any("batch"), Dim::Fixed(shape.n_classes));
    let class_dims = [batch, n_classes, Dim::Fixed(shape.n_classes + 1)];
    graph.output(&masks.class_logits, io_names::CLASS_LOGITS, DataType::Float, &class_dims);
    let mask_dims = [batch, n_classes, Dim::Any("mask_rows"), Dim::Any("mask_cols")];
    graph.output(&masks.mask_logits, io_names::MASK_LOGITS, DataType::Float, &mask_dims);
    graph.finish()
}

fn no_masks() -> OnnxError {
    OnnxError::Dangling { reader: "the head, which has no layers,".into(), name: io_names::MASK_LOGITS.into() }
}

fn inputs(graph: &mut GraphBuilder, options: &SegmenterOptions, [n_taps, channels]: [usize; 2]) -> TapMaps {
    let is_halved = |position: usize| options.is_halved.get(position).copied().unwrap_or_default();
    let mut input = |position: usize| {
        let (rows, cols) = if is_halved(position) { ("half_rows", "half_cols") } else { ("rows", "cols") };
        let dims = [Dim::Any("batch"), Dim::Any(rows), Dim::Any(cols), Dim::Fixed(channels)];
        graph.input(&io_names::map(position), DataType::Float, &dims)
    };
    let values = (0..n_taps).map(&mut input).collect();
    TapMaps { values, are_aligned: (0..n_taps).all(|position| is_halved(position) == is_halved(0)) }
}

fn offer_scores(graph: &mut GraphBuilder, scores: &Value, n_classes: usize) {
    let dims = [Dim::Any("batch"), Dim::Any("score_rows"), Dim::Any("score_cols"), Dim::Fixed(n_classes)];
    graph.output(scores, io_names::PROBABILITIES, DataType::Float, &dims);
}

/// Sum over the queries of class shares times masks, `[B, u * h, u * w, K]` f32.
fn scores(graph: &mut GraphBuilder, masks: &Masks, options: &SegmenterOptions, n_classes: usize) -> Value {
    let precision = options.precision;
    let shares = graph.softmax(&masks.class_logits);
    let shares = graph.slice(&shares, Along { axis: -1, begin: 0, end: extent(n_classes) });
    let shares = narrow(graph, &shares, precision);
    let shares = graph.transpose(&shares, &[0, 2, 1]);
    let resized = upscaled(graph, &masks.mask_logits, options.upscale);
    let grid = graph.shape(&resized, 2, 4);
    let covered = graph.sigmoid(&resized);
    let covered = narrow(graph, &covered, precision);
    let cells = graph.reshape(&covered, &[0, 0, -1]);
    let mixed = graph.matmul(&shares, &cells);
    let mixed = graph.transpose(&mixed, &[0, 2, 1]);
    let mixed = widen(graph, &mixed, precision);
    let (batch, n_classes) = (graph.shape(&mixed, 0, 1), graph.ints(&[extent(n_classes)]));
    let shape = graph.concat(&[&batch, &grid, &n_classes], 0);
    graph.reshape_to(&mixed, &shape)
}

/// Softmax over the classes of logits that were resized, `[B, u * h, u * w, K]` f32.
fn linear_scores(graph: &mut GraphBuilder, head: &LinearHeadWeights, options: &SegmenterOptions, map: &Value) -> Value {
    let narrowed = narrow(graph, map, options.precision);
    let logits = linear(graph, &narrowed, &fold(head), None, (options.precision, "linear"));
    let logits = widen(graph, &logits, options.precision);
    let channels_first = graph.transpose(&logits, &[0, 3, 1, 2]);
    let resized = upscaled(graph, &channels_first, options.upscale);
    let channels_last = graph.transpose(&resized, &[0, 2, 3, 1]);
    graph.softmax(&channels_last)
}

/// `linear(norm(x)) = linear'(x)`: weight `W g`, bias `b + W s`, for scale g and shift s of the norm.
fn fold(head: &LinearHeadWeights) -> Linear {
    let weight: Array2<f32> = &head.linear.weight * &head.norm.weight;
    let bias: Array1<f32> = &head.linear.bias + &head.linear.weight.dot(&head.norm.bias);
    Linear { weight, bias }
}

/// `[B, K, h, w]` as `[B, K, u * h, u * w]`, bilinear.
#[expect(clippy::cast_precision_loss, reason = "a small power of two")]
fn upscaled(graph: &mut GraphBuilder, maps: &Value, upscale: u32) -> Value {
    if upscale <= 1 {
        return maps.clone();
    }
    let factor = upscale as f32;
    let factors = graph.constant(TensorProto::f32(&[4], &[1.0, 1.0, factor, factor]), "factors");
    graph.resize_bilinear_by(maps, &factors)
}
