//! The types of `model.toml`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::{BackboneFile, Precision, SegmentInput, SegmenterFile};

/// Names of the graphs' inputs and outputs.
pub mod io_names {
    use super::Tap;

    /// Backbone input: the image, `[B, H, W, 3]` u8 RGB, not normalised.
    pub const IMAGE: &str = "image";
    /// Backbone input: interpolated position table of the patches, `[1, h*w, D]` f32. Absent in graphs with one baked size.
    pub const POSITION: &str = "position";
    /// Backbone output and LiFT input: the normalised image, `[B, 3, H, W]` f32.
    pub const PIXELS: &str = "pixels";
    /// LiFT input: the map to double, `[B, h, w, C]` f32.
    pub const FEATURES: &str = "features";
    /// LiFT output: the doubled map, `[B, 2h, 2w, C]` f32.
    pub const UPSAMPLED: &str = "upsampled";
    /// LiFT output: the image doubled bilinearly for the next pass, `[B, 3, 2H, 2W]` f32.
    pub const PIXELS_2X: &str = "pixels_2x";
    /// Segmenter output: scores of every cell for every class, `[B, u*h, u*w, K]` f32 in \[0, 1\].
    pub const PROBABILITIES: &str = "probabilities";
    /// Segmenter output: logits of the class queries, the last being "no object", `[B, K, K + 1]` f32. Absent in linear heads.
    pub const CLASS_LOGITS: &str = "class_logits";
    /// Segmenter output: masks of the class queries before the sigmoid, `[B, K, h, w]` f32. Absent in linear heads.
    pub const MASK_LOGITS: &str = "mask_logits";

    /// Segmenter input: the map of its tap number `position`, from 0, `[B, h, w, C]` f32.
    #[must_use]
    pub fn map(position: usize) -> String {
        format!("map_{}", position + 1)
    }

    /// Backbone output: patches of a facet and layer, `[B, h, w, C]` f32.
    #[must_use]
    pub fn patches(tap: Tap) -> String {
        format!("{}.{}", tap.facet, tap.layer)
    }

    /// Backbone output: the CLS token of a facet and layer, `[B, C]` f32.
    #[must_use]
    pub fn cls(tap: Tap) -> String {
        format!("{}.{}.cls", tap.facet, tap.layer)
    }

    /// Backbone output: the register tokens of a facet and layer, `[B, R, C]` f32. Absent when R = 0.
    #[must_use]
    pub fn registers(tap: Tap) -> String {
        format!("{}.{}.registers", tap.facet, tap.layer)
    }
}

/// Which activations of a transformer block are taken (`FACET_*` of the protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Facet {
    /// Key projection of the attention: with bias, unscaled, heads concatenated head-major.
    Key,
    /// Query projection.
    Query,
    /// Value projection.
    Value,
    /// Output of the block, not normalised.
    Token,
    /// Output of the block through the final LayerNorm.
    NormToken,
}

impl Facet {
    /// All facets, in the order of the protocol.
    pub const ALL: [Self; 5] = [Self::Key, Self::Query, Self::Value, Self::Token, Self::NormToken];

    /// The name used in manifests, graphs and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Query => "query",
            Self::Value => "value",
            Self::Token => "token",
            Self::NormToken => "norm_token",
        }
    }
}

impl fmt::Display for Facet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Facet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|facet| facet.name() == text)
            .ok_or_else(|| format!("unknown facet \"{text}\": expected key, query, value, token or norm_token"))
    }
}

/// A facet of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tap {
    /// The facet.
    pub facet: Facet,
    /// 0-based index of the block.
    pub layer: u32,
}

impl Tap {
    /// Whether the map of this activation has half the rows and columns of patches, rounded up, in a backbone that takes the queries and
    /// residuals of a block from every second row and column of patches: cell (i, j) is the patch (2i, 2j). Keys and values of that block
    /// come from all patches.
    #[must_use]
    pub fn is_halved(self, query_downsample: Option<u32>) -> bool {
        let is_full_in_block = matches!(self.facet, Facet::Key | Facet::Value);
        query_downsample.is_some_and(|block| self.layer > block || (self.layer == block && !is_full_in_block))
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of block {}", self.facet, self.layer)
    }
}

/// Kernel of an image resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Nearest pixel.
    Nearest,
    /// Triangle, antialiased when shrinking.
    Bilinear,
    /// Catmull-Rom cubic (a = -0.5), antialiased when shrinking.
    Bicubic,
    /// Lanczos with three lobes, antialiased when shrinking.
    Lanczos,
}

/// How an image of any size becomes the model's input. Sizes are in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResizePolicy {
    /// Exactly this size; both sides multiples of the patch.
    Exact {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
    /// The shorter side becomes `pixels`, the other follows; both rounded to patch multiples.
    ShortSide {
        /// Length of the shorter side.
        pixels: u32,
    },
    /// Scaled to fit, the rest filled with the mean colour at the right and at the bottom; both sides multiples of the patch.
    Letterbox {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
    /// The image's own size, rounded to patch multiples.
    Native,
}

/// Position-table interpolation (the variants differ in kernel, sampling and border; see `graph::position`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionVariant {
    /// DINO and DINOv2 without registers: bicubic a = -0.75, step M / (g + 0.1), clamped borders.
    Offset,
    /// DINOv2 with registers, timm: bicubic a = -0.5, antialiased, explicit size, borders dropped.
    Antialias,
    /// Hugging Face ViT and Dinov2: bicubic a = -0.75, explicit size, clamped borders.
    Exact,
}

/// Feed-forward network of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FfnKind {
    /// Linear, exact GELU, linear.
    Mlp,
    /// `w3(silu(w1 x) * w2 x)` with w1 and w2 fused (DINOv2 giant).
    Swiglu,
}

/// Shape of a ViT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// "dino", "dinov2", "vit" or "selfpatch", which has neither CLS token nor final norm.
    pub family: String,
    /// Channels of a token (D).
    pub width: u32,
    /// Number of blocks.
    pub depth: u32,
    /// Attention heads.
    pub heads: u32,
    /// Pixels on a side of a patch.
    pub patch: u32,
    /// Register tokens (R).
    pub registers: u32,
    /// Feed-forward network.
    pub ffn: FfnKind,
    /// Whether blocks scale their residual branches.
    pub layer_scale: bool,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Weights of the network, without a mask token.
    pub parameters: u64,
}

impl Architecture {
    /// Backbones of SelfPatch (Yun et al., CVPR 2022): patches only, and nothing after the last block.
    pub const PATCHES_ONLY: &str = "selfpatch";

    /// Whether there is a CLS token.
    #[must_use]
    pub fn has_cls(&self) -> bool {
        self.family != Self::PATCHES_ONLY
    }
}

/// The stored position table and how it is fitted to a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionSpec {
    /// Safetensors file with `position` `[rows, cols, D]` f32.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Rows and columns of the stored table.
    pub native_grid: [u32; 2],
    /// Interpolation to other grids.
    pub variant: PositionVariant,
}

/// Input normalisation and default resize.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreprocessSpec {
    /// Channel means, RGB in \[0, 1\].
    pub mean: [f32; 3],
    /// Channel standard deviations, RGB in \[0, 1\].
    pub std: [f32; 3],
    /// Kernel of the resize.
    pub interpolation: Interpolation,
    /// Policy for requests that name none.
    pub resize: ResizePolicy,
}

/// Form of a LiFT head: what its last layer's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiftForm {
    /// As published (Suri et al., ECCV 2024): the features themselves.
    Official,
    /// A correction that is added to the bilinear double of the features.
    Residual,
    /// Logits over the K x K coarse cells around each fine one; the result is their convex combination, so it never leaves the
    /// backbone's own features.
    Guided,
    /// The same combination and a correction that is added to it.
    Corrected,
}

impl LiftForm {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Official, Self::Residual, Self::Guided, Self::Corrected];

    /// The name used in manifests and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Residual => "residual",
            Self::Guided => "guided",
            Self::Corrected => "corrected",
        }
    }

    /// What stands before the names of its tensors in a file of weights; the published form has nothing there.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Official => "",
            Self::Residual => "residual.",
            Self::Guided => "guided.",
            Self::Corrected => "corrected.",
        }
    }
}

/// How far upsampled features are from those of an image of twice the size, on photos that the head was not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftScore {
    /// Cells on a side of the coarse grid.
    pub grid: u32,
    /// Mean of `1 - cos` over positions, for the head.
    pub distance: f64,
    /// The same for bilinear upsampling.
    pub bilinear: f64,
}

/// `lift.onnx`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftFile {
    /// File name inside the directory.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Form of the head.
    pub form: LiftForm,
    /// Guided and corrected forms: side K of the window of coarse cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// The only activations that the head accepts.
    pub tap: Tap,
    /// SHA-256 of the backbone that the head was trained on.
    pub backbone_sha256: String,
    /// Side of the guidance image per cell of the input map, in pixels (8 or 16).
    pub guidance: u32,
    /// ONNX operator set.
    pub opset: u32,
    /// Element type of the weights.
    pub precision: Precision,
    /// Weights of the head, without BatchNorm statistics.
    pub parameters: u64,
    /// Licence of the weights.
    pub license: String,
    /// Where the weights came from.
    pub source: String,
    /// What its trainer measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<LiftScore>,
}

/// Where the weights came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// For people: what this model is, in one line.
    pub description: String,
    /// SPDX expression, or the words of the source.
    pub license: String,
    /// File or package the weights were read from.
    pub source: String,
    /// SHA-256 of that file, hexadecimal.
    pub source_sha256: String,
    /// Key map that fitted, e.g. "hf-dinov2".
    pub key_map: String,
    /// Program and version that wrote the directory.
    pub importer: String,
}

/// `model.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's layout; 1.
    pub format: u32,
    /// Name of the model: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Version of the model: a positive integer.
    pub version: u32,
    /// Shape of the network.
    pub architecture: Architecture,
    /// Input normalisation and default resize.
    pub preprocess: PreprocessSpec,
    /// Position table.
    pub position: PositionSpec,
    /// The backbone's graph.
    pub backbone: BackboneFile,
    /// The LiFT head, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lift: Option<LiftFile>,
    /// The segmentation head, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmenter: Option<SegmenterFile>,
    /// Where the weights came from.
    pub provenance: Provenance,
}

impl Manifest {
    /// Every file of the model but the manifest itself: name and SHA-256.
    #[must_use]
    pub fn files(&self) -> Vec<(&str, &str)> {
        let mut files = vec![
            (self.backbone.file.as_str(), self.backbone.sha256.as_str()),
            (self.position.file.as_str(), self.position.sha256.as_str()),
        ];
        files.extend(self.backbone.external.iter().map(|[file, digest]| (file.as_str(), digest.as_str())));
        files.extend(self.lift.iter().map(|lift| (lift.file.as_str(), lift.sha256.as_str())));
        files.extend(self.segmenter.iter().map(|segmenter| (segmenter.file.as_str(), segmenter.sha256.as_str())));
        files
    }

    /// Rows and columns of the map of an activation, for an input of so many pixels, before any LiFT pass.
    #[must_use]
    pub fn grid(&self, tap: Tap, [height, width]: [u32; 2]) -> [usize; 2] {
        let patches = [height, width].map(|side| (side / self.architecture.patch.max(1)) as usize);
        if self.backbone.is_halved(tap) { patches.map(|cells| cells.div_ceil(2)) } else { patches }
    }

    /// Rows, columns and classes of the scores for an input of so many pixels; `None` without a segmentation head.
    #[must_use]
    pub fn scores_shape(&self, size: [u32; 2]) -> Option<[usize; 3]> {
        let segmenter = self.segmenter.as_ref()?;
        let finer = segmenter.upscale as usize * if segmenter.input == SegmentInput::Lift { 2 } else { 1 };
        let [rows, cols] = self.grid(segmenter.grid_tap()?, size).map(|cells| cells * finer);
        Some([rows, cols, segmenter.classes.len()])
    }
}
