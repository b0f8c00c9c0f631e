//! LiFT heads: what their files say of themselves, and whether that agrees with what is said of them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    import::{HeadOptions, ImportError, card},
    manifest::{Facet, LiftScore, Tap},
};

/// Key of the card in the metadata of a safetensors file.
pub(super) const CARD: &str = "densevit.lift";

/// What a trainer writes into the file of a LiFT head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftCard {
    /// What the head was trained on.
    pub tap: Tap,
    /// SHA-256 of the file of weights that the backbone was imported from.
    pub backbone_source_sha256: String,
    /// Licence of the weights.
    pub license: String,
    /// What its trainer measured.
    pub scores: Vec<LiftScore>,
}

impl LiftCard {
    /// The card of a file; none if it has none or is of another format.
    ///
    /// # Errors
    /// When the file cannot be read, or the card is not one.
    pub fn read(path: &Path) -> Result<Option<Self>, ImportError> {
        card::read(path, CARD, "--lift")
    }

    /// Key and value for the metadata of a file.
    #[must_use]
    pub fn metadata(&self) -> (&'static str, String) {
        (CARD, serde_json::to_string(self).unwrap_or_default())
    }
}

/// A head whose file and options agree.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) options: &'a HeadOptions,
    /// The only activations it accepts.
    pub(super) tap: Tap,
    pub(super) license: String,
    pub(super) scores: Vec<LiftScore>,
}

impl<'a> Head<'a> {
    /// Reads the card and compares it with the options and with the backbone's weights.
    pub(super) fn open(options: &'a HeadOptions, depth: u32, backbone_source_sha256: &str) -> Result<Self, ImportError> {
        let published = Tap { facet: Facet::Key, layer: depth.saturating_sub(1) };
        let license = options.license.clone();
        let Some(card) = LiftCard::read(&options.source)? else {
            let license = license.unwrap_or_else(|| "unknown".to_owned());
            return Ok(Self { options, tap: options.tap.unwrap_or(published), license, scores: Vec::new() });
        };
        if let Some(tap) = options.tap.filter(|tap| *tap != card.tap) {
            let problem = format!("the head was trained on the {}, not on the {tap}", card.tap);
            return Err(ImportError::Option { option: "--lift-tap", problem });
        }
        card::check_backbone((&card.backbone_source_sha256, backbone_source_sha256), options.any_backbone, "--lift")?;
        Ok(Self { options, tap: card.tap, license: license.unwrap_or(card.license), scores: card.scores })
    }
}
