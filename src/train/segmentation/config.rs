//! What a run of `train segvit` is asked for: presets, a TOML file, flags. Saved beside every checkpoint.

use densevit::manifest::{Architecture, Facet, SegmentForm, SegmentInput, Tap};
use serde::{Deserialize, Serialize};

use crate::segmentation::{data::view::Augmentation, head::Shape, layers::Widths, loss::Ignored};

/// Channels of an attention head, where their number is not given.
const HEAD_CHANNELS: i64 = 32;
/// Start of the warm-up, as a share of the rate.
const WARMUP_FROM: f64 = 1e-6;

/// Settings of `train segvit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegvitConfig {
    /// How the head makes masks.
    pub form: SegmentForm,
    /// What it reads.
    pub input: SegmentInput,
    /// Blocks whose outputs it reads, in the order in which it reads them: SegViT's deepest first, Shrunk's in natural order. Empty means
    /// the published ones for the depth; of one-tap heads, the model's default block.
    pub taps: Vec<u32>,
    /// Stages of a SegViT head whose taps are not given.
    pub stages: u32,
    /// Channels of the decoder; none means half of the backbone's, as published.
    pub width: Option<i64>,
    /// Attention heads of the decoder; none means one for 32 channels, as published.
    pub heads: Option<i64>,
    /// Share of values that training sets to zero.
    pub dropout: f64,
    /// Scores are served at so many times the rows and columns of the grid.
    pub upscale: u32,
    /// Shrunk: block in which the backbone halves its grid; none means after a third of them, as published.
    pub downsample: Option<u32>,
    /// Whether the backbone learns too.
    pub finetune: bool,
    /// Learning rate of each block of the backbone, as a share of the next one's; 1 for the same.
    pub layer_decay: f64,
    /// Share of the images for which the last block is left out.
    pub drop_path: f64,
    /// Examples of each image that are kept on disk.
    pub views: u32,
    /// The loss sees every so many-th row and column of the labels.
    pub label_stride: u32,
    /// What pixels are that do not count.
    pub ignored: Ignored,
    /// Examples that run at once.
    pub batch: usize,
    /// Batches whose gradients are summed for one step.
    pub accumulate: usize,
    /// Steps of the whole run.
    pub steps: u64,
    /// Highest learning rate of the backbone.
    pub learning_rate: f64,
    /// The head's, as a multiple of it.
    pub head_factor: f64,
    /// Decay of weights that are neither biases nor of norms.
    pub weight_decay: f64,
    /// Exponent of the rate's course, `(1 - step / steps) ^ power`.
    pub power: f64,
    /// Steps until the highest learning rate.
    pub warmup: u64,
    /// Largest norm of a step's gradient; 0 for any.
    pub clip: f64,
    /// Share of the old value in the moving average of the weights, a step; 0 for none.
    pub ema: f64,
    /// Steps between validations and checkpoints.
    pub validate_every: u64,
    /// Of weights, views and order.
    pub seed: u64,
    /// How examples are made.
    pub augmentation: Augmentation,
}

/// A named set of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// This project's, for CamVid (480 x 360 px) on a CPU: frozen backbone, small images, a quarter of an hour.
    Camvid,
    /// As published for ADE20K: 512 px, 160 thousand steps of 16 images, the whole backbone learns.
    Paper,
}

impl Preset {
    /// Its settings.
    #[must_use]
    pub fn config(self) -> SegvitConfig {
        let paper = SegvitConfig {
            form: SegmentForm::Segvit,
            input: SegmentInput::Backbone,
            taps: Vec::new(),
            stages: 3,
            width: None,
            heads: None,
            dropout: 0.1,
            upscale: 4,
            downsample: None,
            finetune: true,
            layer_decay: 1.0,
            drop_path: 0.1,
            augmentation: Augmentation { size: [512, 512], base: [2048, 512], ratio: [0.5, 2.0], ..Augmentation::default() },
            views: 1,
            label_stride: 1,
            ignored: Ignored::Masked,
            batch: 16,
            accumulate: 1,
            steps: 160_000,
            learning_rate: 2e-5,
            head_factor: 10.0,
            weight_decay: 0.01,
            power: 1.0,
            warmup: 1500,
            clip: 35.0,
            ema: 0.0,
            validate_every: 8000,
            seed: 0,
        };
        match self {
            Self::Paper => paper,
            Self::Camvid => SegvitConfig {
                finetune: false,
                drop_path: 0.0,
                augmentation: Augmentation::default(),
                views: 2,
                label_stride: 2,
                batch: 8,
                steps: 700,
                learning_rate: 1e-4,
                warmup: 50,
                ema: 0.99,
                validate_every: 175,
                ..paper
            },
        }
    }
}

impl Default for SegvitConfig {
    fn default() -> Self {
        Preset::Camvid.config()
    }
}

impl SegvitConfig {
    /// Taps of the head, on a backbone of this depth with this default.
    #[must_use]
    pub fn taps(&self, depth: u32, default: Tap) -> Vec<Tap> {
        let layers = if self.taps.is_empty() { self.usual_taps(depth, default.layer) } else { self.taps.clone() };
        layers.into_iter().map(|layer| Tap { facet: Facet::Token, layer }).collect()
    }

    fn usual_taps(&self, depth: u32, default: u32) -> Vec<u32> {
        let last = depth.saturating_sub(1);
        match self.form {
            SegmentForm::Shrunk => vec![(depth / 3).saturating_sub(1), last],
            SegmentForm::Linear => vec![default],
            SegmentForm::Segvit if self.input == SegmentInput::Lift || self.stages == 1 => vec![default],
            // Published for 12 blocks, and by thirds for 24.
            SegmentForm::Segvit if (depth, self.stages) == (12, 3) => vec![11, 7, 5],
            SegmentForm::Segvit => {
                (1..=self.stages).rev().map(|stage| (depth * stage / self.stages.max(1)).saturating_sub(1)).collect()
            }
        }
    }

    /// Block in which the backbone halves its grid.
    #[must_use]
    pub fn downsample(&self, depth: u32) -> Option<u32> {
        (self.form == SegmentForm::Shrunk).then(|| self.downsample.unwrap_or(depth / 3))
    }

    /// Shape of the head, for so many taps and classes.
    #[must_use]
    pub fn shape(&self, arch: &Architecture, n_taps: usize, n_classes: usize) -> Shape {
        let channels = i64::from(arch.width);
        let width = self.width.unwrap_or(channels / 2);
        let heads = self.heads.unwrap_or((width / HEAD_CHANNELS).max(1));
        let grid = self.augmentation.size.map(|side| i64::from(side / arch.patch));
        let n_classes = i64::try_from(n_classes).unwrap_or(i64::MAX);
        Shape { form: self.form, n_taps, channels, n_classes, widths: Widths { width, heads, dropout: self.dropout }, grid }
    }

    /// Learning rate of a step (0-based): a power of the share that is left, and at first a share of that which grows linearly.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "steps are far fewer than 2^53")]
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let course = (1.0 - share(step, self.steps)).max(0.0).powf(self.power);
        let warm = if step < self.warmup { WARMUP_FROM + (1.0 - WARMUP_FROM) * share(step, self.warmup) } else { 1.0 };
        self.learning_rate * course * warm
    }

    /// The first setting that cannot be, on this network with these taps.
    ///
    /// # Errors
    /// Its name and what is wrong.
    pub fn check(&self, arch: &Architecture, taps: &[Tap]) -> Result<(), String> {
        let Augmentation { size, base, ratio, max_share, .. } = self.augmentation;
        if size.iter().any(|side| *side == 0 || !side.is_multiple_of(arch.patch)) {
            return Err(format!("size is {size:?}: both sides must be multiples of the patch, {}", arch.patch));
        }
        if base.contains(&0) || ratio[0] <= 0.0 || ratio[0] > ratio[1] || !(0.0..=1.0).contains(&max_share) {
            return Err("base and ratio must be above 0, ratio's first no more than its second, max_share in [0, 1]".into());
        }
        if let Some(tap) = taps.iter().find(|tap| tap.layer >= arch.depth) {
            return Err(format!("taps name block {}: the backbone has 0 to {}", tap.layer, arch.depth.saturating_sub(1)));
        }
        let is_single = self.form == SegmentForm::Linear || self.input == SegmentInput::Lift;
        if is_single && (taps.len() != 1 || self.form == SegmentForm::Shrunk) {
            return Err("a linear head and one on LiFT's features read one tap, and Shrunk reads no LiFT features".into());
        }
        if self.downsample(arch.depth).is_some_and(|block| block >= arch.depth) {
            return Err(format!("downsample must name a block, 0 to {}", arch.depth.saturating_sub(1)));
        }
        let widths = self.shape(arch, taps.len(), 1).widths;
        if widths.width < 1 || widths.heads < 1 || widths.width % widths.heads != 0 {
            return Err(format!("{} heads do not divide a width of {}", widths.heads, widths.width));
        }
        if [self.batch, self.accumulate, self.upscale as usize, self.label_stride as usize, self.views as usize].contains(&0)
            || self.validate_every == 0
        {
            return Err("batch, accumulate, upscale, label_stride, views and validate_every must be at least 1".into());
        }
        if !self.upscale.is_power_of_two() {
            return Err(format!("upscale is {}: it must be a power of two", self.upscale));
        }
        if [self.ema, self.dropout, self.drop_path].iter().any(|share| !(0.0..1.0).contains(share)) || self.learning_rate <= 0.0 {
            return Err("ema, dropout and drop_path must lie in [0, 1), learning_rate above 0".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use densevit::manifest::FfnKind;

    use super::*;

    const DEFAULT: Tap = Tap { facet: Facet::Token, layer: 10 };

    fn arch(depth: u32) -> Architecture {
        Architecture {
            family: "dinov2".into(),
            width: 384,
            depth,
            heads: 6,
            patch: 14,
            registers: 0,
            ffn: FfnKind::Mlp,
            layer_scale: true,
            norm_eps: 1e-6,
            parameters: 0,
        }
    }

    #[test]
    fn the_rate_warms_up_and_falls_as_a_power() {
        let config = SegvitConfig { learning_rate: 1.0, warmup: 10, steps: 100, power: 2.0, ..SegvitConfig::default() };
        assert!(config.rate(0) < 2e-6 && (config.rate(50) - 0.25).abs() < 1e-12 && config.rate(100).abs() < 1e-12);
        assert!((config.rate(5) - 0.5 * 0.95 * 0.95).abs() < 1e-5, "{}", config.rate(5));
    }

    #[test]
    fn taps_are_the_published_ones_unless_they_are_given() {
        let layers = |config: &SegvitConfig, depth| config.taps(depth, DEFAULT).iter().map(|tap| tap.layer).collect::<Vec<_>>();
        let of = |form, input| SegvitConfig { form, input, ..SegvitConfig::default() };
        assert_eq!(layers(&of(SegmentForm::Segvit, SegmentInput::Backbone), 12), [11, 7, 5]);
        assert_eq!(layers(&of(SegmentForm::Segvit, SegmentInput::Backbone), 24), [23, 15, 7]);
        assert_eq!(layers(&of(SegmentForm::Shrunk, SegmentInput::Backbone), 24), [7, 23]);
        assert_eq!(of(SegmentForm::Shrunk, SegmentInput::Backbone).downsample(24), Some(8));
        assert_eq!(layers(&of(SegmentForm::Linear, SegmentInput::Lift), 12), [10]);
        assert_eq!(layers(&SegvitConfig { taps: vec![3], ..of(SegmentForm::Segvit, SegmentInput::Lift) }, 12), [3]);
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let bad = |config: SegvitConfig| config.check(&arch(12), &config.taps(12, DEFAULT)).err().unwrap_or_default();
        assert_eq!(bad(SegvitConfig::default()), "");
        assert!(bad(Preset::Paper.config()).contains("multiples of the patch, 14"));
        assert!(bad(SegvitConfig { taps: vec![12], ..SegvitConfig::default() }).contains("block 12"));
        assert!(bad(SegvitConfig { taps: vec![3, 4], form: SegmentForm::Linear, ..SegvitConfig::default() }).contains("one tap"));
        assert!(bad(SegvitConfig { heads: Some(5), ..SegvitConfig::default() }).contains("5 heads do not divide"));
        assert!(bad(SegvitConfig { upscale: 3, ..SegvitConfig::default() }).contains("power of two"));
    }

    #[test]
    fn settings_survive_their_file() {
        for preset in [Preset::Camvid, Preset::Paper] {
            let text = toml::to_string(&preset.config()).unwrap_or_default();
            assert_eq!(toml::from_str::<SegvitConfig>(&text).ok(), Some(preset.config()), "{text}");
        }
        assert!(toml::from_str::<SegvitConfig>("stepps = 3").is_err());
    }
}
