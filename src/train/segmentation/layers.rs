//! What the decoders are made of: the post-norm layer whose cross-attention scores are masks, and stages of three.
//!
//! # Design
//! A layer is that of the published decoder: self-attention among the queries, cross-attention to the features, feed-forward, each added
//! and normalised after. Only its cross-attention is special: the scaled scores before the softmax, averaged over the heads, are mask
//! logits (Zhang et al., SegViT, section 3.1). Names are those of the published state dict.

use tch::{
    Kind, Tensor,
    nn::{self, Module as _},
};

/// Layers of a stage.
pub const N_LAYERS: i64 = 3;
/// Standard deviation of fresh linear weights.
const SPREAD: f64 = 0.02;

/// Widths of a decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Widths {
    /// Channels of the decoder (D).
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Share of values that training sets to zero.
    pub dropout: f64,
}

/// One decoder layer.
#[derive(Debug)]
struct Layer {
    widths: Widths,
    in_weight: Tensor,
    in_bias: Tensor,
    out: nn::Linear,
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
    proj: nn::Linear,
    norms: [nn::LayerNorm; 3],
    wide: nn::Linear,
    narrow: nn::Linear,
}

/// What a layer leaves.
#[derive(Debug)]
pub struct Attended {
    /// Updated queries, `[B, N, D]`.
    pub queries: Tensor,
    /// Mask logits, `[B, N, M]`.
    pub masks: Tensor,
}

/// Three layers on one map.
#[derive(Debug)]
pub struct Stage {
    layers: Vec<Layer>,
}

/// A linear layer: normal weights, no bias at first.
pub(super) fn linear(path: nn::Path<'_>, n_in: i64, n_out: i64) -> nn::Linear {
    let config = nn::LinearConfig {
        ws_init: nn::Init::Randn { mean: 0.0, stdev: SPREAD },
        bs_init: Some(nn::Init::Const(0.0)),
        bias: true,
    };
    nn::linear(path, n_in, n_out, config)
}

/// LayerNorm over the channels.
pub(super) fn norm(path: nn::Path<'_>, width: i64) -> nn::LayerNorm {
    nn::layer_norm(path, vec![width], nn::LayerNormConfig::default())
}

impl Layer {
    fn new(path: &nn::Path<'_>, widths: Widths) -> Self {
        let Widths { width, .. } = widths;
        let (own, cross) = (path / "self_attn", path / "multihead_attn");
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let bound = (6.0 / (4 * width) as f64).sqrt();
        Self {
            widths,
            in_weight: own.var("in_proj_weight", &[3 * width, width], nn::Init::Uniform { lo: -bound, up: bound }),
            in_bias: own.zeros("in_proj_bias", &[3 * width]),
            out: linear(&own / "out_proj", width, width),
            query: linear(&cross / "q", width, width),
            key: linear(&cross / "k", width, width),
            value: linear(&cross / "v", width, width),
            proj: linear(&cross / "proj", width, width),
            norms: ["norm1", "norm2", "norm3"].map(|name| norm(path / name, width)),
            wide: linear(path / "linear1", width, 4 * width),
            narrow: linear(path / "linear2", 4 * width, width),
        }
    }

    /// Updates queries `[B, N, D]` from features `[B, M, D]`. Without `is_masked` there are no mask logits, and the scores are never
    /// all in memory.
    fn forward(&self, queries: &Tensor, features: &Tensor, is_masked: bool, train: bool) -> (Tensor, Option<Tensor>) {
        let dropped = |x: Tensor| x.dropout(self.widths.dropout, train);
        let queries = self.norms[0].forward(&(queries + dropped(self.among(queries, train))));
        let (taken, masks) = self.across(&queries, features, is_masked, train);
        let queries = self.norms[1].forward(&(&queries + dropped(taken)));
        let hidden = dropped(self.wide.forward(&queries).relu());
        let queries = self.norms[2].forward(&(&queries + dropped(self.narrow.forward(&hidden))));
        (queries, masks)
    }

    /// Self-attention.
    fn among(&self, queries: &Tensor, train: bool) -> Tensor {
        let parts = queries.linear(&self.in_weight, Some(&self.in_bias)).chunk(3, -1);
        let [query, key, value] = [0, 1, 2].map(|part: usize| self.split(&parts[part]));
        self.out.forward(&merged(&self.attend(&query, &key, &value, train)))
    }

    /// Cross-attention and its mask logits.
    fn across(&self, queries: &Tensor, features: &Tensor, is_masked: bool, train: bool) -> (Tensor, Option<Tensor>) {
        let (query, key) = (self.split(&self.query.forward(queries)), self.split(&self.key.forward(features)));
        let value = self.split(&self.value.forward(features));
        if !is_masked {
            return (self.proj.forward(&merged(&self.attend(&query, &key, &value, train))), None);
        }
        let scores = (query * self.scale()).matmul(&key.transpose(-2, -1));
        let shares = scores.softmax(-1, Kind::Float).dropout(self.widths.dropout, train);
        let masks = scores.mean_dim([1i64].as_slice(), false, Kind::Float);
        (self.proj.forward(&merged(&shares.matmul(&value))), Some(masks))
    }

    fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, train: bool) -> Tensor {
        let dropout = if train { self.widths.dropout } else { 0.0 };
        Tensor::scaled_dot_product_attention::<Tensor>(query, key, value, None, dropout, false, None, false)
    }

    /// `[B, N, D]` as `[B, heads, N, d]`.
    fn split(&self, x: &Tensor) -> Tensor {
        let [batch, n, width] = extents(x);
        x.view([batch, n, self.widths.heads, width / self.widths.heads]).transpose(1, 2)
    }

    fn scale(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let width = (self.widths.width / self.widths.heads) as f64;
        width.powf(-0.5)
    }
}

/// `[B, heads, N, d]` as `[B, N, D]`.
fn merged(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}

/// The three extents of a tensor that has three axes.
fn extents(x: &Tensor) -> [i64; 3] {
    let size = x.size();
    [0, 1, 2].map(|axis: usize| size.get(axis).copied().unwrap_or(1))
}

impl Stage {
    /// Fresh layers under `path`: `layers.0` and so on. As in the published code, where the layers are copies of one, their packed
    /// projections begin equal; all other weights are drawn anew.
    #[must_use]
    pub fn new(path: &nn::Path<'_>, widths: Widths) -> Self {
        let mut layers: Vec<Layer> = (0..N_LAYERS).map(|idx| Layer::new(&(path / "layers" / idx), widths)).collect();
        if let Some((first, others)) = layers.split_first_mut() {
            tch::no_grad(|| others.iter_mut().for_each(|layer| layer.in_weight.copy_(&first.in_weight)));
        }
        Self { layers }
    }

    /// Queries and mask logits after each layer.
    ///
    /// # Shapes
    /// - `queries`: `[B, N, D]`
    /// - `features`: `[B, M, D]`
    pub fn masks(&self, queries: &Tensor, features: &Tensor, train: bool) -> Vec<Attended> {
        let mut queries = queries.shallow_clone();
        let mut run = |layer: &Layer| {
            let (updated, masks) = layer.forward(&queries, features, true, train);
            queries = updated.shallow_clone();
            masks.map(|masks| Attended { queries: updated, masks })
        };
        self.layers.iter().filter_map(&mut run).collect()
    }

    /// Queries after the last layer.
    ///
    /// # Shapes
    /// - `queries`: `[B, N, D]`
    /// - `features`: `[B, M, D]`
    /// - output: `[B, N, D]`
    pub fn queries(&self, queries: &Tensor, features: &Tensor, train: bool) -> Tensor {
        let run = |queries: Tensor, layer: &Layer| layer.forward(&queries, features, false, train).0;
        self.layers.iter().fold(queries.shallow_clone(), run)
    }
}

/// A tap as features of the decoder: linear layer and norm.
#[derive(Debug)]
pub struct Projection {
    linear: nn::Linear,
    norm: nn::LayerNorm,
}

impl Projection {
    /// Fresh weights of the `idx`-th tap (from 1): `input_proj_{idx}` and `proj_norm_{idx}`.
    #[must_use]
    pub fn new(path: &nn::Path<'_>, idx: usize, channels: i64, width: i64) -> Self {
        let linear = linear(path / format!("input_proj_{idx}"), channels, width);
        Self { linear, norm: norm(path / format!("proj_norm_{idx}"), width) }
    }

    /// Features `[B, h * w, D]` of a map `[B, h, w, C]`.
    pub fn forward(&self, map: &Tensor) -> Tensor {
        self.norm.forward(&self.linear.forward(&map.flatten(1, 2)))
    }
}
