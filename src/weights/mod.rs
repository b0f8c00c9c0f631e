//! Weights in one shape, whatever file they came from: what the readers and key maps produce and the graph builders consume.

mod decoder;
mod keys;
mod lift;
mod named;
mod onnx_file;
mod pickle;
mod pytorch_file;
mod ranges;
mod safetensors_file;
mod segment;
mod segment_shape;
mod vit;

use std::{
    io,
    path::{Path, PathBuf},
};

use ndarray::{Array1, Array2, Array3, Array4};
use thiserror::Error;

use crate::{
    manifest::{Architecture, LiftForm},
    onnx::OnnxError,
};

pub use decoder::{DecoderLayer, DecoderStage, TapProjection};
pub use lift::{ChannelOrder, assemble_lift, is_lift, recognise_lift};
pub use named::{NamedTensors, Stored, StoredType};
pub use ranges::{BlockRanges, LayerInput, Range, assemble_ranges};
pub use segment::{
    ClassQueries, LinearHeadWeights, SegmentWeights, SegvitWeights, ShrunkWeights, assemble_segment, recognise_segment,
};
pub use segment_shape::SegmentShape;
pub use vit::{Recognised, VitHints, assemble_vit};

/// What can be wrong with a file of weights.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{path} {problem}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An ONNX file could not be read.
    #[error("cannot read the weights in {path}")]
    Onnx {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OnnxError,
    },
    /// The file's extension is unknown.
    #[error("{path}: expected .safetensors, .safetensors.index.json, .onnx, .pth, .pt or .bin")]
    Extension {
        /// Which file.
        path: PathBuf,
    },
    /// The names are those of no known source.
    #[error("the tensors are named like nothing that is known here; expected {expected}; found {found}")]
    Unrecognised {
        /// Landmarks of every scheme.
        expected: String,
        /// Names in the file.
        found: String,
    },
    /// The names fit a scheme only in part.
    #[error("the tensors fit the key map \"{key_map}\" only in part; missing: {missing}; left over: {left_over}")]
    Unmatched {
        /// The scheme.
        key_map: &'static str,
        /// Names that it needs.
        missing: String,
        /// Names that it does not know.
        left_over: String,
    },
    /// A tensor is missing.
    #[error("tensor \"{name}\" is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor does not fit.
    #[error("tensor \"{name}\" {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Reads all tensors of a file; the extension says of which kind it is.
///
/// # Errors
/// [`WeightsError`], naming the file.
pub fn read(path: &Path) -> Result<NamedTensors, WeightsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") {
        return safetensors_file::read(path);
    }
    if name.ends_with(".onnx") {
        return onnx_file::read(path);
    }
    if [".pth", ".pt", ".bin"].iter().any(|extension| name.ends_with(extension)) {
        return pytorch_file::read(path);
    }
    Err(WeightsError::Extension { path: path.to_path_buf() })
}

/// `y = x W^T + b`.
///
/// # Shapes
/// - `weight`: `[out, in]`
/// - `bias`: `[out]`
#[derive(Clone, Debug)]
pub struct Linear {
    /// Weight.
    pub weight: Array2<f32>,
    /// Bias.
    pub bias: Array1<f32>,
}

/// Affine parameters of a normalisation over channels, `[D]` each.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Scale.
    pub weight: Array1<f32>,
    /// Shift.
    pub bias: Array1<f32>,
}

/// Feed-forward network of a block.
#[derive(Clone, Debug)]
pub enum Ffn {
    /// Linear, exact (erf) GELU, linear.
    Mlp {
        /// `[hidden, D]`.
        fc1: Linear,
        /// `[D, hidden]`.
        fc2: Linear,
    },
    /// `w3(silu(x1) * x2)`, `[x1, x2] = w12(x)`.
    Swiglu {
        /// `[2 * hidden, D]`.
        w12: Linear,
        /// `[D, hidden]`.
        w3: Linear,
    },
}

/// One pre-norm transformer block.
#[derive(Clone, Debug)]
pub struct VitBlock {
    /// Before the attention.
    pub norm1: Norm,
    /// Query projection; output channels head-major.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Output projection of the attention.
    pub proj: Linear,
    /// LayerScale of the attention branch, `[D]`.
    pub scale1: Option<Array1<f32>>,
    /// Before the feed-forward network.
    pub norm2: Norm,
    /// Feed-forward network.
    pub ffn: Ffn,
    /// LayerScale of the feed-forward branch, `[D]`.
    pub scale2: Option<Array1<f32>>,
}

/// All weights of a ViT backbone.
#[derive(Clone, Debug)]
pub struct VitWeights {
    /// Shape of the network.
    pub arch: Architecture,
    /// Patch embedding, `[D, 3, p, p]`.
    pub patch_weight: Array4<f32>,
    /// `[D]`.
    pub patch_bias: Array1<f32>,
    /// CLS token with its position embedding already added, `[D]`, where there is one.
    pub cls: Option<Array1<f32>>,
    /// Register tokens, `[R, D]`; R may be 0. They carry no position embedding.
    pub registers: Array2<f32>,
    /// Position table of the patches, `[rows, cols, D]`.
    pub position: Array3<f32>,
    /// Blocks, first to last.
    pub blocks: Vec<VitBlock>,
    /// Final LayerNorm, where there is one.
    pub norm: Option<Norm>,
}

/// A convolution followed by a BatchNorm in evaluation mode (epsilon 1e-5).
///
/// # Shapes
/// - `weight`: `[out, in, k, k]`
/// - others: `[out]`
#[derive(Clone, Debug)]
pub struct ConvBn {
    /// Kernel.
    pub weight: Array4<f32>,
    /// Bias of the convolution, when it has one.
    pub bias: Option<Array1<f32>>,
    /// BatchNorm scale (gamma).
    pub gamma: Array1<f32>,
    /// BatchNorm shift (beta).
    pub beta: Array1<f32>,
    /// BatchNorm running mean.
    pub mean: Array1<f32>,
    /// BatchNorm running variance.
    pub var: Array1<f32>,
}

/// All weights of a LiFT head (Suri et al., ECCV 2024), feature channels in natural (head-major) order.
///
/// C channels of the features; U and M widths of the trunk, `(C + 32) / 2` and `C / 2` in the official form, free in the others; O
/// outputs of the last layer: C, or K x K in the guided and corrected forms.
#[derive(Clone, Debug)]
pub struct LiftWeights {
    /// What the last layer's values mean.
    pub form: LiftForm,
    /// Side of the guidance image per input cell, in pixels: 16 (with the 2x2 max pooling) or 8 (without).
    pub guidance: u32,
    /// Scale and shift of the features before the trunk, `[C]` each; none in the official form.
    pub features: Option<Norm>,
    /// `image_convs_1.0/.1`: 3 -> 32, 3x3, stride 2.
    pub image1: ConvBn,
    /// `image_convs_1.3/.4`: 32 -> 32, 3x3, stride 2.
    pub image2: ConvBn,
    /// `image_convs_2.0/.1`: 32 -> 32, 3x3, stride 2.
    pub image3: ConvBn,
    /// `up1.up.weight`: `[C + 32, U, 2, 2]`, transposed-convolution layout (in, out).
    pub up_weight: Array4<f32>,
    /// `up1.up.bias`: `[U]`.
    pub up_bias: Array1<f32>,
    /// `up1.conv_1.double_conv.0/.1`: U + 32 -> M, 3x3.
    pub double1: ConvBn,
    /// `up1.conv_1.double_conv.3/.4`: M -> M, 3x3.
    pub double2: ConvBn,
    /// `outc`: `[O, M]` (1x1 convolution).
    pub out: Linear,
    /// `correction`: `[C, M]` (1x1 convolution), corrected form only.
    pub correction: Option<Linear>,
}

impl LiftWeights {
    /// Side K of the window of coarse cells that a guided or corrected head chooses from.
    #[must_use]
    pub fn window(&self) -> Option<u32> {
        let has_window = matches!(self.form, LiftForm::Guided | LiftForm::Corrected);
        has_window.then(|| u32::try_from(self.out.bias.len().isqrt()).unwrap_or_default())
    }

    /// Trainable numbers, BatchNorm statistics not counted: 1,187,280 in the official form for 384 channels.
    #[must_use]
    pub fn n_parameters(&self) -> u64 {
        let conv = |conv: &ConvBn| conv.weight.len() + conv.bias.as_ref().map_or(0, Array1::len) + 2 * conv.gamma.len();
        let convs = [&self.image1, &self.image2, &self.image3, &self.double1, &self.double2];
        let features = self.features.as_ref().map_or(0, |norm| norm.weight.len() + norm.bias.len());
        let up = self.up_weight.len() + self.up_bias.len();
        let last = std::iter::once(&self.out).chain(&self.correction).map(|linear| linear.weight.len() + linear.bias.len());
        let total = convs.into_iter().map(conv).sum::<usize>() + features + up + last.sum::<usize>();
        total as u64
    }
}
