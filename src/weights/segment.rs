//! Segmentation heads by the names of their tensors: which of the three forms it is, and its weights with every shape checked.

use ndarray::{Array1, Array2, Array3, Ix1, Ix2, Ix3};

use crate::{
    manifest::SegmentForm,
    weights::{
        DecoderStage, Linear, NamedTensors, Norm, SegmentShape, WeightsError,
        decoder::{StageSize, count, take_linear, take_stage},
    },
};

/// Channels of an attention head, unless the number of heads is given: the published models, 12 heads at 384 and 16 at 512.
const HEAD_WIDTH: usize = 32;
/// Epsilon of the BatchNorm of linear heads.
const BN_EPSILON: f32 = 1e-5;
/// A tensor that every decoder has, and the ones that together mark a linear head.
const CLASS_LANDMARK: &str = "class_embed.weight";
const LINEAR_LANDMARKS: [&str; 2] = ["norm.running_mean", "linear.weight"];
/// Before the names of the part of a shrunk head that brings taps back to the full grid.
const QU: &str = "qu.";
/// Before the names of what only training needs, in checkpoints of a whole segmentation framework.
const LOSS: &str = "loss_decode.";

/// All weights of a segmentation head; K classes, C channels of the taps, D of the decoder.
#[derive(Clone, Debug)]
pub enum SegmentWeights {
    /// SegViT (NeurIPS 2022).
    Segvit(SegvitWeights),
    /// SegViT Shrunk.
    Shrunk(Box<ShrunkWeights>),
    /// BatchNorm and 1x1 convolution.
    Linear(LinearHeadWeights),
}

/// What makes scores of the stages of a decoder.
#[derive(Clone, Debug)]
pub struct ClassQueries {
    /// Attention heads of the decoder.
    pub heads: u32,
    /// Learned queries, one a class, `[K, D]`.
    pub queries: Array2<f32>,
    /// Shared by all stages: D to K classes and "no object", `[K + 1, D]`.
    pub class_embed: Linear,
}

/// An attention-to-mask decoder.
#[derive(Clone, Debug)]
pub struct SegvitWeights {
    /// Queries and classes.
    pub classes: ClassQueries,
    /// One a tap, in the order of reading, each with a projection.
    pub stages: Vec<DecoderStage>,
}

/// A decoder for a backbone that halves its grid.
#[derive(Clone, Debug)]
pub struct ShrunkWeights {
    /// Learned queries of the full grid, at the grid of the training, `[D, rows, cols]`.
    pub query_map: Array3<f32>,
    /// One a tap, in the order of the blocks, each with a projection.
    pub gather: Vec<DecoderStage>,
    /// Queries and classes.
    pub classes: ClassQueries,
    /// The stage that makes masks, without a projection.
    pub stage: DecoderStage,
}

/// A linear head.
#[derive(Clone, Debug)]
pub struct LinearHeadWeights {
    /// The BatchNorm in evaluation mode as scale and shift, `[C]` each.
    pub norm: Norm,
    /// `[K, C]`.
    pub linear: Linear,
}

impl SegmentWeights {
    /// Sizes of the head.
    #[must_use]
    pub fn shape(&self) -> SegmentShape {
        let of_stages = |form, (width, n_classes), stages: &[DecoderStage]| SegmentShape {
            form,
            channels: stages.iter().find_map(|stage| stage.projection.as_ref()).map_or(width, |p| p.linear.weight.ncols()),
            width,
            n_classes,
            n_taps: stages.len(),
            n_layers: stages.first().map_or(0, |stage| stage.layers.len()),
            query_grid: None,
        };
        let of_classes = |classes: &ClassQueries| (classes.queries.ncols(), classes.queries.nrows());
        match self {
            Self::Segvit(head) => of_stages(SegmentForm::Segvit, of_classes(&head.classes), &head.stages),
            Self::Shrunk(head) => {
                let (_, rows, cols) = head.query_map.dim();
                let shape = of_stages(SegmentForm::Shrunk, of_classes(&head.classes), &head.gather);
                SegmentShape { query_grid: Some([rows, cols]), ..shape }
            }
            Self::Linear(head) => SegmentShape::linear(head.linear.weight.ncols(), head.linear.weight.nrows()),
        }
    }
}

/// The form of a segmentation head whose tensors have these names, and what stands before them: keys of a checkpoint around them. None if
/// they are those of no segmentation head.
#[must_use]
pub fn recognise_segment(tensors: &NamedTensors) -> Option<(SegmentForm, String)> {
    let prefix = |landmark: &str| {
        let before = |name: &str| name.strip_suffix(landmark).map(str::to_owned);
        let mut prefixes = tensors.names().filter_map(before);
        prefixes.find(|prefix| prefix.is_empty() || prefix.ends_with('.'))
    };
    let has = |name: String| tensors.shape(&name).is_some();
    if let Some(prefix) = prefix(CLASS_LANDMARK) {
        let form = if has(format!("{prefix}{QU}query")) { SegmentForm::Shrunk } else { SegmentForm::Segvit };
        return Some((form, prefix));
    }
    let [first, second] = LINEAR_LANDMARKS;
    let prefix = prefix(first).filter(|prefix| has(format!("{prefix}{second}")))?;
    Some((SegmentForm::Linear, prefix))
}

/// Assembles the head in `tensors` for a backbone of `channels` channels; `heads` is the number of attention heads, otherwise one for 32
/// channels of the decoder. The numbers of classes, channels, stages and layers are read from names and shapes.
///
/// # Errors
/// [`WeightsError::Unrecognised`] for names of no segmentation head, [`WeightsError::Missing`], [`WeightsError::Tensor`] for a wrong
/// shape, [`WeightsError::Unmatched`] for names left over.
pub fn assemble_segment(tensors: NamedTensors, channels: usize, heads: Option<u32>) -> Result<SegmentWeights, WeightsError> {
    let Some((form, prefix)) = recognise_segment(&tensors) else { return Err(unrecognised(&tensors)) };
    let mut tensors = tensors.renamed(|name| {
        let is_weight = |name: &&str| !name.ends_with("num_batches_tracked") && !name.starts_with(LOSS);
        name.strip_prefix(&prefix).filter(is_weight).map(str::to_owned)
    });
    let weights = match form {
        SegmentForm::Segvit => SegmentWeights::Segvit(segvit(&mut tensors, channels, heads)?),
        SegmentForm::Shrunk => SegmentWeights::Shrunk(Box::new(shrunk(&mut tensors, channels, heads)?)),
        SegmentForm::Linear => SegmentWeights::Linear(linear_head(&mut tensors, channels)?),
    };
    let left_over = tensors.names().take(12).collect::<Vec<_>>().join(", ");
    if left_over.is_empty() {
        return Ok(weights);
    }
    Err(WeightsError::Unmatched { key_map: form.name(), missing: "nothing".into(), left_over })
}

fn segvit(tensors: &mut NamedTensors, channels: usize, heads: Option<u32>) -> Result<SegvitWeights, WeightsError> {
    let classes = class_queries(tensors, heads)?;
    let stages = stages(tensors, "", classes.queries.ncols(), channels)?;
    Ok(SegvitWeights { classes, stages })
}

fn shrunk(tensors: &mut NamedTensors, channels: usize, heads: Option<u32>) -> Result<ShrunkWeights, WeightsError> {
    let classes = class_queries(tensors, heads)?;
    let width = classes.queries.ncols();
    let name = format!("{QU}query");
    let query_map: Array3<f32> = tensors.take_as::<Ix3>(&name)?;
    if query_map.dim().0 != width || query_map.is_empty() {
        return Err(shape_error(&name, query_map.shape(), &format!("[{width}, rows, cols] was expected")));
    }
    let gather = stages(tensors, QU, width, channels)?;
    let (n_stages, n_layers) = count(tensors, "");
    if n_stages == 0 {
        return Err(WeightsError::Missing { name: "decoder_1.layers.0.norm1.weight".to_owned() });
    }
    let stage = take_stage(tensors, ("", 1), StageSize { width, n_layers }, None)?;
    Ok(ShrunkWeights { query_map, gather, classes, stage })
}

/// All stages under `prefix`.
fn stages(tensors: &mut NamedTensors, prefix: &str, width: usize, channels: usize) -> Result<Vec<DecoderStage>, WeightsError> {
    let (n_stages, n_layers) = count(tensors, prefix);
    if n_stages == 0 {
        return Err(WeightsError::Missing { name: format!("{prefix}decoder_1.layers.0.norm1.weight") });
    }
    let size = StageSize { width, n_layers };
    (1..=n_stages).map(|stage| take_stage(tensors, (prefix, stage), size, Some(channels))).collect()
}

fn class_queries(tensors: &mut NamedTensors, heads: Option<u32>) -> Result<ClassQueries, WeightsError> {
    const NAME: &str = "q.weight";
    let queries = tensors.take_as::<Ix2>(NAME)?;
    let (n_classes, width) = queries.dim();
    if queries.is_empty() {
        return Err(shape_error(NAME, queries.shape(), "[classes, channels] was expected"));
    }
    let heads = heads.unwrap_or(u32::try_from(width / HEAD_WIDTH).unwrap_or(u32::MAX));
    if heads == 0 || !width.is_multiple_of(heads as usize) {
        let problem = format!("has {width} channels, which {heads} heads do not divide; give the number of heads");
        return Err(WeightsError::Tensor { name: NAME.to_owned(), problem });
    }
    let class_embed = take_linear(tensors, "class_embed", [n_classes + 1, width])?;
    Ok(ClassQueries { heads, queries, class_embed })
}

fn linear_head(tensors: &mut NamedTensors, channels: usize) -> Result<LinearHeadWeights, WeightsError> {
    let mut part = |name: &str| tensors.take_shaped(&format!("norm.{name}"), Ix1(channels));
    let (gamma, beta, mean, var): (Array1<f32>, Array1<f32>, Array1<f32>, Array1<f32>) =
        (part("weight")?, part("bias")?, part("running_mean")?, part("running_var")?);
    let scale = gamma / var.mapv(|var| (var + BN_EPSILON).sqrt());
    let bias = beta - mean * &scale;
    let n_classes = match tensors.shape("linear.weight") {
        Some([0, ..]) => return Err(shape_error("linear.weight", &[0], "at least one class was expected")),
        Some([n_classes, ..]) => *n_classes,
        other => return Err(shape_error("linear.weight", other.unwrap_or_default(), "[classes, channels] was expected")),
    };
    Ok(LinearHeadWeights { norm: Norm { weight: scale, bias }, linear: take_linear(tensors, "linear", [n_classes, channels])? })
}

fn shape_error(name: &str, got: &[usize], expected: &str) -> WeightsError {
    WeightsError::Tensor { name: name.to_owned(), problem: format!("has shape {got:?}, {expected}") }
}

fn unrecognised(tensors: &NamedTensors) -> WeightsError {
    let found: Vec<&str> = tensors.names().take(12).collect();
    WeightsError::Unrecognised {
        expected: format!(
            "segmentation heads: {CLASS_LANDMARK} (segvit), and {QU}query (shrunk), or {} (linear)",
            LINEAR_LANDMARKS.join(", ")
        ),
        found: if found.is_empty() { "nothing".to_owned() } else { found.join(", ") },
    }
}

#[cfg(test)]
mod tests;
