//! The backbone's graph.
//!
//! # Design
//! - One graph offers every chosen facet of every chosen block; [`prune`](crate::onnx::prune) cuts it to what a session serves.
//! - Queries, keys and values are three products and not one of thrice the width, so that a graph that ends at the keys of a
//!   block computes nothing else of that block. They feed `com.microsoft.MultiHeadAttention`, which runs flash attention on CPU
//!   (fp32) and on CUDA (fp16). Measured on one thread, projections included (`benches/graph_forms.py`, AMD EPYC Zen 3,
//!   2026-11-25): 257 tokens 4.6 ms, against 4.5 for packed `com.microsoft.Attention`, 4.6 for ONNX `Attention` and 4.8 for plain
//!   products; 1,025 tokens 40.5 ms, against 42.6, 42.2 and 44.3.
//! - LayerScale is folded into the output weights of its branch.
//! - In fp16 only matrix products and attention are in half precision. The residual stream and every LayerNorm stay in single:
//!   DINOv2's stream has channels in the hundreds, where half precision keeps three digits.
//! - A backbone can halve its grid inside one block (query down-sampling of SegViT Shrunk, NeurIPS 2022): queries and
//!   residuals of that block are those of the patches at even rows and columns, keys and values come from all, through the same norm.
//!   CLS and registers stay. Later blocks run on a quarter of the patches.
//! - In int8 the linear layers of the blocks multiply bytes, with steps that are fixed when the graph is made (`fold` has how they are
//!   kept fine). Steps measured during a run, over all images of a batch, cost more time and let an answer depend on who else is in its
//!   batch. The patch embedding and the attention's own products stay in single precision.
//! - Backbones of SelfPatch have neither CLS token nor final norm: the stream is the patches, behind registers if there are any, and there
//!   are no outputs of what is not there.
//! - The image comes as bytes and is normalised in the graph: a third of the copies of a float input.

use ndarray::{Array1, Array2, Axis, concatenate};

use crate::{
    graph::{
        constants::{constant, narrow, widen},
        fold::{FoldedBlock, Step, fold},
        product::Operand,
    },
    manifest::{Facet, Precision, Tap, io_names},
    onnx::{
        Along, ConvGeometry, Dim, GraphBuilder, ModelProto, OnnxError, Value,
        proto::{DataType, TensorProto},
    },
    weights::{BlockRanges, Ffn, LayerInput, Linear, Norm, VitBlock, VitWeights},
};

/// What the graph offers and how.
#[derive(Clone, Debug)]
pub struct VitOptions {
    /// Facets that become outputs.
    pub facets: Vec<Facet>,
    /// Blocks, 0-based, whose facets become outputs. The graph ends with the last of them.
    pub layers: Vec<u32>,
    /// Channel means, RGB in \[0, 1\].
    pub mean: [f32; 3],
    /// Channel standard deviations, RGB in \[0, 1\].
    pub std: [f32; 3],
    /// Element type of weights and products.
    pub precision: Precision,
    /// Ranges of the inputs of linear layers, a block each: what makes them bytes. Empty in graphs of floats.
    pub ranges: Vec<BlockRanges>,
    /// Whether the graph gives these ranges for its images as outputs (named by [`LayerInput::names`], `[K]` f32), to measure them.
    pub observes_ranges: bool,
    /// The block, 0-based, that halves the grid.
    pub query_downsample: Option<u32>,
    /// The one size of a graph that stands alone; otherwise the position table is an input.
    pub baked: Option<Baked>,
}

/// A size, and the position table of its grid.
#[derive(Clone, Debug)]
pub struct Baked {
    /// Rows, in pixels.
    pub height: u32,
    /// Columns, in pixels.
    pub width: u32,
    /// `[h * w, D]`.
    pub position: Array2<f32>,
}

/// Builds the graph of a backbone.
///
/// # Shapes
/// - `image`: `[B, H, W, 3]` u8, H and W multiples of the patch size
/// - `position`: `[1, h * w, D]` f32, unless baked
/// - `pixels`: `[B, 3, H, W]` f32, the normalised image
/// - per facet and block: patches `[B, h, w, D]`, CLS `[B, D]` and registers `[B, R, D]` where there are such, f32; from the queries of the block that halves the
///   grid on, patches are `[B, ceil(h / 2), ceil(w / 2), D]`
///
/// # Errors
/// [`OnnxError`] when the graph does not hold together; that is a bug here and not of the weights.
pub fn build_vit(weights: &VitWeights, options: &VitOptions) -> Result<ModelProto, OnnxError> {
    let mut vit = Vit::begin(weights, options);
    let n_blocks = options.layers.iter().max().map_or(0, |last| *last as usize + 1);
    for (layer, block) in (0u32..).zip(weights.blocks.iter().take(n_blocks)) {
        vit.block(layer, block);
    }
    vit.graph.finish()
}

/// A graph under construction.
struct Vit<'a> {
    graph: GraphBuilder,
    weights: &'a VitWeights,
    options: &'a VitOptions,
    /// The residual stream, `[B, 1 + R + h * w, D]` f32; without a CLS token `[B, R + h * w, D]`.
    stream: Value,
    /// `[B, h, w, D]`, as integers.
    map_shape: Value,
    /// `[B, ceil(h / 2), ceil(w / 2), D]`, as integers, once the grid is halved.
    half_shape: Option<Value>,
}

impl<'a> Vit<'a> {
    /// Input, normalisation, patch embedding, position table, CLS and registers.
    fn begin(weights: &'a VitWeights, options: &'a VitOptions) -> Self {
        let mut graph = GraphBuilder::new("backbone");
        let width = weights.arch.width as usize;
        let pixels = pixels(&mut graph, options);
        let (embedded, grid) = patch_embedding(&mut graph, &pixels, weights, options.precision);
        let position = match &options.baked {
            None => graph.input(io_names::POSITION, DataType::Float, &[Dim::Fixed(1), Dim::Any("patches"), Dim::Fixed(width)]),
            Some(baked) => constant(&mut graph, &baked.position.view().insert_axis(Axis(0)), Precision::Fp32, "position"),
        };
        let patches = graph.add(&embedded, &position);
        let batch = graph.shape(&pixels, 0, 1);
        let prefix = prefix(&mut graph, weights, &batch);
        let stream = prefix.map_or_else(|| patches.clone(), |prefix| graph.concat(&[&prefix, &patches], 1));
        let channels = graph.ints(&[i64::from(weights.arch.width)]);
        let map_shape = graph.concat(&[&batch, &grid, &channels], 0);
        Self { graph, weights, options, stream, map_shape, half_shape: None }
    }

    /// One pre-norm block and its outputs.
    fn block(&mut self, layer: u32, block: &VitBlock) {
        let folded = self.options.ranges.get(layer as usize).map(|ranges| fold(block, ranges));
        let (block, folded) = (folded.as_ref().map_or(block, |folded| &folded.block), folded.as_ref());
        let attended = self.attention(layer, block, folded);
        let name = format!("blocks.{layer}");
        let attended = self.operand((layer, LayerInput::Projection), &attended, folded.map(|folded| folded.projection));
        let projected = self.product(&attended, &block.proj, block.scale1.as_ref(), &format!("{name}.proj"));
        self.add_to_stream(&projected);
        let hidden = self.feed_forward(layer, block, folded);
        self.add_to_stream(&hidden);
        let stream = self.stream.clone();
        self.offer(Tap { facet: Facet::Token, layer }, |_graph| stream.clone());
        let norm = self.weights.norm.as_ref().filter(|_norm| self.offers(Tap { facet: Facet::NormToken, layer }));
        if let Some(norm) = norm {
            let normed = self.norm(&stream, norm, "norm");
            self.offer(Tap { facet: Facet::NormToken, layer }, |_graph| normed.clone());
        }
    }

    /// Queries, keys and values, offered, and what the attention makes of them.
    fn attention(&mut self, layer: u32, block: &VitBlock, folded: Option<&FoldedBlock>) -> Value {
        let (name, precision) = (format!("blocks.{layer}"), self.options.precision);
        let normed = self.norm(&self.stream.clone(), &block.norm1, &format!("{name}.norm1"));
        let normed = narrow(&mut self.graph, &normed, precision);
        let step = folded.map(|folded| folded.attention);
        let answering = self.operand((layer, LayerInput::Attention), &normed, step);
        let asking = if self.options.query_downsample == Some(layer) {
            let half = self.halve(&normed);
            Operand::new(&mut self.graph, &half, step, &format!("{name}.query.input"))
        } else {
            answering.clone()
        };
        let query = self.product(&asking, &block.query, None, &format!("{name}.query"));
        let key = self.product(&answering, &block.key, None, &format!("{name}.key"));
        let value = self.product(&answering, &block.value, None, &format!("{name}.value"));
        for (facet, projected) in [(Facet::Key, &key), (Facet::Query, &query), (Facet::Value, &value)] {
            let unfolded = folded.filter(|_| facet == Facet::Value).map(|folded| &folded.value);
            self.offer(Tap { facet, layer }, |graph| match unfolded {
                None => widen(graph, projected, precision),
                Some((width, middle)) => {
                    let width = constant(graph, width, Precision::Fp32, &format!("{name}.value.width"));
                    let middle = constant(graph, middle, Precision::Fp32, &format!("{name}.value.middle"));
                    let scaled = graph.mul(projected, &width);
                    graph.add(&scaled, &middle)
                }
            });
        }
        self.graph.multi_head_attention(&query, &key, &value, self.weights.arch.heads)
    }

    fn feed_forward(&mut self, layer: u32, block: &VitBlock, folded: Option<&FoldedBlock>) -> Value {
        let (name, precision) = (format!("blocks.{layer}"), self.options.precision);
        let normed = self.norm(&self.stream.clone(), &block.norm2, &format!("{name}.norm2"));
        let normed = narrow(&mut self.graph, &normed, precision);
        let input = self.operand((layer, LayerInput::Ffn), &normed, folded.map(|folded| folded.ffn));
        let (hidden, last, part) = match &block.ffn {
            Ffn::Mlp { fc1, fc2 } => {
                let hidden = self.product(&input, fc1, None, &format!("{name}.fc1"));
                (self.graph.gelu(&hidden), fc2, "fc2")
            }
            Ffn::Swiglu { w12, w3 } => {
                let both = self.product(&input, w12, None, &format!("{name}.w12"));
                let half = i64::try_from(w12.bias.len() / 2).unwrap_or(i64::MAX);
                let graph = &mut self.graph;
                let gate = graph.slice(&both, Along { axis: -1, begin: 0, end: half });
                let linear_part = graph.slice(&both, Along { axis: -1, begin: half, end: i64::MAX });
                let sigmoid = graph.sigmoid(&gate);
                let silu = graph.mul(&gate, &sigmoid);
                (graph.mul(&silu, &linear_part), w3, "w3")
            }
        };
        let hidden = match folded {
            None => hidden,
            Some(folded) => {
                let factor = constant(&mut self.graph, &folded.hidden_factor, Precision::Fp32, &format!("{name}.{part}.factor"));
                self.graph.mul(&hidden, &factor)
            }
        };
        let hidden = self.operand((layer, LayerInput::Hidden), &hidden, folded.map(|folded| folded.hidden));
        self.product(&hidden, last, block.scale2.as_ref(), &format!("{name}.{part}"))
    }

    /// What a linear layer reads, `[B, T, K]`: in bytes where there is a step, observed if wanted.
    fn operand(&mut self, (layer, input): (u32, LayerInput), x: &Value, step: Option<Step>) -> Operand {
        if self.options.observes_ranges {
            let [low, high] = input.names(layer as usize);
            let wide = widen(&mut self.graph, x, self.options.precision);
            let bounds = [(self.graph.reduce_min(&wide, &[0, 1]), low), (self.graph.reduce_max(&wide, &[0, 1]), high)];
            for (bound, name) in bounds {
                self.graph.output(&bound, &name, DataType::Float, &[Dim::Any(&name)]);
            }
        }
        Operand::new(&mut self.graph, x, step, &input.name(layer as usize))
    }

    fn product(&mut self, x: &Operand, layer: &Linear, scale: Option<&Array1<f32>>, name: &str) -> Value {
        x.product(&mut self.graph, layer, scale, (self.options.precision, name))
    }

    /// Cuts the residual stream to the patches at even rows and columns, and returns the same cut of `normed`.
    fn halve(&mut self, normed: &Value) -> Value {
        let (stream, half_shape) = self.every_second_patch(&self.stream.clone());
        let (normed, _same_shape) = self.every_second_patch(normed);
        (self.stream, self.half_shape) = (stream, Some(half_shape));
        normed
    }

    /// CLS, registers, and the patches at even rows and columns of `tokens` `[B, 1 + R + h * w, D]`; and the shape of their map.
    fn every_second_patch(&mut self, tokens: &Value) -> (Value, Value) {
        let n_prefix = self.n_prefix();
        let width = i64::from(self.weights.arch.width);
        let graph = &mut self.graph;
        let patches = graph.slice(tokens, Along { axis: 1, begin: n_prefix, end: i64::MAX });
        let map = graph.reshape_to(&patches, &self.map_shape);
        let half = graph.every_second(&map, &[1, 2]);
        let flat = graph.reshape(&half, &[0, -1, width]);
        let half_shape = graph.shape(&half, 0, 4);
        if n_prefix == 0 {
            return (flat, half_shape);
        }
        let prefix = graph.slice(tokens, Along { axis: 1, begin: 0, end: n_prefix });
        (graph.concat(&[&prefix, &flat], 1), half_shape)
    }

    fn n_cls(&self) -> i64 {
        i64::from(self.weights.cls.is_some())
    }

    /// CLS and register tokens.
    fn n_prefix(&self) -> i64 {
        self.n_cls() + i64::try_from(self.weights.registers.nrows()).unwrap_or_default()
    }

    fn add_to_stream(&mut self, branch: &Value) {
        let branch = widen(&mut self.graph, branch, self.options.precision);
        self.stream = self.graph.add(&self.stream.clone(), &branch);
    }

    /// LayerNorm in single precision.
    #[expect(clippy::cast_possible_truncation, reason = "ONNX attributes are f32")]
    fn norm(&mut self, x: &Value, norm: &Norm, name: &str) -> Value {
        let scale = constant(&mut self.graph, &norm.weight, Precision::Fp32, &format!("{name}.weight"));
        let bias = constant(&mut self.graph, &norm.bias, Precision::Fp32, &format!("{name}.bias"));
        self.graph.layer_norm(x, &scale, &bias, self.weights.arch.norm_eps as f32)
    }

    fn offers(&self, tap: Tap) -> bool {
        self.options.facets.contains(&tap.facet) && self.options.layers.contains(&tap.layer)
    }

    /// Makes outputs of `tokens`, `[B, 1 + R + h * w, D]` f32, if this facet and block were chosen.
    fn offer(&mut self, tap: Tap, tokens: impl FnOnce(&mut GraphBuilder) -> Value) {
        if !self.offers(tap) {
            return;
        }
        let (n_cls, n_prefix) = (self.n_cls(), self.n_prefix());
        let half_shape = self.half_shape.as_ref().filter(|_| tap.is_halved(self.options.query_downsample));
        let graph = &mut self.graph;
        let tokens = tokens(graph);
        let (width, n_registers) = (self.weights.arch.width as usize, self.weights.registers.nrows());
        let patches = graph.slice(&tokens, Along { axis: 1, begin: n_prefix, end: i64::MAX });
        let map = graph.reshape_to(&patches, half_shape.unwrap_or(&self.map_shape));
        let (rows, cols) = if half_shape.is_some() { ("half_rows", "half_cols") } else { ("rows", "cols") };
        let map_dims = [Dim::Any("batch"), Dim::Any(rows), Dim::Any(cols), Dim::Fixed(width)];
        graph.output(&map, &io_names::patches(tap), DataType::Float, &map_dims);
        if n_cls > 0 {
            let cls = graph.slice(&tokens, Along { axis: 1, begin: 0, end: 1 });
            let cls = graph.squeeze(&cls, &[1]);
            graph.output(&cls, &io_names::cls(tap), DataType::Float, &[Dim::Any("batch"), Dim::Fixed(width)]);
        }
        if n_registers > 0 {
            let registers = graph.slice(&tokens, Along { axis: 1, begin: n_cls, end: n_prefix });
            let dims = [Dim::Any("batch"), Dim::Fixed(n_registers), Dim::Fixed(width)];
            graph.output(&registers, &io_names::registers(tap), DataType::Float, &dims);
        }
    }
}

/// The normalised image, `[B, 3, H, W]` f32.
fn pixels(graph: &mut GraphBuilder, options: &VitOptions) -> Value {
    let (height, width) = match &options.baked {
        Some(baked) => (Dim::Fixed(baked.height as usize), Dim::Fixed(baked.width as usize)),
        None => (Dim::Any("height"), Dim::Any("width")),
    };
    let image = graph.input(io_names::IMAGE, DataType::Uint8, &[Dim::Any("batch"), height, width, Dim::Fixed(3)]);
    let values = graph.cast(&image, DataType::Float);
    // (x / 255 - mean) / std = x * scale + shift
    let scale = options.std.map(|std| 1.0 / (255.0 * std));
    let shift = [0, 1, 2].map(|channel: usize| -options.mean[channel] / options.std[channel]);
    let scale = graph.constant(TensorProto::f32(&[3], &scale), "normalise.scale");
    let shift = graph.constant(TensorProto::f32(&[3], &shift), "normalise.shift");
    let scaled = graph.mul(&values, &scale);
    let shifted = graph.add(&scaled, &shift);
    let pixels = graph.transpose(&shifted, &[0, 3, 1, 2]);
    graph.output(&pixels, io_names::PIXELS, DataType::Float, &[Dim::Any("batch"), Dim::Fixed(3), height, width]);
    pixels
}

/// Patch embedding `[B, h * w, D]` f32, and `[h, w]` as integers.
fn patch_embedding(graph: &mut GraphBuilder, pixels: &Value, weights: &VitWeights, precision: Precision) -> (Value, Value) {
    let patch = i64::from(weights.arch.patch);
    let weight = constant(graph, &weights.patch_weight, precision, "patch_embed.weight");
    let bias = constant(graph, &weights.patch_bias, precision, "patch_embed.bias");
    let narrowed = narrow(graph, pixels, precision);
    let map = graph.conv(&narrowed, &weight, &bias, ConvGeometry { kernel: patch, stride: patch, pad: 0 });
    let grid = graph.shape(&map, 2, 4);
    let flat = graph.reshape(&map, &[0, i64::from(weights.arch.width), -1]);
    let tokens = graph.transpose(&flat, &[0, 2, 1]);
    (widen(graph, &tokens, precision), grid)
}

/// CLS and register tokens, `[B, 1 + R, D]` f32, if there are any.
fn prefix(graph: &mut GraphBuilder, weights: &VitWeights, batch: &Value) -> Option<Value> {
    let registers = weights.registers.view();
    // Both have D columns, so that they always fit.
    let tokens = match &weights.cls {
        None => registers.to_owned(),
        Some(cls) => {
            concatenate(Axis(0), &[cls.view().insert_axis(Axis(0)), registers]).unwrap_or_else(|_shape| registers.to_owned())
        }
    };
    if tokens.nrows() == 0 {
        return None;
    }
    let tokens = tokens.insert_axis(Axis(0));
    let rest = [tokens.shape()[1], tokens.shape()[2]].map(|extent| i64::try_from(extent).unwrap_or(i64::MAX));
    let tokens = constant(graph, &tokens, Precision::Fp32, "prefix");
    let rest = graph.ints(&rest);
    let shape = graph.concat(&[batch, &rest], 0);
    Some(graph.expand(&tokens, &shape))
}
