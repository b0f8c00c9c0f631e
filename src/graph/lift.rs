//! The LiFT head's graph (Suri et al., "LiFT: A Surprisingly Simple Lightweight Feature Transform for Dense ViT Descriptors",
//! ECCV 2024): twice the resolution from the features and the image.
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

use ndarray::{Array1, Array4, Axis};

use crate::{
    graph::constants::{constant, linear, narrow, widen},
    manifest::{Precision, io_names},
    onnx::{
        ConvGeometry, Dim, GraphBuilder, ModelProto, OnnxError, Value,
        proto::{DataType, TensorProto},
    },
    weights::{ConvBn, LiftWeights},
};

/// Epsilon of the BatchNorms.
const BN_EPSILON: f32 = 1e-5;

/// How the graph is built.
#[derive(Clone, Copy, Debug)]
pub struct LiftOptions {
    /// Patch size of the backbone, in pixels.
    pub patch: u32,
    /// Element type of weights and products.
    pub precision: Precision,
}

/// Weights of a head for `channels` channels (even), without BatchNorm statistics. 1,187,280 for 384.
#[must_use]
pub fn lift_parameters(channels: u64) -> u64 {
    let (up, half) = ((channels + 32) / 2, channels / 2);
    let image = (3 * 32 * 9 + 32) + 2 * (32 * 32 * 9 + 32) + 3 * 64;
    let transposed = (channels + 32) * up * 4 + up;
    let double = 9 * (up + 32) * half + 9 * half * half + 4 * half;
    image + transposed + double + half * channels + channels
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
    let channels = weights.out.weight.nrows();
    let image_dims = [Dim::Any("batch"), Dim::Fixed(3), Dim::Any("height"), Dim::Any("width")];
    let map_dims = [Dim::Any("batch"), Dim::Any("rows"), Dim::Any("cols"), Dim::Fixed(channels)];
    let pixels = graph.input(io_names::PIXELS, DataType::Float, &image_dims);
    let features = graph.input(io_names::FEATURES, DataType::Float, &map_dims);

    let (fine, coarse) = guidance(&mut graph, weights, options, (&pixels, &features));
    let narrowed = narrow(&mut graph, &features, precision);
    let map = graph.transpose(&narrowed, &[0, 3, 1, 2]);
    let joined = graph.concat(&[&map, &coarse], 1);
    let up_weight = constant(&mut graph, &weights.up_weight, precision, "up.weight");
    let up_bias = constant(&mut graph, &weights.up_bias, precision, "up.bias");
    let up = graph.conv_transpose(&joined, &up_weight, &up_bias, 2);
    let joined = graph.concat(&[&up, &fine], 1);
    let once = conv_relu(&mut graph, &joined, &weights.double1, (1, precision, "double1"));
    let twice = conv_relu(&mut graph, &once, &weights.double2, (1, precision, "double2"));
    let last = graph.transpose(&twice, &[0, 2, 3, 1]);
    let upsampled = linear(&mut graph, &last, &weights.out, None, (precision, "out"));
    let upsampled = widen(&mut graph, &upsampled, precision);
    let doubled_dims = [Dim::Any("batch"), Dim::Any("rows_2x"), Dim::Any("cols_2x"), Dim::Fixed(channels)];
    graph.output(&upsampled, io_names::UPSAMPLED, DataType::Float, &doubled_dims);

    let factors = graph.constant(TensorProto::f32(&[4], &[1.0, 1.0, 2.0, 2.0]), "factors");
    let pixels_2x = graph.resize_bilinear_by(&pixels, &factors);
    let doubled_dims = [Dim::Any("batch"), Dim::Fixed(3), Dim::Any("height_2x"), Dim::Any("width_2x")];
    graph.output(&pixels_2x, io_names::PIXELS_2X, DataType::Float, &doubled_dims);
    graph.finish()
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
    fn parameter_counts_are_those_of_the_published_module() {
        for (channels, count) in [(192, 346_416), (384, 1_187_280), (768, 4_417_296), (1024, 7_717_520)] {
            assert_eq!(lift_parameters(channels), count);
        }
    }
}
