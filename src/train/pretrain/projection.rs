//! The projection head of DINO (Caron et al., ICCV 2021): three layers, unit length, and the likeness to each of K prototypes.

use tch::{
    Tensor,
    nn::{self, Init},
};

/// Spread of matrices at the beginning.
const SPREAD: f64 = 0.02;
/// Least length that is divided by.
const LEAST: f64 = 1e-12;

/// Sizes of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectionShape {
    /// Channels of a token.
    pub channels: i64,
    /// Channels of both hidden layers.
    pub hidden: i64,
    /// Channels before the prototypes.
    pub bottleneck: i64,
    /// Prototypes.
    pub prototypes: i64,
    /// Whether prototypes keep a length of 1.
    pub norm_last_layer: bool,
}

/// The head, under the authors' names.
#[derive(Debug)]
pub struct Projection {
    /// Weights and biases.
    layers: [[Tensor; 2]; 3],
    /// Prototypes as learned, `[K, bottleneck]`: only their direction counts.
    direction: Tensor,
    /// Their lengths, `[K, 1]`.
    length: Tensor,
}

impl Projection {
    /// A fresh one.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, shape: ProjectionShape) -> Self {
        let ProjectionShape { channels, hidden, bottleneck, prototypes, norm_last_layer } = shape;
        let linear = |idx: i64, n_inputs: i64, n_outputs: i64| {
            let path = root / "mlp" / idx;
            let begin = Init::Randn { mean: 0.0, stdev: SPREAD };
            [path.var("weight", &[n_outputs, n_inputs], begin), path.zeros("bias", &[n_outputs])]
        };
        let last = root / "last_layer";
        #[expect(clippy::cast_precision_loss, reason = "a width")]
        let bound = 1.0 / (bottleneck as f64).sqrt();
        let length = if norm_last_layer { nn::Path::ones_no_train } else { nn::Path::ones };
        Self {
            layers: [linear(0, channels, hidden), linear(2, hidden, hidden), linear(4, hidden, bottleneck)],
            direction: last.var("weight_v", &[prototypes, bottleneck], Init::Uniform { lo: -bound, up: bound }),
            length: length(&last, "weight_g", &[prototypes, 1]),
        }
    }

    /// Likeness to each prototype.
    ///
    /// # Shapes
    /// - `tokens`: `[.., D]` f32
    /// - output: `[.., K]` f32
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let [first, second, third] = &self.layers;
        let applied = |x: &Tensor, [weight, bias]: &[Tensor; 2]| x.linear(weight, Some(bias));
        let hidden = applied(&applied(tokens, first).gelu("none"), second).gelu("none");
        let prototypes = unit(&self.direction) * &self.length;
        unit(&applied(&hidden, third)).linear::<Tensor>(&prototypes, None)
    }
}

/// Rows of length 1.
fn unit(rows: &Tensor) -> Tensor {
    rows / rows.norm_scalaropt_dim(2, [-1], true).clamp_min(LEAST)
}
