//! A Vision Transformer in the training framework, with the weights that a model was imported from: for backbones that learn, and for
//! Shrunk ones, which halve their grid on the way; and one that begins from nothing. `densevit::graph` builds the same for the server;
//! `tests/train` compares both.

mod block;
mod file;
mod fresh;
mod watched;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, ensure};
use densevit::{
    graph::position::interpolate,
    manifest::{Architecture, Manifest, PositionVariant},
    weights::{VitHints, VitWeights, assemble_vit, read},
};
use ndarray::Array3;
use tch::{
    Device, Kind, Tensor,
    nn::{self},
};

pub use file::FILE;
pub use fresh::FreshVit;
pub use watched::Watched;

use crate::vit::block::{Block, tensor};

/// A file of weights, understood.
#[derive(Clone, Debug)]
pub struct Source {
    weights: VitWeights,
    /// Naming scheme of the file.
    key_map: &'static str,
    /// How its position table is fitted to a grid.
    variant: PositionVariant,
}

/// What is done to a backbone on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VitOptions {
    /// Block in which the grid is halved (QD of SegViT Shrunk): its queries and its residual are every second token of every second row,
    /// its keys and values all tokens.
    pub downsample: Option<u32>,
    /// Share of the images for which the last block is left out in training; earlier blocks less, the first never (Huang et al., ECCV
    /// 2016).
    pub drop_path: f64,
}

/// A backbone.
#[derive(Debug)]
pub struct Vit {
    source: Source,
    options: VitOptions,
    /// `[D, 3, p, p]` and `[D]`.
    embed: [Tensor; 2],
    /// `[D]`.
    cls: Option<Tensor>,
    /// `[R, D]`.
    registers: Tensor,
    /// `[rows, cols, D]`.
    position: Tensor,
    blocks: Vec<Block>,
    /// Of the final norm: no tap reads it.
    norm: Option<[Tensor; 2]>,
    /// Matrices that fit the table to a grid, `[h * w, rows * cols]`, by grid.
    fits: BTreeMap<[i64; 2], Tensor>,
}

/// What is left after the last block, before any norm.
#[derive(Debug)]
pub struct Tokens {
    /// `[B, D]`, where the backbone has one.
    pub cls: Option<Tensor>,
    /// `[B, h * w, D]`, row by row.
    pub patches: Tensor,
    /// Rows and columns.
    pub grid: [i64; 2],
}

impl Source {
    /// Reads the weights that a model was imported from.
    ///
    /// # Errors
    /// When the file cannot be read, or its network is another than the manifest's.
    pub fn read(file: &Path, manifest: &Manifest) -> anyhow::Result<Self> {
        let (arch, position) = (&manifest.architecture, &manifest.position);
        let native_grid = position.native_grid.map(|cells| cells as usize);
        let hints = VitHints { heads: Some(arch.heads), norm_eps: Some(arch.norm_eps), native_grid: Some(native_grid) };
        let tensors = read(file)?;
        let recognised = assemble_vit(tensors, &hints).with_context(|| format!("reading the weights in {}", file.display()))?;
        let weights = recognised.weights;
        ensure!(weights.arch == *arch, "{} holds another network than {}", file.display(), manifest.name);
        Ok(Self { weights, key_map: recognised.key_map, variant: position.variant })
    }

    /// Shape of the network.
    #[must_use]
    pub fn arch(&self) -> &Architecture {
        &self.weights.arch
    }
}

impl Vit {
    /// The network of a file, its tensors trainable under `root`.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, source: Source, options: VitOptions) -> Self {
        let weights = &source.weights;
        let add = |name: &str, tensor: &Tensor| root.var_copy(name, tensor);
        let pair =
            |path: nn::Path<'_>, weight: &Tensor, bias: &Tensor| [path.var_copy("weight", weight), path.var_copy("bias", bias)];
        let blocks = weights.blocks.iter().enumerate();
        let new = |(idx, block)| Block::new(&(root / "blocks" / idx), block, &weights.arch);
        Self {
            options,
            embed: pair(root / "patch", &tensor(&weights.patch_weight), &tensor(&weights.patch_bias)),
            cls: weights.cls.as_ref().map(|cls| add("cls", &tensor(cls))),
            registers: add("registers", &tensor(&weights.registers)),
            position: add("position", &tensor(&weights.position)),
            blocks: blocks.map(new).collect(),
            norm: weights.norm.as_ref().map(|norm| pair(root / "norm", &tensor(&norm.weight), &tensor(&norm.bias))),
            fits: BTreeMap::new(),
            source,
        }
    }

    /// Shape of the network.
    #[must_use]
    pub fn arch(&self) -> &Architecture {
        self.source.arch()
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> Device {
        self.position.device()
    }

    /// Outputs of blocks, before any norm, in the order of `layers`.
    ///
    /// # Shapes
    /// - `pixels`: `[B, 3, H, W]` f32, normalised; sides are multiples of the patch
    /// - output: `[B, h, w, D]` each; after the block that halves the grid, `[B, ceil(h / 2), ceil(w / 2), D]`
    pub fn taps(&mut self, pixels: &Tensor, layers: &[u32], train: bool) -> Vec<Tensor> {
        let Some(last) = layers.iter().max() else { return Vec::new() };
        let n_prefix = self.n_prefix();
        let mut found: BTreeMap<u32, Tensor> = BTreeMap::new();
        self.run(pixels, *last, train, |layer, stream, grid| {
            if layers.contains(&layer) {
                let size = stream.size();
                let patches = stream.narrow(1, n_prefix, size[1] - n_prefix);
                found.insert(layer, patches.reshape([size[0], grid[0], grid[1], size[2]]));
            }
        });
        layers.iter().filter_map(|layer| found.get(layer).map(Tensor::shallow_clone)).collect()
    }

    /// Tokens after the last block; registers are left out.
    ///
    /// # Shapes
    /// - `pixels`: `[B, 3, H, W]` f32, normalised; sides are multiples of the patch
    pub fn tokens(&mut self, pixels: &Tensor, train: bool) -> Tokens {
        let (n_prefix, has_cls) = (self.n_prefix(), self.cls.is_some());
        let last = self.arch().depth.saturating_sub(1);
        let mut tokens = Tokens { cls: None, patches: Tensor::new(), grid: [0; 2] };
        self.run(pixels, last, train, |layer, stream, grid| {
            if layer == last {
                let cls = has_cls.then(|| stream.select(1, 0));
                tokens = Tokens { cls, patches: stream.narrow(1, n_prefix, stream.size()[1] - n_prefix), grid };
            }
        });
        tokens
    }

    /// Tokens through the final norm; as they are where there is none.
    pub fn normed(&self, tokens: &Tensor) -> Tensor {
        let Some([weight, bias]) = &self.norm else { return tokens.shallow_clone() };
        let width = i64::from(self.arch().width);
        tokens.layer_norm(width, Some(weight), Some(bias), self.arch().norm_eps, true)
    }

    /// CLS and register tokens.
    fn n_prefix(&self) -> i64 {
        i64::from(self.cls.is_some()) + self.registers.size()[0]
    }

    /// The blocks up to `last`; `take` sees the stream and its grid after each.
    fn run(&mut self, pixels: &Tensor, last: u32, train: bool, mut take: impl FnMut(u32, &Tensor, [i64; 2])) {
        let (embedded, mut stream) = self.start(pixels);
        let mut grid = [embedded.size()[1], embedded.size()[2]];
        let n_prefix = self.n_prefix();
        for (layer, block) in (0u32..).zip(&self.blocks).take_while(|(layer, _)| *layer <= last) {
            let drop = if train { self.drop_of(layer) } else { 0.0 };
            if self.options.downsample == Some(layer) {
                let kept = halved(&stream, n_prefix, grid);
                stream = block.forward(&stream, Some(&kept), drop);
                grid = grid.map(|side| (side + 1) / 2);
            } else {
                stream = block.forward(&stream, None, drop);
            }
            take(layer, &stream, grid);
        }
    }

    /// The patches before positions are added, `[B, h, w, D]`, and all tokens that go into the first block, `[B, T + h * w, D]`.
    fn start(&mut self, pixels: &Tensor) -> (Tensor, Tensor) {
        let patch = i64::from(self.arch().patch);
        let embedded = pixels.conv2d(&self.embed[0], Some(&self.embed[1]), [patch; 2], [0, 0], [1, 1], 1).permute([0, 2, 3, 1]);
        let patches = embedded.flatten(1, 2) + self.fitted([embedded.size()[1], embedded.size()[2]]);
        let prefix: Vec<Tensor> = self.cls.iter().map(|cls| cls.unsqueeze(0)).chain([self.registers.shallow_clone()]).collect();
        let prefix = Tensor::cat(&prefix, 0).unsqueeze(0).expand([pixels.size()[0], -1, -1], false);
        (embedded, Tensor::cat(&[prefix, patches], 1))
    }

    /// Rate of a block: linearly from nothing at the first.
    fn drop_of(&self, layer: u32) -> f64 {
        self.options.drop_path * f64::from(layer) / f64::from(self.arch().depth.saturating_sub(1).max(1))
    }

    /// The position table of a grid, `[1, h * w, D]`.
    ///
    /// Fitting is linear in the table, so that its matrix is what the server's function makes of the unit tables: gradients reach the
    /// table whatever the variant.
    fn fitted(&mut self, grid: [i64; 2]) -> Tensor {
        let size = self.position.size();
        let table = self.position.view([size[0] * size[1], size[2]]);
        if [size[0], size[1]] == grid {
            return table.unsqueeze(0);
        }
        let variant = self.source.variant;
        let fit = self.fits.entry(grid).or_insert_with(|| fit([size[0], size[1]], grid, variant).to_device(table.device()));
        fit.matmul(&table).unsqueeze(0)
    }
}

/// Every second token of every second row, after the first `n_prefix`, which stay.
fn halved(stream: &Tensor, n_prefix: i64, [rows, cols]: [i64; 2]) -> Tensor {
    let size = stream.size();
    let map = stream.narrow(1, n_prefix, rows * cols).reshape([size[0], rows, cols, size[2]]);
    let map = map.slice(1, 0, rows, 2).slice(2, 0, cols, 2).flatten(1, 2);
    Tensor::cat(&[stream.narrow(1, 0, n_prefix), map], 1)
}

/// The matrix that fits a table of one grid to another, `[rows * cols, own rows * own cols]`.
fn fit(own: [i64; 2], grid: [i64; 2], variant: PositionVariant) -> Tensor {
    let side = |cells: i64| usize::try_from(cells).unwrap_or_default();
    let [own, grid] = [own.map(side), grid.map(side)];
    let n = own[0] * own[1];
    let units = Array3::from_shape_fn((own[0], own[1], n), |(row, col, idx)| f32::from(u8::from(row * own[1] + col == idx)));
    tensor(&interpolate(units.view(), grid[0], grid[1], variant)).to_kind(Kind::Float)
}
