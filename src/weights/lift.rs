//! Assembles a LiFT head from the names of its authors' state dict.

use ndarray::{Array1, Array2, Array4, Axis, Ix1, Ix4};

use crate::{
    manifest::LiftForm,
    weights::{ConvBn, LiftWeights, Linear, Norm, WeightsError, named::NamedTensors},
};

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

/// Epsilon of the BatchNorm over the features.
const BN_EPSILON: f32 = 1e-5;
/// A tensor that every head has, and nothing else.
const LANDMARK: &str = "image_convs_1.0.weight";

/// Assembles the head in `tensors` for a backbone of `patch` pixels and `channels` channels.
///
/// Names are those of the authors' state dict. Heads of another form carry its name in front: `guided.up1.up.weight`. Before it may
/// stand whatever a checkpoint puts around a state dict: `state_dict.module.up1.up.weight`.
///
/// # Errors
/// [`WeightsError::Missing`], [`WeightsError::Tensor`] for a wrong shape, [`WeightsError::Unmatched`] for names left over.
pub fn assemble_lift(
    tensors: NamedTensors,
    patch: u32,
    channels: usize,
    order: ChannelOrder,
) -> Result<LiftWeights, WeightsError> {
    let (form, prefix) = recognise_lift(tensors.names());
    let mut tensors = tensors.renamed(|name| {
        let name = name.strip_prefix(&prefix).filter(|name| !name.ends_with("num_batches_tracked"));
        name.map(str::to_owned)
    });
    let (up, mid, n_outputs) = widths(&tensors, form, channels)?;
    let mut weights = LiftWeights {
        form,
        // The published module pools for patch 16 and does not for patch 8; other patch sizes are fitted to 16.
        guidance: if patch == 8 { 8 } else { 16 },
        features: if form == LiftForm::Official { None } else { Some(features(&mut tensors, channels)?) },
        image1: conv_bn(&mut tensors, "image_convs_1.0", "image_convs_1.1", [32, 3, 3, 3])?,
        image2: conv_bn(&mut tensors, "image_convs_1.3", "image_convs_1.4", [32, 32, 3, 3])?,
        image3: conv_bn(&mut tensors, "image_convs_2.0", "image_convs_2.1", [32, 32, 3, 3])?,
        up_weight: take(&mut tensors, "up1.up.weight", [channels + 32, up, 2, 2])?,
        up_bias: take_vector(&mut tensors, "up1.up.bias", up)?,
        double1: conv_bn(&mut tensors, "up1.conv_1.double_conv.0", "up1.conv_1.double_conv.1", [mid, up + 32, 3, 3])?,
        double2: conv_bn(&mut tensors, "up1.conv_1.double_conv.3", "up1.conv_1.double_conv.4", [mid, mid, 3, 3])?,
        out: pointwise(&mut tensors, "outc", n_outputs, mid)?,
        correction: match form {
            LiftForm::Corrected => Some(pointwise(&mut tensors, "correction", channels, mid)?),
            _ => None,
        },
    };
    let left_over = tensors.names().take(12).collect::<Vec<_>>().join(", ");
    if !left_over.is_empty() {
        return Err(WeightsError::Unmatched { key_map: "LiFT", missing: "nothing".into(), left_over });
    }
    if let (ChannelOrder::HeadFastest { heads }, LiftForm::Official) = (order, form) {
        to_natural_order(&mut weights, channels, heads as usize)?;
    }
    Ok(weights)
}

/// Whether the tensors are named like those of a LiFT head.
#[must_use]
pub fn is_lift(tensors: &NamedTensors) -> bool {
    tensors.names().any(|name| name.strip_suffix(LANDMARK).is_some_and(is_prefix))
}

fn is_prefix(text: &str) -> bool {
    text.is_empty() || text.ends_with('.')
}

/// The form of a head whose tensors have these names, and what stands before the official ones: keys of the checkpoint around them,
/// `module.`, the form's name.
pub fn recognise_lift<'a>(mut names: impl Iterator<Item = &'a str>) -> (LiftForm, String) {
    let before = |name: &'a str| name.strip_suffix(LANDMARK).filter(|prefix| is_prefix(prefix));
    let prefix = names.find_map(before).unwrap_or_default();
    let marked = |form: &LiftForm| !form.prefix().is_empty() && format!(".{prefix}").ends_with(&format!(".{}", form.prefix()));
    (LiftForm::ALL.into_iter().find(marked).unwrap_or(LiftForm::Official), prefix.to_owned())
}

/// Widths of the trunk and number of outputs: fixed in the official form, read from the shapes in the others.
fn widths(tensors: &NamedTensors, form: LiftForm, channels: usize) -> Result<(usize, usize, usize), WeightsError> {
    if form == LiftForm::Official {
        return Ok(((channels + 32) / 2, channels / 2, channels));
    }
    let extent = |name: &str, axis: usize| {
        let shape = tensors.shape(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
        shape.get(axis).copied().ok_or_else(|| wrong_shape(name, shape, &[0; 4]))
    };
    let (up, mid, n_outputs) = (extent("up1.up.weight", 1)?, extent("outc.weight", 1)?, extent("outc.weight", 0)?);
    let window = n_outputs.isqrt();
    let fits = match form {
        LiftForm::Guided | LiftForm::Corrected => window * window == n_outputs && window % 2 == 1,
        LiftForm::Official | LiftForm::Residual => n_outputs == channels,
    };
    if fits {
        return Ok((up, mid, n_outputs));
    }
    let problem = format!(
        "has {n_outputs} outputs: {} for the {} form",
        if form == LiftForm::Residual { "expected one a channel" } else { "expected the square of an odd number" },
        form.name()
    );
    Err(WeightsError::Tensor { name: "outc.weight".into(), problem })
}

/// The BatchNorm over the features, in evaluation mode, as scale and shift.
fn features(tensors: &mut NamedTensors, channels: usize) -> Result<Norm, WeightsError> {
    let mut part = |name: &str| take_vector(tensors, &format!("features.{name}"), channels);
    let (gamma, beta, mean, var) = (part("weight")?, part("bias")?, part("running_mean")?, part("running_var")?);
    let scale = gamma / var.mapv(|var| (var + BN_EPSILON).sqrt());
    let bias = beta - mean * &scale;
    Ok(Norm { weight: scale, bias })
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

/// A 1x1 convolution.
fn pointwise(tensors: &mut NamedTensors, name: &str, n_outputs: usize, mid: usize) -> Result<Linear, WeightsError> {
    let kernel = take(tensors, &format!("{name}.weight"), [n_outputs, mid, 1, 1])?;
    let bias = take_vector(tensors, &format!("{name}.bias"), n_outputs)?;
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

    use bytes::Bytes;

    use super::*;
    use crate::weights::{Stored, StoredType};

    /// A head of zeros under the names of its form.
    fn zeros(form: LiftForm, [channels, up, mid, n_outputs]: [usize; 4]) -> NamedTensors {
        let mut tensors = NamedTensors::default();
        let mut insert = |name: &str, shape: &[usize]| {
            let bytes = Bytes::from(vec![0; 4 * shape.iter().product::<usize>()]);
            let tensor = Stored { element_type: Some(StoredType::F32), shape: shape.to_vec(), bytes };
            tensors.insert(format!("{}{name}", form.prefix()), tensor);
        };
        let convs = [
            ("image_convs_1.0", "image_convs_1.1", [32, 3, 3, 3], true),
            ("image_convs_1.3", "image_convs_1.4", [32, 32, 3, 3], true),
            ("image_convs_2.0", "image_convs_2.1", [32, 32, 3, 3], true),
            ("up1.conv_1.double_conv.0", "up1.conv_1.double_conv.1", [mid, up + 32, 3, 3], false),
            ("up1.conv_1.double_conv.3", "up1.conv_1.double_conv.4", [mid, mid, 3, 3], false),
        ];
        for (conv, norm, shape, has_bias) in convs {
            insert(&format!("{conv}.weight"), &shape);
            if has_bias {
                insert(&format!("{conv}.bias"), &shape[..1]);
            }
            ["weight", "bias", "running_mean", "running_var"]
                .iter()
                .for_each(|part| insert(&format!("{norm}.{part}"), &shape[..1]));
        }
        insert("up1.up.weight", &[channels + 32, up, 2, 2]);
        insert("up1.up.bias", &[up]);
        insert("outc.weight", &[n_outputs, mid, 1, 1]);
        insert("outc.bias", &[n_outputs]);
        if form == LiftForm::Corrected {
            insert("correction.weight", &[channels, mid, 1, 1]);
            insert("correction.bias", &[channels]);
        }
        if form != LiftForm::Official {
            ["weight", "bias", "running_mean", "running_var"]
                .iter()
                .for_each(|part| insert(&format!("features.{part}"), &[channels]));
        }
        tensors
    }

    #[test]
    fn parameter_counts_are_those_of_the_published_module() {
        for (channels, count) in [(192, 346_416), (384, 1_187_280), (768, 4_417_296), (1024, 7_717_520)] {
            let file = zeros(LiftForm::Official, [channels, (channels + 32) / 2, channels / 2, channels]);
            let head = assemble_lift(file, 16, channels, ChannelOrder::Natural).unwrap();
            assert_eq!((head.n_parameters(), head.window()), (count, None));
        }
    }

    #[test]
    fn other_forms_are_told_by_their_prefix_and_bring_their_own_widths() {
        let guided = assemble_lift(zeros(LiftForm::Guided, [64, 16, 24, 25]), 14, 64, ChannelOrder::Natural).unwrap();
        assert_eq!((guided.form, guided.window(), guided.guidance), (LiftForm::Guided, Some(5), 16));
        let residual = assemble_lift(zeros(LiftForm::Residual, [64, 16, 24, 64]), 8, 64, ChannelOrder::Natural).unwrap();
        assert_eq!((residual.form, residual.window(), residual.guidance), (LiftForm::Residual, None, 8));
        let corrected = assemble_lift(zeros(LiftForm::Corrected, [64, 16, 24, 25]), 14, 64, ChannelOrder::Natural).unwrap();
        assert_eq!((corrected.form, corrected.window()), (LiftForm::Corrected, Some(5)));
        assert_eq!(corrected.n_parameters(), guided.n_parameters() + 64 * 24 + 64);
        let around = |name: &str| Some(format!("state_dict.module.{name}"));
        let checkpoint = zeros(LiftForm::Guided, [64, 16, 24, 25]).renamed(around);
        let wrapped = assemble_lift(checkpoint, 14, 64, ChannelOrder::Natural).unwrap();
        assert_eq!(wrapped.n_parameters(), guided.n_parameters(), "keys of a checkpoint may stand before the prefix");
        for wrong in [(LiftForm::Guided, 16), (LiftForm::Guided, 24), (LiftForm::Corrected, 64), (LiftForm::Residual, 25)] {
            let error = assemble_lift(zeros(wrong.0, [64, 16, 24, wrong.1]), 14, 64, ChannelOrder::Natural).unwrap_err();
            assert!(error.to_string().contains("outc.weight"), "{error}");
        }
    }

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
            form: LiftForm::Official,
            features: None,
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
            correction: None,
        };
        to_natural_order(&mut weights, 4, 2).unwrap();
        let natural = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(weights.up_weight.iter().take(4).copied().collect::<Vec<_>>(), natural);
        assert!(weights.up_weight.iter().skip(4).all(|value| *value == 9.0), "guidance channels stay");
        assert_eq!(weights.out.bias.to_vec(), natural);
        assert_eq!(weights.out.weight.iter().copied().collect::<Vec<_>>(), natural);
    }
}
