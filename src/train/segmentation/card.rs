//! What only the trainer needs to know of a head, beside the card that the importer reads
//! ([`SegmentCard`](densevit::import::SegmentCard)).

use std::collections::HashMap;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Key in the metadata of a safetensors file.
const TRAINING: &str = "densevit.segment.training";

/// What only the trainer needs to know of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingCard {
    /// Block in which the backbone halves its grid, 0-based.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downsample: Option<u32>,
}

impl TrainingCard {
    /// The card in the metadata of a file; an empty one if there is none.
    ///
    /// # Errors
    /// When it is not one.
    pub fn read(metadata: &HashMap<String, String>) -> anyhow::Result<Self> {
        let card = metadata.get(TRAINING).map(|text| serde_json::from_str(text)).transpose();
        Ok(card.context("reading its card")?.unwrap_or_default())
    }

    /// Key and value for the metadata of a file.
    #[must_use]
    pub fn metadata(self) -> (&'static str, String) {
        (TRAINING, serde_json::to_string(&self).unwrap_or_default())
    }
}
