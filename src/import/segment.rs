//! Segmentation heads: what their files say of themselves, and whether that agrees with what is said of them, with their weights and with
//! the backbone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    import::{ImportError, SegmentOptions, card},
    manifest::{ClassSpec, Facet, Manifest, SegmentForm, SegmentInput, SegmentScores, Tap},
    weights::{self, SegmentWeights, assemble_segment},
};

/// Key of the card in the metadata of a safetensors file.
pub(super) const CARD: &str = "densevit.segment";
/// Factor between the grid of a head and its scores, unless its file says another one.
const UPSCALE: u32 = 4;
/// The option that names the file.
const OPTION: &str = "--segment";

/// What a trainer writes into the file of a segmentation head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentCard {
    /// Form of the head.
    pub form: SegmentForm,
    /// What it reads.
    pub input: SegmentInput,
    /// What it was trained on, in the order in which it reads it.
    pub taps: Vec<Tap>,
    /// Attention heads of its decoder; none or 0 in a linear head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<u32>,
    /// Classes, in the order of its outputs.
    pub classes: Vec<ClassSpec>,
    /// Rows and columns, in pixels, of the images of the training.
    pub size: [u32; 2],
    /// Cells of the scores on a side of a cell of its grid.
    pub upscale: u32,
    /// SHA-256 of the file of weights that the backbone was imported from.
    pub backbone_source_sha256: String,
    /// Licence of the weights.
    pub license: String,
    /// What its trainer measured.
    #[serde(default)]
    pub scores: SegmentScores,
}

impl SegmentCard {
    /// The card of a file; none if it has none or is of another format.
    ///
    /// # Errors
    /// When the file cannot be read, or the card is not one.
    pub fn read(path: &Path) -> Result<Option<Self>, ImportError> {
        card::read(path, CARD, OPTION)
    }

    /// Key and value for the metadata of a file.
    #[must_use]
    pub fn metadata(&self) -> (&'static str, String) {
        (CARD, serde_json::to_string(self).unwrap_or_default())
    }
}

/// A head whose file and options agree.
#[derive(Debug)]
pub(super) struct Segmenter<'a> {
    pub(super) options: &'a SegmentOptions,
    pub(super) weights: SegmentWeights,
    pub(super) card: Agreed,
}

/// What a card says, or what stands in for it.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) input: SegmentInput,
    pub(super) taps: Vec<Tap>,
    pub(super) classes: Vec<ClassSpec>,
    pub(super) size: Option<[u32; 2]>,
    pub(super) upscale: u32,
    pub(super) license: String,
    pub(super) scores: SegmentScores,
}

impl<'a> Segmenter<'a> {
    /// Reads card and weights, and compares them with the options and with the backbone in `manifest`.
    pub(super) fn open(options: &'a SegmentOptions, manifest: &Manifest) -> Result<Self, ImportError> {
        let card = SegmentCard::read(&options.source)?;
        let heads = agreed_heads(options, card.as_ref())?;
        let failed = |source| ImportError::Weights { path: options.source.clone(), source };
        let tensors = weights::read(&options.source).map_err(failed)?;
        let weights = assemble_segment(tensors, manifest.architecture.width as usize, heads).map_err(failed)?;
        let card = match card {
            Some(card) => from_card(card, options, (&weights, &manifest.provenance.source_sha256))?,
            None => published(options, &weights, manifest)?,
        };
        Ok(Self { options, weights, card })
    }
}

fn agreed_heads(options: &SegmentOptions, card: Option<&SegmentCard>) -> Result<Option<u32>, ImportError> {
    let said = card.and_then(|card| card.heads).filter(|heads| *heads > 0);
    match (options.heads, said) {
        (Some(asked), Some(said)) if asked != said => Err(ImportError::Option {
            option: "--segment-heads",
            problem: format!("the head was trained with {said} attention heads, not with {asked}"),
        }),
        (asked, said) => Ok(asked.or(said)),
    }
}

/// What the card says, if it fits.
fn from_card(
    card: SegmentCard,
    options: &SegmentOptions,
    (weights, backbone_source_sha256): (&SegmentWeights, &str),
) -> Result<Agreed, ImportError> {
    if options.taps.as_ref().is_some_and(|taps| *taps != card.taps) {
        let problem = format!("the head was trained on the {}", listed(&card.taps));
        return Err(ImportError::Option { option: "--segment-taps", problem });
    }
    card::check_backbone((&card.backbone_source_sha256, backbone_source_sha256), options.any_backbone, OPTION)?;
    let shape = weights.shape();
    let differs = [
        (card.form != shape.form)
            .then(|| format!("a {} head, its tensors are those of a {} one", card.form.name(), shape.form.name())),
        (card.taps.len() != shape.n_taps).then(|| format!("{} taps, its tensors {}", card.taps.len(), shape.n_taps)),
        (card.classes.len() != shape.n_classes)
            .then(|| format!("{} classes, its tensors {}", card.classes.len(), shape.n_classes)),
    ];
    if let Some(difference) = differs.into_iter().flatten().next() {
        let problem = format!("{}: its {CARD} speaks of {difference}", options.source.display());
        return Err(ImportError::Option { option: OPTION, problem });
    }
    Ok(Agreed {
        input: card.input,
        taps: card.taps,
        classes: card.classes,
        size: Some(card.size),
        upscale: card.upscale,
        license: options.license.clone().unwrap_or(card.license),
        scores: card.scores,
    })
}

/// What stands in for the card of a file that has none: the facts of the published models.
fn published(options: &SegmentOptions, weights: &SegmentWeights, manifest: &Manifest) -> Result<Agreed, ImportError> {
    let shape = weights.shape();
    let problem = |problem| ImportError::Option { option: "--segment-taps", problem };
    let taps = match &options.taps {
        Some(taps) if taps.len() != shape.n_taps => {
            return Err(problem(format!("{} taps, the head reads {}", taps.len(), shape.n_taps)));
        }
        Some(taps) => taps.clone(),
        None => published_taps(shape.form, shape.n_taps, manifest).ok_or_else(|| {
            problem(format!(
                "needed for a {} head of {} taps on {} blocks",
                shape.form.name(),
                shape.n_taps,
                manifest.architecture.depth
            ))
        })?,
    };
    Ok(Agreed {
        input: SegmentInput::Backbone,
        taps,
        classes: (0..shape.n_classes).map(|class| ClassSpec { name: format!("class_{class}"), color: colour(class) }).collect(),
        size: None,
        upscale: UPSCALE,
        license: options.license.clone().unwrap_or_else(|| "unknown".to_owned()),
        scores: SegmentScores::default(),
    })
}

/// Taps of the published models: tokens of the last block, and of those after one and two thirds of the blocks; deepest first, but in the
/// shrunk form those before the grid is halved and last.
fn published_taps(form: SegmentForm, n_taps: usize, manifest: &Manifest) -> Option<Vec<Tap>> {
    let depth = manifest.architecture.depth;
    let layers = match (form, n_taps, depth) {
        (SegmentForm::Shrunk, 2, _) => vec![manifest.backbone.query_downsample?.checked_sub(1)?, depth.checked_sub(1)?],
        (SegmentForm::Shrunk, _, _) => return None,
        (_, 1, _) => vec![depth.checked_sub(1)?],
        (_, 3, 12) => vec![11, 7, 5],
        (_, 3, 24) => vec![23, 15, 7],
        _ => return None,
    };
    Some(layers.into_iter().map(|layer| Tap { facet: Facet::Token, layer }).collect())
}

/// A colour that differs from its neighbours': the three lowest bits of `class + 1` become the highest of red, green and blue, the next
/// three the second highest, and so on (the colours of PASCAL VOC, without its black background).
fn colour(class: usize) -> [u8; 3] {
    let number = class + 1;
    [0, 1, 2].map(|channel| {
        (0..8).fold(0u8, |value, place| value | (u8::from(number >> (3 * place + channel) & 1 == 1) << (7 - place)))
    })
}

fn listed(taps: &[Tap]) -> String {
    taps.iter().map(Tap::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_begin_like_those_of_pascal_voc() {
        assert_eq!([0, 1, 2, 7].map(colour), [[128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0]]);
        let distinct: std::collections::HashSet<_> = (0..255).map(colour).collect();
        assert_eq!(distinct.len(), 255);
    }
}
