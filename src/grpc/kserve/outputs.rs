//! What a model can be asked for, and what a request asks for.

use crate::{
    engine::InferError,
    grpc::{
        kserve::datatype::Datatype,
        pb::inference::{self as pb, model_infer_request::InferRequestedOutputTensor},
    },
    manifest::Manifest,
};

/// An output of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// `[n, rows, cols, C]`, FP32 or FP16.
    Features,
    /// `[n, C]` FP32.
    ClsToken,
    /// `[n, R, C]` FP32; of models with register tokens.
    RegisterTokens,
    /// `[n, 4]` FP64: x0, dx, y0, dy of the centres of the map's cells.
    GridToImage,
    /// `[n, H, W]` UINT8, or UINT16 above 255 classes; of models with a segmentation head.
    Labels,
    /// `[n, H, W, K]` FP16; of models with a segmentation head.
    Scores,
    /// `[n, 4]` FP64: x0, dx, y0, dy of the centres of the masks' pixels.
    RasterToImage,
}

/// A tensor as metadata and configuration describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorSpec {
    pub(super) name: &'static str,
    pub(super) datatype: Datatype,
    /// Without the axis of images; -1 depends on the request.
    pub(super) dims: Vec<i64>,
}

/// Labels of more classes need two bytes; the largest value stands for "no class".
const MAX_BYTE_CLASSES: usize = 255;

impl Output {
    const ALL: [Self; 7] = [
        Self::Features,
        Self::ClsToken,
        Self::RegisterTokens,
        Self::GridToImage,
        Self::Labels,
        Self::Scores,
        Self::RasterToImage,
    ];

    /// The name in requests and answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::ClsToken => "cls_token",
            Self::RegisterTokens => "register_tokens",
            Self::GridToImage => "grid_to_image",
            Self::Labels => "labels",
            Self::Scores => "scores",
            Self::RasterToImage => "raster_to_image",
        }
    }

    /// Whether it comes from the segmentation head.
    pub(super) fn is_of_masks(self) -> bool {
        matches!(self, Self::Labels | Self::Scores | Self::RasterToImage)
    }

    /// All outputs of a model.
    pub(super) fn of(manifest: &Manifest) -> impl Iterator<Item = Self> + '_ {
        Self::ALL.into_iter().filter(|output| match output {
            Self::ClsToken => manifest.architecture.has_cls(),
            Self::RegisterTokens => manifest.architecture.registers > 0,
            output => !output.is_of_masks() || manifest.segmenter.is_some(),
        })
    }

    /// What metadata says of it.
    pub(super) fn spec(self, manifest: &Manifest) -> TensorSpec {
        let channels = i64::from(manifest.architecture.width);
        let n_classes = manifest.segmenter.as_ref().map(|head| head.classes.len()).unwrap_or_default();
        let (datatype, dims) = match self {
            Self::Features => (Datatype::Fp32, vec![-1, -1, channels]),
            Self::ClsToken => (Datatype::Fp32, vec![channels]),
            Self::RegisterTokens => (Datatype::Fp32, vec![i64::from(manifest.architecture.registers), channels]),
            Self::GridToImage | Self::RasterToImage => (Datatype::Fp64, vec![4]),
            Self::Labels if n_classes > MAX_BYTE_CLASSES => (Datatype::Uint16, vec![-1, -1]),
            Self::Labels => (Datatype::Uint8, vec![-1, -1]),
            Self::Scores => (Datatype::Fp16, vec![-1, -1, i64::try_from(n_classes).unwrap_or(i64::MAX)]),
        };
        TensorSpec { name: self.name(), datatype, dims }
    }
}

/// The outputs that a request asks for, in its order; `features` when it names none.
///
/// # Errors
/// [`InferError::InvalidArgument`] for a name that the model does not have, that comes twice, or that carries parameters.
pub(super) fn requested(outputs: &[InferRequestedOutputTensor], manifest: &Manifest) -> Result<Vec<Output>, InferError> {
    if outputs.is_empty() {
        return Ok(vec![Output::Features]);
    }
    let mut wanted = Vec::with_capacity(outputs.len().min(Output::ALL.len()));
    for (idx, pb::model_infer_request::InferRequestedOutputTensor { name, parameters }) in outputs.iter().enumerate() {
        let field = |part: &str| format!("outputs[{idx}].{part}");
        let Some(output) = Output::of(manifest).find(|output| output.name() == name) else {
            let offered = Output::of(manifest).map(Output::name).collect::<Vec<_>>().join(", ");
            return Err(InferError::invalid(
                field("name"),
                format!("\"{name}\" is no output of {}: it has {offered}", manifest.name),
            ));
        };
        if wanted.contains(&output) {
            return Err(InferError::invalid(field("name"), format!("\"{name}\" is asked for twice")));
        }
        if let Some(key) = parameters.keys().min() {
            let message =
                "is not known: outputs come whole and in the message; element type and size are parameters of the request";
            return Err(InferError::invalid(field(&format!("parameters.{key}")), message));
        }
        wanted.push(output);
    }
    Ok(wanted)
}
