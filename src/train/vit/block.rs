//! One pre-norm transformer block.

use densevit::{
    manifest::Architecture,
    weights::{Ffn, Linear, Norm, VitBlock},
};
use ndarray::{Array, Array1, Axis, Dimension, concatenate};
use tch::{Kind, Tensor, nn};

/// A block. Every pair is weight and bias.
#[derive(Debug)]
pub(super) struct Block {
    heads: i64,
    eps: f64,
    pub(super) norm1: [Tensor; 2],
    /// Queries, keys, values: `[3D, D]`.
    pub(super) qkv: [Tensor; 2],
    pub(super) proj: [Tensor; 2],
    pub(super) scale1: Option<Tensor>,
    pub(super) norm2: [Tensor; 2],
    /// The first layer of the feed-forward network; of SwiGLU, gate and value.
    pub(super) wide: [Tensor; 2],
    pub(super) narrow: [Tensor; 2],
    is_gated: bool,
    pub(super) scale2: Option<Tensor>,
}

/// An array in the training framework.
pub(super) fn tensor<D: Dimension>(array: &Array<f32, D>) -> Tensor {
    let shape: Vec<i64> = array.shape().iter().map(|&extent| i64::try_from(extent).unwrap_or_default()).collect();
    Tensor::from_slice(&array.iter().copied().collect::<Vec<f32>>()).view(shape.as_slice())
}

impl Block {
    pub(super) fn new(path: &nn::Path<'_>, block: &VitBlock, arch: &Architecture) -> Self {
        let pair = |name: &str, weight: &Tensor, bias: &Tensor| {
            [(path / name).var_copy("weight", weight), (path / name).var_copy("bias", bias)]
        };
        let norm = |name: &str, norm: &Norm| pair(name, &tensor(&norm.weight), &tensor(&norm.bias));
        let linear = |name: &str, layer: &Linear| pair(name, &tensor(&layer.weight), &tensor(&layer.bias));
        let scale = |name: &str, scale: &Option<Array1<f32>>| scale.as_ref().map(|scale| path.var_copy(name, &tensor(scale)));
        let (wide, narrow, is_gated) = match &block.ffn {
            Ffn::Mlp { fc1, fc2 } => (fc1, fc2, false),
            Ffn::Swiglu { w12, w3 } => (w12, w3, true),
        };
        Self {
            heads: i64::from(arch.heads),
            eps: arch.norm_eps,
            norm1: norm("norm1", &block.norm1),
            qkv: linear("qkv", &stacked([&block.query, &block.key, &block.value])),
            proj: linear("proj", &block.proj),
            scale1: scale("scale1", &block.scale1),
            norm2: norm("norm2", &block.norm2),
            wide: linear("wide", wide),
            narrow: linear("narrow", narrow),
            is_gated,
            scale2: scale("scale2", &block.scale2),
        }
    }

    /// The stream after the block. With `kept`, tokens of the stream, only they go on: they are its queries and its residual.
    ///
    /// # Shapes
    /// - `stream`: `[B, N, D]`
    /// - `kept`: `[B, n, D]`
    pub(super) fn forward(&self, stream: &Tensor, kept: Option<&Tensor>, drop: f64) -> Tensor {
        let attended = self.attention(stream, kept);
        let stream = kept.unwrap_or(stream);
        let stream = stream + branch(&attended, self.scale1.as_ref(), drop);
        let hidden = self.feed_forward(&self.normed(&stream, &self.norm2));
        &stream + branch(&hidden, self.scale2.as_ref(), drop)
    }

    fn attention(&self, stream: &Tensor, kept: Option<&Tensor>) -> Tensor {
        let normed = self.normed(stream, &self.norm1);
        let width = stream.size()[2];
        let [query, key, value] = match kept {
            None => {
                let parts = normed.linear(&self.qkv[0], Some(&self.qkv[1])).chunk(3, -1);
                [0, 1, 2].map(|part: usize| parts[part].shallow_clone())
            }
            Some(kept) => {
                let project = |x: &Tensor, first: i64, n: i64| {
                    x.linear(&self.qkv[0].narrow(0, first, n), Some(&self.qkv[1].narrow(0, first, n)))
                };
                let both = project(&normed, width, 2 * width);
                let query = project(&self.normed(kept, &self.norm1), 0, width);
                [query, both.narrow(2, 0, width), both.narrow(2, width, width)]
            }
        };
        let (query, key, value) = (self.split(&query), self.split(&key), self.split(&value));
        let mixed = Tensor::scaled_dot_product_attention::<Tensor>(&query, &key, &value, None, 0.0, false, None, false);
        mixed.transpose(1, 2).flatten(2, 3).linear(&self.proj[0], Some(&self.proj[1]))
    }

    /// Where the first `n` tokens look: shares of all tokens, `[B, heads, n, N]`, for a stream `[B, N, D]`.
    pub(super) fn looks(&self, stream: &Tensor, n: i64) -> Tensor {
        let parts = self.normed(stream, &self.norm1).linear(&self.qkv[0], Some(&self.qkv[1])).chunk(3, -1);
        let (query, key) = (self.split(&parts[0].narrow(1, 0, n)), self.split(&parts[1]));
        #[expect(clippy::cast_precision_loss, reason = "channels of a head")]
        let scale = (query.size()[3] as f64).sqrt();
        (query.matmul(&key.transpose(2, 3)) / scale).softmax(-1, Kind::Float)
    }

    /// `[B, N, D]` as `[B, heads, N, D / heads]`.
    fn split(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        x.reshape([size[0], size[1], self.heads, size[2] / self.heads]).transpose(1, 2)
    }

    fn feed_forward(&self, x: &Tensor) -> Tensor {
        let wide = x.linear(&self.wide[0], Some(&self.wide[1]));
        let hidden = if self.is_gated {
            let parts = wide.chunk(2, -1);
            parts[0].silu() * &parts[1]
        } else {
            wide.gelu("none")
        };
        hidden.linear(&self.narrow[0], Some(&self.narrow[1]))
    }

    fn normed(&self, x: &Tensor, [weight, bias]: &[Tensor; 2]) -> Tensor {
        x.layer_norm(x.size().last().copied().unwrap_or_default(), Some(weight), Some(bias), self.eps, true)
    }
}

/// A residual branch: scaled, and left out for some images; those that keep it weigh it more, so that the mean stays.
fn branch(x: &Tensor, scale: Option<&Tensor>, drop: f64) -> Tensor {
    let scaled = scale.map_or_else(|| x.shallow_clone(), |scale| x * scale);
    if drop <= 0.0 {
        return scaled;
    }
    let keep = 1.0 - drop;
    let kept = Tensor::rand([x.size()[0], 1, 1], (Kind::Float, x.device())).lt(keep).to_kind(Kind::Float) / keep;
    scaled * kept
}

/// Three linear layers as one.
fn stacked(layers: [&Linear; 3]) -> Linear {
    let [query, _, _] = layers;
    // All have as many columns as the stream has channels, so that they always fit.
    let weight = concatenate(Axis(0), &layers.map(|layer| layer.weight.view()));
    let bias = concatenate(Axis(0), &layers.map(|layer| layer.bias.view()));
    Linear {
        weight: weight.unwrap_or_else(|_shape| query.weight.clone()),
        bias: bias.unwrap_or_else(|_shape| query.bias.clone()),
    }
}

#[cfg(test)]
mod tests {
    use densevit::manifest::FfnKind;
    use ndarray::{Array1, Array2};
    use tch::Device;

    use super::*;

    fn block() -> (nn::VarStore, Block) {
        let mut random = fastrand::Rng::with_seed(3);
        let mut values = |n: usize| (0..n).map(|_| random.f32() - 0.5).collect::<Vec<f32>>();
        let mut linear = |out: usize, inside: usize| Linear {
            weight: Array2::from_shape_vec((out, inside), values(out * inside)).unwrap_or_default(),
            bias: Array1::from_vec(values(out)),
        };
        let norm = || Norm { weight: Array1::ones(8), bias: Array1::zeros(8) };
        let block = VitBlock {
            norm1: norm(),
            query: linear(8, 8),
            key: linear(8, 8),
            value: linear(8, 8),
            proj: linear(8, 8),
            scale1: None,
            norm2: norm(),
            ffn: Ffn::Mlp { fc1: linear(16, 8), fc2: linear(8, 16) },
            scale2: None,
        };
        let arch = Architecture {
            family: "vit".into(),
            width: 8,
            depth: 1,
            heads: 2,
            patch: 2,
            registers: 0,
            ffn: FfnKind::Mlp,
            layer_scale: false,
            norm_eps: 1e-6,
            parameters: 0,
        };
        let store = nn::VarStore::new(Device::Cpu);
        let block = Block::new(&store.root(), &block, &arch);
        (store, block)
    }

    #[test]
    fn where_tokens_look_is_what_their_values_are_mixed_by() {
        let (_store, block) = block();
        tch::manual_seed(0);
        let stream = Tensor::randn([2, 7, 8], (Kind::Float, Device::Cpu));
        let looks = block.looks(&stream, 3);
        let shares = looks.sum_dim_intlist([3i64].as_slice(), false, Kind::Float);
        assert!((shares - 1.0).abs().max().double_value(&[]) < 1e-6);
        let value = block.normed(&stream, &block.norm1).linear(&block.qkv[0], Some(&block.qkv[1])).narrow(2, 16, 8);
        let mixed = looks.matmul(&block.split(&value)).transpose(1, 2).flatten(2, 3);
        let mixed = mixed.linear(&block.proj[0], Some(&block.proj[1]));
        let attended = block.attention(&stream, None).narrow(1, 0, 3);
        // Rounding of sums of 8 products in single precision.
        assert!((mixed - attended).abs().max().double_value(&[]) < 1e-5);
    }
}
