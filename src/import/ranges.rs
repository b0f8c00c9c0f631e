//! Ranges of the inputs of linear layers: the graph that measures them, and the file that an 8-bit import reads.

use serde::{Deserialize, Serialize};

use super::{ImportError, ImportOptions, baked::baked, card, digest, recognise};
use crate::{
    graph::{VitOptions, build_vit},
    manifest::{Facet, Precision},
    onnx::ModelProto,
    weights::{self, BlockRanges, LayerInput, VitWeights, assemble_ranges},
};

/// Key of the card in the metadata of the file.
const CARD: &str = "densevit.ranges";
/// The flag that names the file.
const OPTION: &str = "--ranges";

/// What `densevit calibrate` writes beside the ranges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangesCard {
    /// SHA-256 of the file of weights that they belong to.
    pub backbone_source_sha256: String,
    /// Photos that were looked at.
    pub n_images: u32,
    /// Sizes of the model's input, `[H, W]` in pixels.
    pub sizes: Vec<[u32; 2]>,
}

impl RangesCard {
    /// Key and value for the metadata of a file.
    #[must_use]
    pub fn metadata(&self) -> (&'static str, String) {
        (CARD, serde_json::to_string(self).unwrap_or_default())
    }
}

/// A graph that measures ranges.
#[derive(Debug)]
pub struct CalibrationGraph {
    /// From `image` (see [`io_names`](crate::manifest::io_names)) of the options' baked size to two outputs for every input of a linear
    /// layer.
    pub graph: ModelProto,
    /// Names of the outputs: smallest and largest values in turn, `[K]` f32 each.
    pub outputs: Vec<String>,
    /// SHA-256 of the weights.
    pub source_sha256: String,
}

/// Builds the graph that measures the ranges of the backbone in `options.source`, in single precision and for `options.baked_size`.
///
/// # Errors
/// [`ImportError`] when the weights cannot be used, or the size is no multiple of the patch.
pub fn calibration_graph(options: &ImportOptions) -> Result<CalibrationGraph, ImportError> {
    let recognised = recognise(options)?;
    let depth = recognised.weights.arch.depth;
    let vit = VitOptions {
        facets: vec![Facet::Token],
        layers: vec![depth.saturating_sub(1)],
        mean: options.mean,
        std: options.std,
        precision: Precision::Fp32,
        ranges: Vec::new(),
        observes_ranges: true,
        query_downsample: options.query_downsample,
        baked: baked(&recognised, options)?,
    };
    let graph = build_vit(&recognised.weights, &vit).map_err(ImportError::Graph)?;
    let outputs = (0..depth as usize).flat_map(|block| LayerInput::ALL.into_iter().flat_map(move |input| input.names(block)));
    Ok(CalibrationGraph { graph, outputs: outputs.collect(), source_sha256: digest(&options.source)? })
}

/// The ranges of an 8-bit import.
#[derive(Debug)]
pub(super) struct Ranges {
    pub(super) blocks: Vec<BlockRanges>,
    pub(super) sha256: String,
}

impl Ranges {
    /// Reads the file that the options name, and compares it with the weights; nothing for graphs of floats.
    pub(super) fn open(options: &ImportOptions, weights: &VitWeights) -> Result<Option<Self>, ImportError> {
        let bad = |problem: String| ImportError::Option { option: OPTION, problem };
        let path = match (&options.ranges, options.precision) {
            (None, Precision::Fp32 | Precision::Fp16) => return Ok(None),
            (None, Precision::Int8) => {
                return Err(bad(
                    "int8 needs the ranges of the layers' inputs, which `densevit calibrate` measures on photos".into()
                ));
            }
            (Some(_), Precision::Fp32 | Precision::Fp16) => return Err(bad("is for --precision int8".into())),
            (Some(path), Precision::Int8) => path,
        };
        let card: RangesCard = card::read(path, CARD, OPTION)?
            .ok_or_else(|| bad(format!("{} is not a file that `densevit calibrate` wrote", path.display())))?;
        let found = digest(&options.source)?;
        if card.backbone_source_sha256 != found {
            let named = card.backbone_source_sha256;
            return Err(bad(format!("{} belongs to the weights with SHA-256 {named}, these have {found}", path.display())));
        }
        let failed = |source| ImportError::Weights { path: path.clone(), source };
        let blocks = weights::read(path).and_then(|tensors| assemble_ranges(tensors, weights)).map_err(failed)?;
        Ok(Some(Self { blocks, sha256: digest(path)? }))
    }
}
