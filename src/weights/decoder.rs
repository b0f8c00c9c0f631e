//! Stages of the attention-to-mask decoder: reads them by the names of the published state dict.

use ndarray::{Array1, Array2, Ix1, Ix2, s};

use crate::weights::{Linear, NamedTensors, Norm, WeightsError};

/// A post-norm decoder layer: self-attention of the queries, cross-attention to a map, feed-forward network.
///
/// D channels; every attention layer is `[D, D]`, output channels head-major.
#[derive(Clone, Debug)]
pub struct DecoderLayer {
    /// Queries, keys and values of the self-attention.
    pub self_qkv: [Linear; 3],
    /// Output of the self-attention.
    pub self_out: Linear,
    /// After the self-attention.
    pub norm1: Norm,
    /// Queries of the cross-attention, from the queries.
    pub cross_query: Linear,
    /// Keys of the cross-attention, from the map.
    pub cross_key: Linear,
    /// Values of the cross-attention, from the map.
    pub cross_value: Linear,
    /// Output of the cross-attention.
    pub cross_out: Linear,
    /// After the cross-attention.
    pub norm2: Norm,
    /// First layer of the feed-forward network, `[4D, D]`.
    pub fc1: Linear,
    /// Second layer of the feed-forward network, `[D, 4D]`.
    pub fc2: Linear,
    /// After the feed-forward network.
    pub norm3: Norm,
}

/// Fits a tap to the decoder: a linear layer `[D, C]` and a LayerNorm.
#[derive(Clone, Debug)]
pub struct TapProjection {
    /// `[D, C]`.
    pub linear: Linear,
    /// `[D]`.
    pub norm: Norm,
}

/// What reads one tap.
#[derive(Clone, Debug)]
pub struct DecoderStage {
    /// Before the layers; none where the map has D channels already.
    pub projection: Option<TapProjection>,
    /// Layers, first to last.
    pub layers: Vec<DecoderLayer>,
}

/// Width and number of layers that all stages of a head share.
#[derive(Clone, Copy, Debug)]
pub(super) struct StageSize {
    pub(super) width: usize,
    pub(super) n_layers: usize,
}

/// Number of stages in the file under `prefix`, and of layers of the first.
pub(super) fn count(tensors: &NamedTensors, prefix: &str) -> (usize, usize) {
    let has =
        |stage: usize, layer: usize| tensors.shape(&format!("{prefix}decoder_{stage}.layers.{layer}.norm1.weight")).is_some();
    let n_stages = (1..).take_while(|stage| has(*stage, 0)).count();
    let n_layers = (0..).take_while(|layer| has(1, *layer)).count();
    (n_stages, n_layers)
}

/// Takes stage number `stage`, from 1, that reads a tap of `channels` channels, or a map of the decoder's width without projection.
pub(super) fn take_stage(
    tensors: &mut NamedTensors,
    (prefix, stage): (&str, usize),
    size: StageSize,
    channels: Option<usize>,
) -> Result<DecoderStage, WeightsError> {
    let width = size.width;
    let projection = channels.map(|channels| {
        let linear = take_linear(tensors, &format!("{prefix}input_proj_{stage}"), [width, channels])?;
        Ok(TapProjection { linear, norm: take_norm(tensors, &format!("{prefix}proj_norm_{stage}"), width)? })
    });
    let layer = |layer: usize| take_layer(tensors, &format!("{prefix}decoder_{stage}.layers.{layer}"), width);
    Ok(DecoderStage { projection: projection.transpose()?, layers: (0..size.n_layers).map(layer).collect::<Result<_, _>>()? })
}

fn take_layer(tensors: &mut NamedTensors, name: &str, width: usize) -> Result<DecoderLayer, WeightsError> {
    let self_qkv = take_packed(tensors, &format!("{name}.self_attn"), width)?;
    let mut square = |part: &str| take_linear(tensors, &format!("{name}.{part}"), [width, width]);
    let self_out = square("self_attn.out_proj")?;
    let [cross_query, cross_key, cross_value, cross_out] =
        [square("multihead_attn.q")?, square("multihead_attn.k")?, square("multihead_attn.v")?, square("multihead_attn.proj")?];
    let fc1 = take_linear(tensors, &format!("{name}.linear1"), [4 * width, width])?;
    let fc2 = take_linear(tensors, &format!("{name}.linear2"), [width, 4 * width])?;
    let mut norm = |part: &str| take_norm(tensors, &format!("{name}.{part}"), width);
    let (norm1, norm2, norm3) = (norm("norm1")?, norm("norm2")?, norm("norm3")?);
    Ok(DecoderLayer { self_qkv, self_out, norm1, cross_query, cross_key, cross_value, cross_out, norm2, fc1, fc2, norm3 })
}

/// Queries, keys and values whose weights lie one after the other in one tensor.
fn take_packed(tensors: &mut NamedTensors, name: &str, width: usize) -> Result<[Linear; 3], WeightsError> {
    let weight: Array2<f32> = tensors.take_shaped(&format!("{name}.in_proj_weight"), Ix2(3 * width, width))?;
    let bias: Array1<f32> = tensors.take_shaped(&format!("{name}.in_proj_bias"), Ix1(3 * width))?;
    Ok([0, 1, 2].map(|part| {
        let rows = part * width..(part + 1) * width;
        Linear { weight: weight.slice(s![rows.clone(), ..]).to_owned(), bias: bias.slice(s![rows]).to_owned() }
    }))
}

/// Takes a linear layer, `[out, in]`.
pub(super) fn take_linear(tensors: &mut NamedTensors, name: &str, [n_out, n_in]: [usize; 2]) -> Result<Linear, WeightsError> {
    let weight = tensors.take_shaped(&format!("{name}.weight"), Ix2(n_out, n_in))?;
    Ok(Linear { weight, bias: tensors.take_shaped(&format!("{name}.bias"), Ix1(n_out))? })
}

fn take_norm(tensors: &mut NamedTensors, name: &str, width: usize) -> Result<Norm, WeightsError> {
    let weight = tensors.take_shaped(&format!("{name}.weight"), Ix1(width))?;
    Ok(Norm { weight, bias: tensors.take_shaped(&format!("{name}.bias"), Ix1(width))? })
}
