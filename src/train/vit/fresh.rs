//! Weights that a network begins with: fresh ones, those of any file, and registers for a network that has none.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use densevit::{
    import::{ImportOptions, recognise},
    manifest::{Architecture, FfnKind, PositionVariant},
    weights::{Ffn, Linear, Norm, VitBlock, VitWeights},
};
use ndarray::{Array, Array1, Dimension, ShapeBuilder};
use tch::{Device, Kind, Tensor};

use crate::vit::Source;

/// Spread of matrices, tokens and positions at the beginning (DINO, `trunc_normal_(std=.02)`, whose bounds of ±2 are never met).
const SPREAD: f64 = 0.02;
/// Spread of registers at the beginning (DINOv2).
const REGISTER_SPREAD: f64 = 1e-6;
/// Of every LayerNorm (DINO, DINOv2, SelfPatch).
const NORM_EPS: f64 = 1e-6;

/// Shape of a network that begins from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshVit {
    /// Pixels on a side of a patch.
    pub patch: u32,
    /// Channels of a token.
    pub width: u32,
    /// Blocks.
    pub depth: u32,
    /// Attention heads.
    pub heads: u32,
    /// Rows and columns of the position table.
    pub grid: u32,
    /// Whether there is a CLS token and a final norm, as DINO has them; SelfPatch has neither.
    pub has_cls: bool,
}

impl Source {
    /// Fresh weights as DINO and SelfPatch begin, from the framework's generator.
    #[must_use]
    pub fn fresh(shape: FreshVit) -> Self {
        let FreshVit { patch, width, depth, heads, grid, has_cls } = shape;
        let [channels, side, cells] = [width as usize, patch as usize, grid as usize];
        // The framework's own beginning of a convolution: uniform within one over the root of the fan-in.
        let bound = 1.0 / f64::from(3 * patch * patch).sqrt();
        let uniform = |n: i64| Tensor::rand([n], CPU) * (2.0 * bound) - bound;
        let weights = VitWeights {
            arch: Architecture {
                family: if has_cls { "dino" } else { Architecture::PATCHES_ONLY }.to_owned(),
                width,
                depth,
                heads,
                patch,
                registers: 0,
                ffn: FfnKind::Mlp,
                layer_scale: false,
                norm_eps: NORM_EPS,
                parameters: 0,
            },
            patch_weight: filled((channels, 3, side, side), uniform),
            patch_bias: filled(channels, uniform),
            cls: has_cls.then(|| normal(channels, SPREAD)),
            registers: Array::zeros((0, channels)),
            position: normal((cells, cells, channels), SPREAD),
            blocks: (0..depth).map(|_| block(channels)).collect(),
            norm: has_cls.then(|| norm(channels)),
        };
        let key_map = if has_cls { "official" } else { "selfpatch" };
        Self { weights: weights.counted(), key_map, variant: PositionVariant::Offset }
    }

    /// The weights of any file that `densevit import` takes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        let options = ImportOptions::new(file.to_path_buf(), PathBuf::new(), "");
        let recognised = recognise(&options).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self { weights: recognised.weights, key_map: recognised.key_map, variant: recognised.variant })
    }

    /// Pixels on a side of the image whose grid the position table has; of the longer one, where it is no square.
    #[must_use]
    pub fn image_size(&self) -> u32 {
        let (rows, cols, _width) = self.weights.position.dim();
        u32::try_from(rows.max(cols)).unwrap_or_default().saturating_mul(self.weights.arch.patch)
    }

    /// The same with `n` registers: fresh ones, where there are none. Their positions are fitted as those of DINOv2 with registers, which
    /// an import takes for granted.
    ///
    /// # Errors
    /// When there is another number already.
    pub fn with_registers(mut self, n: u32) -> anyhow::Result<Self> {
        let own = self.weights.arch.registers;
        ensure!(own == 0 || own == n, "the weights have {own} registers: {n} cannot be had");
        if own == n {
            return Ok(self);
        }
        self.weights.registers = normal((n as usize, self.weights.arch.width as usize), REGISTER_SPREAD);
        self.weights.arch.registers = n;
        self.variant = PositionVariant::Antialias;
        self.weights = self.weights.counted();
        Ok(self)
    }
}

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// An array whose values, as many as it has, are drawn at once.
fn filled<D: Dimension>(shape: impl ShapeBuilder<Dim = D>, draw: impl Fn(i64) -> Tensor) -> Array<f32, D> {
    let mut array = Array::zeros(shape);
    let drawn = draw(i64::try_from(array.len()).unwrap_or_default());
    // A new tensor of this kind can always be read.
    let values = Vec::<f32>::try_from(&drawn).unwrap_or_default();
    array.iter_mut().zip(values).for_each(|(place, value)| *place = value);
    array
}

fn normal<D: Dimension>(shape: impl ShapeBuilder<Dim = D>, spread: f64) -> Array<f32, D> {
    filled(shape, |n| Tensor::randn([n], CPU) * spread)
}

fn norm(channels: usize) -> Norm {
    Norm { weight: Array1::ones(channels), bias: Array1::zeros(channels) }
}

fn linear(n_outputs: usize, n_inputs: usize) -> Linear {
    Linear { weight: normal((n_outputs, n_inputs), SPREAD), bias: Array1::zeros(n_outputs) }
}

fn block(channels: usize) -> VitBlock {
    let square = || linear(channels, channels);
    VitBlock {
        norm1: norm(channels),
        query: square(),
        key: square(),
        value: square(),
        proj: square(),
        scale1: None,
        norm2: norm(channels),
        ffn: Ffn::Mlp { fc1: linear(4 * channels, channels), fc2: linear(channels, 4 * channels) },
        scale2: None,
    }
}
