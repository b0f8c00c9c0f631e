//! What the file of a segmentation head says of itself.

use std::collections::HashMap;

use anyhow::Context as _;
use densevit::manifest::{ClassSpec, Tap};
use serde::{Deserialize, Serialize};

/// Key of the card in the metadata of a safetensors file.
const CARD: &str = "densevit.segment";
/// Key of what only the trainer needs to know.
const TRAINING: &str = "densevit.segment.training";

/// How a head makes masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Attention-to-mask decoder, a stage a tap (Zhang et al., NeurIPS 2022).
    Segvit,
    /// Its Shrunk form: a backbone that halves its grid on the way, and a decoder that restores it.
    Shrunk,
    /// BatchNorm and 1x1 convolution.
    Linear,
}

/// What a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Taps of the backbone.
    Backbone,
    /// One tap after one pass of the model's LiFT head.
    Lift,
}

/// What its trainer measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentScores {
    /// Mean over the classes of intersection over union.
    pub miou: f64,
    /// Share of the pixels whose class is right.
    pub pixel_accuracy: f64,
}

/// What a trainer writes into the file of a head, so that nobody has to type it: JSON in the metadata of the safetensors header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentCard {
    /// Form of the head.
    pub form: Form,
    /// What it reads.
    pub input: Input,
    /// Taps, in the order in which it reads them.
    pub taps: Vec<Tap>,
    /// Attention heads; 0 in a linear head.
    pub heads: u32,
    /// Names and colours of the classes.
    pub classes: Vec<ClassSpec>,
    /// Rows and columns of the training images, in pixels.
    pub size: [u32; 2],
    /// Scores have so many times the rows and columns of the grid.
    pub upscale: u32,
    /// SHA-256 of the file of weights of the backbone that it was trained on.
    pub backbone_source_sha256: String,
    /// Licence of the weights.
    pub license: String,
    /// What its trainer measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<SegmentScores>,
}

/// What only the trainer needs to know of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingCard {
    /// Block in which the backbone halves its grid, 0-based.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downsample: Option<u32>,
}

impl SegmentCard {
    /// Both cards in the metadata of a file.
    ///
    /// # Errors
    /// When there is no card.
    pub fn read(metadata: &HashMap<String, String>) -> anyhow::Result<(Self, TrainingCard)> {
        let text = metadata.get(CARD).context("it holds no segmentation head: its metadata lack \"densevit.segment\"")?;
        let card = serde_json::from_str(text).context("reading its card")?;
        let training = metadata.get(TRAINING).map(|text| serde_json::from_str(text)).transpose().context("reading its card")?;
        Ok((card, training.unwrap_or_default()))
    }

    /// Keys and values for the metadata of a file.
    #[must_use]
    pub fn metadata(&self, training: TrainingCard) -> [(&'static str, String); 2] {
        let text = serde_json::to_string(self).unwrap_or_default();
        [(CARD, text), (TRAINING, serde_json::to_string(&training).unwrap_or_default())]
    }
}
