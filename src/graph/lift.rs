//! The LiFT head's graph (Suri et al., "LiFT: A Surprisingly Simple Lightweight Feature Transform for Dense ViT Descriptors",
//! ECCV 2024): twice the resolution from the features and the image. Also of three forms of our own with the same trunk: `residual` adds
//! the head's output to the bilinear double of the features, `guided` takes it as weights of a convex combination of coarse features,
//! and `corrected` adds a second output to such a combination.
//!
//! # Design
//! - Every BatchNorm is folded into the convolution before it.
//! - The head needs guidance of exactly `guidance` pixels a cell. Where the patch size is another one, the normalised image is
//!   first resized (bilinear, half-pixel centres) to `guidance * [h, w]`; for patch 8 and 16 the graph has no resize at all.
//! - The transposed convolution stays one operator. The exact forms by product and shuffle are 1.1 to 1.5 times slower
//!   (`benches/graph_forms.py`, AMD EPYC Zen 3, 2026-11-25: 9.5 ms at 32 x 32 cells, against 11.0 for 1x1 convolution with
//!   `DepthToSpace` and 14.3 for a matrix product with transposition).
//! - Features come and go with channels last, the layout of the answers. The last 1x1 convolution is a matrix product on that
//!   layout, so that half as many channels have to be transposed.

use ndarray::{Array1, Array3, Array4, Axis};

use crate::{
    graph::constants::{constant, linear, narrow, widen},
    manifest::{LiftForm, Precision, io_names},
    onnx::{
        ConvGeometry, Dim, GraphBuilder, ModelProto, OnnxError, Value,
        proto::{DataType, TensorProto},
    },
    weights::{ConvBn, LiftWeights},
};

/// Epsilon of the BatchNorms.
const BN_EPSILON: f32 = 1e-5;
/// Channels of the guidance.
const GUIDANCE_CHANNELS: usize = 32;

/// How the graph is built.
#[derive(Clone, Copy, Debug)]
pub struct LiftOptions {
    /// Patch size of the backbone, in pixels.
    pub patch: u32,
    /// Element type of weights and products.
    pub precision: Precision,
}

/// Weight that the prior of the guided form gives to coarse cells that bilinear upsampling would not use, before normalisation: small
/// enough to begin next to bilinear, large enough to be raised by a logit of a few units.
pub const PRIOR_FLOOR: f32 = 1e-3;

/// The guided form's prior: log of the bilinear weights (and of [`PRIOR_FLOOR`]) of the `window` x `window` coarse cells around a fine
/// one, for its four positions inside its coarse cell.
///
/// # Shapes
/// - output: `[2, 2, window * window]`, fine row and column modulo 2, then the window row by row
#[must_use]
pub fn bilinear_prior(window: usize) -> Array3<f32> {
    let centre = window / 2;
    // Half-pixel centres: the first of two fine cells lies a quarter before the centre of its coarse cell, the second a quarter after.
    let weight = |phase: usize, tap: usize| {
        let other = if phase == 0 { centre.wrapping_sub(1) } else { centre + 1 };
        if tap == centre {
            0.75
        } else if tap == other {
            0.25
        } else {
            0.0
        }
    };
    Array3::from_shape_fn((2, 2, window * window), |(y, x, tap)| {
        (weight(y, tap / window) * weight(x, tap % window) + PRIOR_FLOOR).ln()
    })
}

/// Builds the graph of a head.
///
/// # Shapes
/// - `features`: `[B, h, w, C]` f32
/// - `pixels`: `[B, 3, H, W]` f32, the normalised image of this pass, `H / h = W / w` = patch size
/// - `upsampled`: `[B, 2h, 2w, C]` f32
/// - `pixels_2x`: `[B, 3, 2H, 2W]` f32, bilinear, for the next pass
///
/// # Errors
/// [`OnnxError`] when the graph does not hold together; that is a bug here and not of the weights.
pub fn build_lift(weights: &LiftWeights, options: LiftOptions) -> Result<ModelProto, OnnxError> {
    let mut graph = GraphBuilder::new("lift");
    let precision = options.precision;
    let channels = weights.up_weight.dim().0 - GUIDANCE_CHANNELS;
    let image_dims = [Dim::Any("batch"), Dim::Fixed(3), Dim::Any("height"), Dim::Any("width")];
    let map_dims = [Dim::Any("batch"), Dim::Any("rows"), Dim::Any("cols"), Dim::Fixed(channels)];
    let pixels = graph.input(io_names::PIXELS, DataType::Float, &image_dims);
    let features = graph.input(io_names::FEATURES, DataType::Float, &map_dims);

    let (fine, coarse) = guidance(&mut graph, weights, options, (&pixels, &features));
    let last = trunk(&mut graph, weights, precision, (&features, &fine, &coarse));
    let raw = linear(&mut graph, &last, &weights.out, None, (precision, "out"));
    let raw = widen(&mut graph, &raw, precision);
    let upsampled = match weights.window() {
        Some(window) => {
            let combined = combination(&mut graph, (&raw, window as usize), &features, (precision, channels));
            match &weights.correction {
                None => combined,
                Some(layer) => {
                    let correction = linear(&mut graph, &last, layer, None, (precision, "correction"));
                    let correction = widen(&mut graph, &correction, precision);
                    graph.add(&combined, &correction)
                }
            }
        }
        None if weights.form == LiftForm::Residual => {
            let doubled = bilinear_2x(&mut graph, &features);
            graph.add(&doubled, &raw)
        }
        None => raw,
    };
    let doubled_dims = [Dim::Any("batch"), Dim::Any("rows_2x"), Dim::Any("cols_2x"), Dim::Fixed(channels)];
    graph.output(&upsampled, io_names::UPSAMPLED, DataType::Float, &doubled_dims);

    let factors = graph.constant(TensorProto::f32(&[4], &[1.0, 1.0, 2.0, 2.0]), "factors");
    let pixels_2x = graph.resize_bilinear_by(&pixels, &factors);
    let doubled_dims = [Dim::Any("batch"), Dim::Fixed(3), Dim::Any("height_2x"), Dim::Any("width_2x")];
    graph.output(&pixels_2x, io_names::PIXELS_2X, DataType::Float, &doubled_dims);
    graph.finish()
}

/// What the last layer reads, `[B, 2h, 2w, M]`.
fn trunk(
    graph: &mut GraphBuilder,
    weights: &LiftWeights,
    precision: Precision,
    (features, fine, coarse): (&Value, &Value, &Value),
) -> Value {
    let scaled = match &weights.features {
        None => features.clone(),
        Some(norm) => {
            let scale = constant(graph, &norm.weight, Precision::Fp32, "features.scale");
            let shift = constant(graph, &norm.bias, Precision::Fp32, "features.shift");
            let scaled = graph.mul(features, &scale);
            graph.add(&scaled, &shift)
        }
    };
    let narrowed = narrow(graph, &scaled, precision);
    let map = graph.transpose(&narrowed, &[0, 3, 1, 2]);
    let joined = graph.concat(&[&map, coarse], 1);
    let up_weight = constant(graph, &weights.up_weight, precision, "up.weight");
    let up_bias = constant(graph, &weights.up_bias, precision, "up.bias");
    let up = graph.conv_transpose(&joined, &up_weight, &up_bias, 2);
    let joined = graph.concat(&[&up, fine], 1);
    let once = conv_relu(graph, &joined, &weights.double1, (1, precision, "double1"));
    let twice = conv_relu(graph, &once, &weights.double2, (1, precision, "double2"));
    graph.transpose(&twice, &[0, 2, 3, 1])
}

/// The features at twice the resolution, bilinear with half-pixel centres, `[B, 2h, 2w, C]`.
fn bilinear_2x(graph: &mut GraphBuilder, features: &Value) -> Value {
    let map = graph.transpose(features, &[0, 3, 1, 2]);
    let factors = graph.constant(TensorProto::f32(&[4], &[1.0, 1.0, 2.0, 2.0]), "factors");
    let doubled = graph.resize_bilinear_by(&map, &factors);
    graph.transpose(&doubled, &[0, 2, 3, 1])
}

/// Convex combinations of the coarse cells around each fine one: softmax of `logits` `[B, 2h, 2w, K * K]` plus the bilinear prior, times
/// the window of `features` `[B, h, w, C]`, beyond whose border the outermost cells repeat.
fn combination(
    graph: &mut GraphBuilder,
    (logits, window): (&Value, usize),
    features: &Value,
    (precision, channels): (Precision, usize),
) -> Value {
    let to_i64 = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let (side, n_taps, n_channels) = (to_i64(window), to_i64(window * window), to_i64(channels));
    let sizes =
        Sizes { batch: graph.shape(features, 0, 1), rows: graph.shape(features, 1, 2), cols: graph.shape(features, 2, 3) };

    // [B, 2h, 2w, K * K] -> [B, h, 2, w, 2, K * K], one row of weights a fine cell.
    let by_phase = sizes.reshape(
        graph,
        logits,
        &[Extent::Batch, Extent::Rows, Extent::Of(2), Extent::Cols, Extent::Of(2), Extent::Of(n_taps)],
    );
    let prior = bilinear_prior(window).insert_axis(Axis(1)).insert_axis(Axis(0));
    let prior = constant(graph, &prior, Precision::Fp32, "prior");
    let shifted = graph.add(&by_phase, &prior);
    let shares = graph.softmax(&shifted);
    let shares = narrow(graph, &shares, precision);
    let shares = graph.transpose(&shares, &[0, 1, 3, 2, 4, 5]);
    let shares = sizes.reshape(graph, &shares, &[Extent::Batch, Extent::Rows, Extent::Cols, Extent::Of(4), Extent::Of(n_taps)]);

    // [B, h, w, C] -> [B, h, w, K * K, C]: K shifts along the columns, then K of these along the rows.
    let narrowed = narrow(graph, features, precision);
    let padded = graph.pad_edge(&narrowed, side / 2, &[1, 2]);
    let along_cols = shifts(graph, &padded, (2, side), &sizes.cols);
    let windows = shifts(graph, &along_cols, (1, side), &sizes.rows);
    let windows =
        sizes.reshape(graph, &windows, &[Extent::Batch, Extent::Rows, Extent::Cols, Extent::Of(n_taps), Extent::Of(n_channels)]);

    let fine = graph.matmul(&shares, &windows);
    let fine = widen(graph, &fine, precision);
    let fine = sizes.reshape(
        graph,
        &fine,
        &[Extent::Batch, Extent::Rows, Extent::Cols, Extent::Of(2), Extent::Of(2), Extent::Of(n_channels)],
    );
    let fine = graph.transpose(&fine, &[0, 1, 3, 2, 4, 5]);
    let two = graph.ints(&[2]);
    let (rows, cols) = (graph.mul(&sizes.rows, &two), graph.mul(&sizes.cols, &two));
    let last = graph.ints(&[n_channels]);
    let shape = graph.concat(&[&sizes.batch, &rows, &cols, &last], 0);
    graph.reshape_to(&fine, &shape)
}

/// `side` copies of `x`, each begun one further along `axis` and cut to `extent`, joined along the channels.
fn shifts(graph: &mut GraphBuilder, x: &Value, (axis, side): (i64, i64), extent: &Value) -> Value {
    let parts: Vec<Value> = (0..side).map(|offset| graph.window(x, (axis, offset), extent)).collect();
    graph.concat(&parts.iter().collect::<Vec<_>>(), 3)
}

/// Extents of a map that the graph computes.
struct Sizes {
    batch: Value,
    rows: Value,
    cols: Value,
}

/// One extent of a shape.
#[derive(Clone, Copy)]
enum Extent {
    Batch,
    Rows,
    Cols,
    Of(i64),
}

impl Sizes {
    fn reshape(&self, graph: &mut GraphBuilder, x: &Value, shape: &[Extent]) -> Value {
        let extents: Vec<Value> = shape
            .iter()
            .map(|extent| match extent {
                Extent::Batch => self.batch.clone(),
                Extent::Rows => self.rows.clone(),
                Extent::Cols => self.cols.clone(),
                Extent::Of(value) => graph.ints(&[*value]),
            })
            .collect();
        let shape = graph.concat(&extents.iter().collect::<Vec<_>>(), 0);
        graph.reshape_to(x, &shape)
    }
}

/// Guidance from the image at twice the grid and at the grid, 32 channels each.
fn guidance(
    graph: &mut GraphBuilder,
    weights: &LiftWeights,
    options: LiftOptions,
    (pixels, features): (&Value, &Value),
) -> (Value, Value) {
    let precision = options.precision;
    let image = if options.patch == weights.guidance { pixels.clone() } else { fit(graph, weights.guidance, pixels, features) };
    let image = narrow(graph, &image, precision);
    let half = conv_relu(graph, &image, &weights.image1, (2, precision, "image1"));
    let quarter = conv_relu(graph, &half, &weights.image2, (2, precision, "image2"));
    let fine = if weights.guidance == 16 { graph.max_pool(&quarter, 2) } else { quarter };
    let coarse = conv_relu(graph, &fine, &weights.image3, (2, precision, "image3"));
    (fine, coarse)
}

/// The image with `guidance` pixels a cell.
fn fit(graph: &mut GraphBuilder, guidance: u32, pixels: &Value, features: &Value) -> Value {
    let grid = graph.shape(features, 1, 3);
    let factor = graph.ints(&[i64::from(guidance); 2]);
    let sides = graph.mul(&grid, &factor);
    let batch_and_channels = graph.shape(pixels, 0, 2);
    let sizes = graph.concat(&[&batch_and_channels, &sides], 0);
    graph.resize_bilinear_to(pixels, &sizes)
}

/// A 3x3 convolution, its BatchNorm folded in, and a ReLU.
fn conv_relu(graph: &mut GraphBuilder, x: &Value, layer: &ConvBn, (stride, precision, name): (i64, Precision, &str)) -> Value {
    let (weight, bias) = fold(layer);
    let weight = constant(graph, &weight, precision, &format!("{name}.weight"));
    let bias = constant(graph, &bias, precision, &format!("{name}.bias"));
    let y = graph.conv(x, &weight, &bias, ConvGeometry { kernel: 3, stride, pad: 1 });
    graph.relu(&y)
}

/// `BN(conv(x)) = conv'(x)`: weight `W g / s`, bias `beta + (b - mean) g / s`, with `s = sqrt(var + eps)`.
fn fold(layer: &ConvBn) -> (Array4<f32>, Array1<f32>) {
    let scale = &layer.gamma / &layer.var.mapv(|var| (var + BN_EPSILON).sqrt());
    let per_kernel = scale.view().insert_axis(Axis(1)).insert_axis(Axis(2)).insert_axis(Axis(3)).to_owned();
    let shift = match &layer.bias {
        Some(bias) => bias - &layer.mean,
        None => -&layer.mean,
    };
    (&layer.weight * &per_kernel, &layer.beta + &(shift * &scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prior_is_bilinear_upsampling_with_a_floor() {
        let prior = bilinear_prior(3).mapv(f32::exp);
        // The fine cell at the top left of its coarse cell: 9/16 of it, 3/16 of the one above, 3/16 of the left, 1/16 of both.
        let expected = [0.0625, 0.1875, 0.0, 0.1875, 0.5625, 0.0, 0.0, 0.0, 0.0];
        for (got, expected) in prior.slice(ndarray::s![0, 0, ..]).iter().zip(expected) {
            assert!((got - expected - PRIOR_FLOOR).abs() < 1e-6, "{got} {expected}");
        }
        assert_eq!(prior[(1, 1, 4)].to_bits(), prior[(0, 0, 4)].to_bits());
        assert!((prior[(1, 1, 8)] - 0.0625 - PRIOR_FLOOR).abs() < 1e-6, "the other corner for the fine cell at the bottom right");
    }
}
