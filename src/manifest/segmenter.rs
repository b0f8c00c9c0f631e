//! The `[segmenter]` section of `model.toml`: a head that scores every cell for every class.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::manifest::{Manifest, Precision, Tap, repository::require};

/// Largest factor between the grid of a head and its scores.
const MAX_UPSCALE: u32 = 64;
/// Most classes: what a label map of 16 bits can tell apart.
const MAX_CLASSES: usize = 1 << 16;

/// Form of a segmentation head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentForm {
    /// Attention-to-mask decoder with one stage a tap (SegViT, NeurIPS 2022).
    Segvit,
    /// Learned queries that gather taps of a backbone with half the grid back to the full one, then one attention-to-mask stage (SegViT
    /// Shrunk).
    Shrunk,
    /// BatchNorm and a 1x1 convolution on one tap.
    Linear,
}

impl SegmentForm {
    /// All forms.
    pub const ALL: [Self; 3] = [Self::Segvit, Self::Shrunk, Self::Linear];

    /// The name used in manifests, cards and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Segvit => "segvit",
            Self::Shrunk => "shrunk",
            Self::Linear => "linear",
        }
    }
}

impl std::str::FromStr for SegmentForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|form| form.name() == text);
        found.ok_or_else(|| format!("\"{text}\" is no form: segvit, shrunk or linear"))
    }
}

/// What a segmentation head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentInput {
    /// Activations of the backbone as they are.
    Backbone,
    /// Activations of the backbone after one pass of the model's LiFT head.
    Lift,
}

impl std::str::FromStr for SegmentInput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "backbone" => Ok(Self::Backbone),
            "lift" => Ok(Self::Lift),
            _ => Err(format!("\"{text}\" is no input: backbone or lift")),
        }
    }
}

/// A class: what its channel of the scores means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// Name, for people.
    pub name: String,
    /// Red, green and blue in pictures.
    pub color: [u8; 3],
}

/// What a trainer measured on images that the head was not trained on; all in \[0, 1\].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentScores {
    /// Mean over classes of intersection over union.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miou: Option<f64>,
    /// Share of the labelled pixels whose class is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_accuracy: Option<f64>,
}

/// `segment.onnx`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmenterFile {
    /// File name inside the directory.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Form of the head.
    pub form: SegmentForm,
    /// What it reads: the taps as they are, or after LiFT.
    pub input: SegmentInput,
    /// The only activations that the head accepts, in the order in which it reads them.
    pub taps: Vec<Tap>,
    /// Cells of the scores on a side of a cell of the head's grid.
    pub upscale: u32,
    /// Rows and columns, in pixels, of the images that the head was trained on, when its source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[u32; 2]>,
    /// SHA-256 of the backbone that the head was trained on.
    pub backbone_sha256: String,
    /// SHA-256 of the LiFT head that it reads through, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lift_sha256: Option<String>,
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
    #[serde(default)]
    pub scores: SegmentScores,
    /// Classes, in the order of the scores' channels.
    pub classes: Vec<ClassSpec>,
}

impl SegmenterFile {
    /// The activations whose grid the scores have, `upscale` times finer: the tap of the last stage, or the first of the shrunk form.
    #[must_use]
    pub fn grid_tap(&self) -> Option<Tap> {
        match self.form {
            SegmentForm::Shrunk => self.taps.first().copied(),
            SegmentForm::Segvit | SegmentForm::Linear => self.taps.last().copied(),
        }
    }

    /// What the types cannot say, in a manifest that holds this section. Returns the problem.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let backbone = &manifest.backbone;
        require(self.backbone_sha256 == backbone.sha256, || {
            format!("the segmentation head belongs to backbone {}, this is {}", self.backbone_sha256, backbone.sha256)
        })?;
        let missing = self.taps.iter().find(|tap| !backbone.offers(**tap));
        require(missing.is_none(), || {
            let tap = missing.map(Tap::to_string).unwrap_or_default();
            format!("the segmentation head takes the {tap}, which is not offered")
        })?;
        self.check_taps(manifest)?;
        require(self.upscale.is_power_of_two() && self.upscale <= MAX_UPSCALE, || {
            format!("upscale {} is no power of two up to {MAX_UPSCALE}", self.upscale)
        })?;
        require(self.size.is_none_or(|size| !size.contains(&0)), || format!("the training size {:?} has no area", self.size))?;
        require((1..=MAX_CLASSES).contains(&self.classes.len()), || {
            format!("{} classes: expected 1 to {MAX_CLASSES}", self.classes.len())
        })?;
        let names: HashSet<&str> = self.classes.iter().map(|class| class.name.as_str()).collect();
        let are_told_apart = names.len() == self.classes.len() && !names.contains("");
        require(are_told_apart, || "two classes have one name, or a class has none".to_owned())?;
        let scores = [self.scores.miou, self.scores.pixel_accuracy];
        require(scores.iter().flatten().all(|score| (0.0..=1.0).contains(score)), || "a score lies outside 0 to 1".to_owned())
    }

    fn check_taps(&self, manifest: &Manifest) -> Result<(), String> {
        let is_single = self.taps.len() == 1;
        match self.form {
            SegmentForm::Segvit => require(!self.taps.is_empty(), || "the segmentation head takes no activations".to_owned())?,
            SegmentForm::Linear => require(is_single, || format!("a linear head takes one tap, not {}", self.taps.len()))?,
            SegmentForm::Shrunk => {
                let is_halved = |tap: Option<&Tap>| tap.is_some_and(|tap| manifest.backbone.is_halved(*tap));
                require(!is_halved(self.taps.first()) && is_halved(self.taps.last()), || {
                    "a shrunk head needs a backbone that halves its grid (query_downsample) between the head's first and last tap"
                        .to_owned()
                })?;
            }
        }
        match self.input {
            SegmentInput::Backbone => {
                require(self.lift_sha256.is_none(), || "a head that reads the backbone names a LiFT head".to_owned())
            }
            SegmentInput::Lift => {
                require(is_single && self.form != SegmentForm::Shrunk, || {
                    "only heads of one tap, and not the shrunk form, can read features after LiFT".to_owned()
                })?;
                let lift = manifest.lift.as_ref().filter(|lift| Some(&lift.tap) == self.taps.first());
                let lift =
                    lift.ok_or("the segmentation head reads features after LiFT, and the model has no LiFT head for its tap")?;
                require(self.lift_sha256.as_ref() == Some(&lift.sha256), || {
                    format!("the segmentation head belongs to LiFT head {:?}, this is {}", self.lift_sha256, lift.sha256)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::manifest::Facet;

    const SECTION: &str = r#"
file = "segment.onnx"
sha256 = ""
form = "FORM"
input = "backbone"
taps = [{ facet = "token", layer = 7 }, { facet = "token", layer = 11 }]
upscale = 4
backbone_sha256 = ""
opset = 20
precision = "fp32"
parameters = 1
license = "MIT"
source = "head.pth"
classes = [{ name = "sky", color = [0, 128, 255] }]
"#;

    #[test]
    fn what_a_head_need_not_say_may_be_missing_and_what_nobody_knows_is_refused() {
        let section: SegmenterFile = toml::from_str(&SECTION.replace("FORM", "segvit")).unwrap();
        assert_eq!((section.size, section.lift_sha256.as_ref(), section.scores), (None, None, SegmentScores::default()));
        assert_eq!(toml::from_str::<SegmenterFile>(&toml::to_string(&section).unwrap()).unwrap(), section);
        for unknown in ["bogus = 1\n", "[scores]\nbogus = 1\n"] {
            let error = toml::from_str::<SegmenterFile>(&format!("{}{unknown}", SECTION.replace("FORM", "segvit"))).unwrap_err();
            assert!(error.to_string().contains("unknown field `bogus`"), "{error}");
        }
        assert!(toml::from_str::<SegmenterFile>(&SECTION.replace("FORM", "unet")).is_err());
    }

    #[test]
    fn scores_have_the_grid_of_the_last_tap_but_of_the_first_in_the_shrunk_form() {
        for (form, layer) in [(SegmentForm::Segvit, 11), (SegmentForm::Shrunk, 7)] {
            let section: SegmenterFile = toml::from_str(&SECTION.replace("FORM", form.name())).unwrap();
            assert_eq!(section.grid_tap(), Some(Tap { facet: Facet::Token, layer }));
        }
    }
}
