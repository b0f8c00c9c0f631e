//! Stages of the attention-to-mask decoder (Zhang et al., "SegViT: Semantic Segmentation with Plain Vision Transformers", NeurIPS 2022):
//! queries that gather what belongs to them from a map, and the masks that this leaves.
//!
//! # Design
//! - Layers are post-norm, with ReLU and without positions: `q = LN1(q + SA(q))`, `q = LN2(q + CA(q, F))`, `q = LN3(q + FFN(q))`.
//! - The published decoder takes the scaled scores of the cross-attention twice: softmax over the map for the update of the queries, and
//!   their mean over the heads, before the softmax, as masks. That mean needs no scores a head: with n heads of d channels,
//!   `mean_h (Q_h K_h^T) d^-0.5 = (Q K^T) d^-0.5 / n`, one product over all channels. So every layer runs in
//!   `com.microsoft.MultiHeadAttention`, which keeps its scores for itself, and a mask costs one product more. For 150 queries on 1,600
//!   cells, D = 512, plain products whose scores are read twice take 1.2 times as long; for 11 queries on 768 cells both are equal
//!   (`benches/graph_forms.py`, one thread, AMD EPYC Zen 3, 2026-11-25).
//! - Queries do not depend on the image before the first cross-attention. Until there they are one example and not a batch; where they
//!   are constants, ONNX Runtime folds them when it creates the session.
//! - In fp16 products and attention are in half precision, the queries and every LayerNorm in single, as in the backbone.

use ndarray::arr1;

use crate::{
    graph::constants::{constant, linear, narrow, widen},
    manifest::Precision,
    onnx::{GraphBuilder, Value},
    weights::{DecoderLayer, DecoderStage, Linear, Norm, TapProjection},
};

/// Epsilon of the LayerNorms.
const NORM_EPSILON: f32 = 1e-5;

/// Queries of a decoder, f32.
pub(super) enum Queries {
    /// `[1, N, D]`: the same for all images.
    Shared(Value),
    /// `[B, N, D]`.
    OfImages(Value),
}

/// What a layer's masks are made of, in the precision of the products: queries `[B, N, D]` and keys `[B, n, D]` of its cross-attention.
pub(super) struct MaskSource {
    query: Value,
    key: Value,
}

/// Builds the stages of a head.
pub(super) struct Decoder<'a> {
    pub(super) graph: &'a mut GraphBuilder,
    precision: Precision,
    /// Attention heads.
    heads: u32,
    /// Number of images, a list of one integer.
    batch: Value,
}

impl<'a> Decoder<'a> {
    /// For as many images as the first extent of `map`.
    pub(super) fn new(graph: &'a mut GraphBuilder, precision: Precision, heads: u32, map: &Value) -> Self {
        let batch = graph.shape(map, 0, 1);
        Self { graph, precision, heads, batch }
    }

    /// Runs a stage on a map `[B, .., C]` f32, or `[B, .., D]` for a stage without projection. Returns the queries after it, and what makes
    /// the masks of its last layer.
    pub(super) fn stage(
        &mut self,
        stage: &DecoderStage,
        map: &Value,
        mut queries: Queries,
        name: &str,
    ) -> (Queries, Option<MaskSource>) {
        let features = self.features(stage, map, name);
        let mut mask = None;
        for (idx, layer) in stage.layers.iter().enumerate() {
            let name = format!("{name}.layers.{idx}");
            let attended = self.self_attention(layer, queries, &name);
            let of_images = self.of_images(attended);
            let (updated, source) = self.cross_attention(layer, &of_images, &features, &name);
            queries = Queries::OfImages(self.feed_forward(layer, &updated, &name));
            mask = Some(source);
        }
        (queries, mask)
    }

    /// Mask logits on the grid of `map` `[B, h, w, C]`, `[B, N, h, w]` f32: scores of the cross-attention before its softmax, the mean
    /// over the heads, for N queries of `width` channels.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ONNX constants are f32, widths are small")]
    pub(super) fn mask(&mut self, source: &MaskSource, map: &Value, [n_queries, width]: [usize; 2]) -> Value {
        let heads = f64::from(self.heads);
        let scale = 1.0 / ((width as f64 / heads).sqrt() * heads);
        let scale = constant(self.graph, &arr1(&[scale as f32]), self.precision, "mask.scale");
        // Before the product: queries are fewer than scores, and the sum over all channels stays inside half precision.
        let scaled = self.graph.mul(&source.query, &scale);
        let keys = self.graph.transpose(&source.key, &[0, 2, 1]);
        let scores = self.graph.matmul(&scaled, &keys);
        let scores = widen(self.graph, &scores, self.precision);
        let (n_queries, grid) = (self.graph.ints(&[extent(n_queries)]), self.graph.shape(map, 1, 3));
        let shape = self.graph.concat(&[&self.batch, &n_queries, &grid], 0);
        self.graph.reshape_to(&scores, &shape)
    }

    /// A linear layer on queries, `[B, N, out]` f32.
    pub(super) fn classified(&mut self, queries: Queries, layer: &Linear, name: &str) -> Value {
        let queries = self.of_images(queries);
        let narrowed = narrow(self.graph, &queries, self.precision);
        let logits = self.linear(&narrowed, layer, name);
        widen(self.graph, &logits, self.precision)
    }

    /// Queries of every image, `[B, N, D]` f32.
    pub(super) fn of_images(&mut self, queries: Queries) -> Value {
        match queries {
            Queries::OfImages(value) => value,
            Queries::Shared(value) => {
                let rest = self.graph.shape(&value, 1, 3);
                let shape = self.graph.concat(&[&self.batch, &rest], 0);
                self.graph.expand(&value, &shape)
            }
        }
    }

    /// What the layers of a stage read: the cells of the map in a row, through the projection when there is one, `[B, n, D]`.
    fn features(&mut self, stage: &DecoderStage, map: &Value, name: &str) -> Value {
        let narrowed = narrow(self.graph, map, self.precision);
        let Some(TapProjection { linear, norm }) = &stage.projection else { return narrowed };
        let cells = self.graph.reshape(&narrowed, &[0, -1, extent(linear.weight.ncols())]);
        let projected = self.linear(&cells, linear, &format!("{name}.input_proj"));
        let widened = widen(self.graph, &projected, self.precision);
        let normed = self.norm(&widened, norm, &format!("{name}.proj_norm"));
        narrow(self.graph, &normed, self.precision)
    }

    fn self_attention(&mut self, layer: &DecoderLayer, queries: Queries, name: &str) -> Queries {
        let (Queries::Shared(x) | Queries::OfImages(x)) = &queries;
        let narrowed = narrow(self.graph, x, self.precision);
        let [query, key, value] = &layer.self_qkv;
        let query = self.linear(&narrowed, query, &format!("{name}.self.query"));
        let key = self.linear(&narrowed, key, &format!("{name}.self.key"));
        let value = self.linear(&narrowed, value, &format!("{name}.self.value"));
        let attended = self.graph.multi_head_attention(&query, &key, &value, self.heads);
        let out = self.linear(&attended, &layer.self_out, &format!("{name}.self.out"));
        let updated = self.add_and_norm(x, &out, &layer.norm1, &format!("{name}.norm1"));
        match queries {
            Queries::Shared(_) => Queries::Shared(updated),
            Queries::OfImages(_) => Queries::OfImages(updated),
        }
    }

    fn cross_attention(&mut self, layer: &DecoderLayer, x: &Value, features: &Value, name: &str) -> (Value, MaskSource) {
        let narrowed = narrow(self.graph, x, self.precision);
        let query = self.linear(&narrowed, &layer.cross_query, &format!("{name}.cross.query"));
        let key = self.linear(features, &layer.cross_key, &format!("{name}.cross.key"));
        let value = self.linear(features, &layer.cross_value, &format!("{name}.cross.value"));
        let attended = self.graph.multi_head_attention(&query, &key, &value, self.heads);
        let out = self.linear(&attended, &layer.cross_out, &format!("{name}.cross.out"));
        let updated = self.add_and_norm(x, &out, &layer.norm2, &format!("{name}.norm2"));
        (updated, MaskSource { query, key })
    }

    fn feed_forward(&mut self, layer: &DecoderLayer, x: &Value, name: &str) -> Value {
        let narrowed = narrow(self.graph, x, self.precision);
        let hidden = self.linear(&narrowed, &layer.fc1, &format!("{name}.fc1"));
        let hidden = self.graph.relu(&hidden);
        let out = self.linear(&hidden, &layer.fc2, &format!("{name}.fc2"));
        self.add_and_norm(x, &out, &layer.norm3, &format!("{name}.norm3"))
    }

    /// `LN(x + branch)` in single precision.
    fn add_and_norm(&mut self, x: &Value, branch: &Value, norm: &Norm, name: &str) -> Value {
        let branch = widen(self.graph, branch, self.precision);
        let sum = self.graph.add(x, &branch);
        self.norm(&sum, norm, name)
    }

    fn norm(&mut self, x: &Value, norm: &Norm, name: &str) -> Value {
        let scale = constant(self.graph, &norm.weight, Precision::Fp32, &format!("{name}.weight"));
        let bias = constant(self.graph, &norm.bias, Precision::Fp32, &format!("{name}.bias"));
        self.graph.layer_norm(x, &scale, &bias, NORM_EPSILON)
    }

    fn linear(&mut self, x: &Value, layer: &Linear, name: &str) -> Value {
        linear(self.graph, x, layer, None, (self.precision, name))
    }
}

/// An extent as ONNX wants it.
pub(super) fn extent(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
