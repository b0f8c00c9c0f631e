//! Assembles a LiFT head from the names of its authors' state dict.

use ndarray::{Array1, Array2, Array4, Axis, Ix1, Ix4};

use crate::weights::{ConvBn, LiftWeights, Linear, WeightsError, named::NamedTensors};

/// Order of the feature channels that a head was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Head-major, `head * d + i`: what the graphs here compute.
    Natural,
    /// `i * heads + head`, as the authors' feature extractor flattens keys of so many heads; official checkpoints expect it.
    HeadFastest {
        /// Attention heads of the backbone.
        heads: u32,
    },
}

/// Assembles the head in `tensors` for a backbone of `patch` pixels and `channels` channels.
///
/// # Errors
/// [`WeightsError::Missing`], [`WeightsError::Tensor`] for a wrong shape, [`WeightsError::Unmatched`] for names left over.
pub fn assemble_lift(
    tensors: NamedTensors,
    patch: u32,
    channels: usize,
    order: ChannelOrder,
) -> Result<LiftWeights, WeightsError> {
    let mut tensors = tensors.renamed(|name| {
        let name = name.strip_prefix("module.").unwrap_or(name);
        (!name.ends_with("num_batches_tracked")).then(|| name.to_owned())
    });
    let (up, half) = ((channels + 32) / 2, channels / 2);
    let mut weights = LiftWeights {
        // The published module pools for patch 16 and does not for patch 8; other patch sizes are fitted to 16.
        guidance: if patch == 8 { 8 } else { 16 },
        image1: conv_bn(&mut tensors, "image_convs_1.0", "image_convs_1.1", [32, 3, 3, 3])?,
        image2: conv_bn(&mut tensors, "image_convs_1.3", "image_convs_1.4", [32, 32, 3, 3])?,
        image3: conv_bn(&mut tensors, "image_convs_2.0", "image_convs_2.1", [32, 32, 3, 3])?,
        up_weight: take(&mut tensors, "up1.up.weight", [channels + 32, up, 2, 2])?,
        up_bias: take_vector(&mut tensors, "up1.up.bias", up)?,
        double1: conv_bn(&mut tensors, "up1.conv_1.double_conv.0", "up1.conv_1.double_conv.1", [half, up + 32, 3, 3])?,
        double2: conv_bn(&mut tensors, "up1.conv_1.double_conv.3", "up1.conv_1.double_conv.4", [half, half, 3, 3])?,
        out: out(&mut tensors, channels, half)?,
    };
    let left_over = tensors.names().take(12).collect::<Vec<_>>().join(", ");
    if !left_over.is_empty() {
        return Err(WeightsError::Unmatched { key_map: "official LiFT", missing: "nothing".into(), left_over });
    }
    if let ChannelOrder::HeadFastest { heads } = order {
        to_natural_order(&mut weights, channels, heads as usize)?;
    }
    Ok(weights)
}

/// Moves input and output channels from `i * heads + head` to `head * d + i`.
fn to_natural_order(weights: &mut LiftWeights, channels: usize, heads: usize) -> Result<(), WeightsError> {
    if heads == 0 || !channels.is_multiple_of(heads) {
        let problem = format!("has {channels} feature channels, which {heads} heads do not divide");
        return Err(WeightsError::Tensor { name: "up1.up.weight".into(), problem });
    }
    let width = channels / heads;
    let source = |natural: usize| (natural % width) * heads + natural / width;
    let features: Vec<usize> = (0..channels).map(source).collect();
    let with_guidance: Vec<usize> = features.iter().copied().chain(channels..channels + 32).collect();
    weights.up_weight = weights.up_weight.select(Axis(0), &with_guidance);
    weights.out =
        Linear { weight: weights.out.weight.select(Axis(0), &features), bias: weights.out.bias.select(Axis(0), &features) };
    Ok(())
}

fn conv_bn(tensors: &mut NamedTensors, conv: &str, norm: &str, shape: [usize; 4]) -> Result<ConvBn, WeightsError> {
    let bias = format!("{conv}.bias");
    let has_bias = tensors.shape(&bias).is_some();
    let n_out = shape[0];
    Ok(ConvBn {
        weight: take(tensors, &format!("{conv}.weight"), shape)?,
        bias: if has_bias { Some(take_vector(tensors, &bias, n_out)?) } else { None },
        gamma: take_vector(tensors, &format!("{norm}.weight"), n_out)?,
        beta: take_vector(tensors, &format!("{norm}.bias"), n_out)?,
        mean: take_vector(tensors, &format!("{norm}.running_mean"), n_out)?,
        var: take_vector(tensors, &format!("{norm}.running_var"), n_out)?,
    })
}

fn out(tensors: &mut NamedTensors, channels: usize, half: usize) -> Result<Linear, WeightsError> {
    let kernel = take(tensors, "outc.weight", [channels, half, 1, 1])?;
    let bias = take_vector(tensors, "outc.bias", channels)?;
    let weight: Array2<f32> = kernel.index_axis_move(Axis(3), 0).index_axis_move(Axis(2), 0);
    Ok(Linear { weight, bias })
}

fn take(tensors: &mut NamedTensors, name: &str, shape: [usize; 4]) -> Result<Array4<f32>, WeightsError> {
    let array = tensors.take_as::<Ix4>(name)?;
    if array.shape() == shape {
        return Ok(array);
    }
    Err(wrong_shape(name, array.shape(), &shape))
}

fn take_vector(tensors: &mut NamedTensors, name: &str, len: usize) -> Result<Array1<f32>, WeightsError> {
    let array = tensors.take_as::<Ix1>(name)?;
    if array.len() == len {
        return Ok(array);
    }
    Err(wrong_shape(name, array.shape(), &[len]))
}

fn wrong_shape(name: &str, got: &[usize], expected: &[usize]) -> WeightsError {
    WeightsError::Tensor { name: name.to_owned(), problem: format!("has shape {got:?}, this backbone needs {expected:?}") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn official_channel_order_is_undone_on_both_sides() {
        // Four channels, two heads of two: official channel i * 2 + head holds natural channel head * 2 + i.
        let zeros = |n: usize| Array1::zeros(n);
        let conv = || ConvBn {
            weight: Array4::zeros((1, 1, 1, 1)),
            bias: None,
            gamma: zeros(1),
            beta: zeros(1),
            mean: zeros(1),
            var: zeros(1),
        };
        let official = [0.0, 2.0, 1.0, 3.0];
        let mut weights = LiftWeights {
            guidance: 16,
            image1: conv(),
            image2: conv(),
            image3: conv(),
            up_weight: Array4::from_shape_fn((36, 1, 1, 1), |(channel, ..)| official.get(channel).copied().unwrap_or(9.0)),
            up_bias: zeros(1),
            double1: conv(),
            double2: conv(),
            out: Linear {
                weight: Array2::from_shape_fn((4, 1), |(channel, _)| official[channel]),
                bias: Array1::from(official.to_vec()),
            },
        };
        to_natural_order(&mut weights, 4, 2).unwrap();
        let natural = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(weights.up_weight.iter().take(4).copied().collect::<Vec<_>>(), natural);
        assert!(weights.up_weight.iter().skip(4).all(|value| *value == 9.0), "guidance channels stay");
        assert_eq!(weights.out.bias.to_vec(), natural);
        assert_eq!(weights.out.weight.iter().copied().collect::<Vec<_>>(), natural);
    }
}
