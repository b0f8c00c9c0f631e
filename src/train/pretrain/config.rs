//! What a run of `train pretrain` is asked for: presets, a TOML file, flags. Saved beside every checkpoint.

use serde::{Deserialize, Serialize};

use crate::{
    pretrain::{neighbours::Border, schedule::Schedule},
    vit::FreshVit,
};

/// Images of which published learning rates speak.
const RATE_BATCH: f64 = 256.0;
/// Channels of an attention head, where their number is not given.
const HEAD_CHANNELS: u32 = 64;

/// Which crops the teacher sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TeacherCrops {
    /// All of them, as the code of SelfPatch has it: patches of every crop are learned from, and both centres follow all crops.
    All,
    /// The global ones, as DINO has it: patches of global crops are learned from.
    Global,
}

/// Settings of `train pretrain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainConfig {
    /// Whether patches are learned from too (SelfPatch); otherwise DINO alone, from the CLS token.
    pub selfpatch: bool,
    /// SHA-256 of the weights that it begins with; none for fresh ones. Sizes of the network are theirs then.
    pub from_sha256: Option<String>,
    /// Pixels on a side of a patch.
    pub patch: u32,
    /// Channels of a token.
    pub width: u32,
    /// Blocks.
    pub depth: u32,
    /// Attention heads; none means one for 64 channels.
    pub heads: Option<u32>,
    /// Pixels on a side of the image whose grid the position table has.
    pub image_size: u32,
    /// Register tokens.
    pub registers: u32,
    /// Share of the images for which the student's last block is left out; earlier blocks less.
    pub drop_path: f64,
    /// Pixels on a side of the two global crops.
    pub global_size: u32,
    /// Share of the photo that a global crop takes: least and most.
    pub global_scale: [f64; 2],
    /// Local crops.
    pub n_local: u32,
    /// Pixels on a side of a local crop.
    pub local_size: u32,
    /// Share of the photo that a local crop takes: least and most.
    pub local_scale: [f64; 2],
    /// Which crops the teacher sees; DINO alone: always the global ones.
    pub teacher_crops: TeacherCrops,
    /// What lies beyond the border of the grid.
    pub neighbours: Border,
    /// Neighbours, those most like it, that speak for a patch: 1 to 8.
    pub n_neighbours: i64,
    /// Factor on the loss of patches.
    pub patch_weight: f64,
    /// Prototypes of images.
    pub prototypes: i64,
    /// Prototypes of patches.
    pub patch_prototypes: i64,
    /// Channels inside the projection heads.
    pub hidden: i64,
    /// Channels before the prototypes.
    pub bottleneck: i64,
    /// Whether prototypes keep their length.
    pub norm_last_layer: bool,
    /// Temperature of the student.
    pub student_temperature: f64,
    /// Temperature of the teacher after the warm-up.
    pub teacher_temperature: f64,
    /// Temperature of the teacher at first.
    pub first_teacher_temperature: f64,
    /// Epochs until the teacher's temperature is reached.
    pub teacher_temperature_epochs: u64,
    /// Share of the old value in the centres, a batch.
    pub centre_momentum: f64,
    /// Photos that run at once.
    pub batch: usize,
    /// Batches whose gradients are summed for one step.
    pub accumulate: usize,
    /// Times that each photo is seen.
    pub epochs: u64,
    /// Steps of the whole run; none means those of the epochs.
    pub steps: Option<u64>,
    /// Highest learning rate for steps of 256 photos; other steps get their share of it.
    pub learning_rate: f64,
    /// Learning rate at the end.
    pub min_learning_rate: f64,
    /// Epochs until the highest learning rate.
    pub warmup_epochs: f64,
    /// Decay of weights: at first and at the end.
    pub weight_decay: [f64; 2],
    /// Share of the old value in the teacher at first, a step; 1 at the end.
    pub momentum: f64,
    /// Largest norm of a tensor's gradient; 0 for any.
    pub clip: f64,
    /// Epochs in which prototypes stay as they are.
    pub freeze_prototypes_epochs: u64,
    /// Share of the photos that is kept to look for collapse on.
    pub validation: f64,
    /// Steps between looks and checkpoints.
    pub validate_every: u64,
    /// Whether the backbone is written in half precision: half the bytes, values to one part in 2,048.
    pub half: bool,
    /// Of weights, crops and order.
    pub seed: u64,
}

/// A named set of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// This project's, for a core and one or two thousand photos: ViT-Ti/16 on crops of 96 and 48 px, small heads, below an hour.
    Cpu,
    /// As published for SelfPatch: ViT-S/16 on crops of 224 and 96 px, 65,536 and 4,096 prototypes, 300 epochs.
    Gpu,
}

impl Preset {
    /// Its settings.
    #[must_use]
    pub fn config(self) -> PretrainConfig {
        let published = PretrainConfig {
            selfpatch: true,
            from_sha256: None,
            patch: 16,
            width: 384,
            depth: 12,
            heads: None,
            image_size: 224,
            registers: 0,
            drop_path: 0.1,
            global_size: 224,
            global_scale: [0.25, 1.0],
            n_local: 8,
            local_size: 96,
            local_scale: [0.05, 0.25],
            teacher_crops: TeacherCrops::All,
            neighbours: Border::Wrap,
            n_neighbours: 4,
            patch_weight: 0.1,
            prototypes: 65_536,
            patch_prototypes: 4096,
            hidden: 2048,
            bottleneck: 256,
            norm_last_layer: true,
            student_temperature: 0.1,
            teacher_temperature: 0.04,
            first_teacher_temperature: 0.04,
            teacher_temperature_epochs: 0,
            centre_momentum: 0.9,
            batch: 64,
            accumulate: 1,
            epochs: 300,
            steps: None,
            learning_rate: 5e-4,
            min_learning_rate: 1e-6,
            warmup_epochs: 10.0,
            weight_decay: [0.04, 0.4],
            momentum: 0.996,
            clip: 3.0,
            freeze_prototypes_epochs: 1,
            validation: 0.02,
            validate_every: 1000,
            half: false,
            seed: 0,
        };
        match self {
            Self::Gpu => published,
            Self::Cpu => PretrainConfig {
                width: 192,
                image_size: 96,
                drop_path: 0.0,
                global_size: 96,
                n_local: 4,
                local_size: 48,
                prototypes: 1024,
                patch_prototypes: 512,
                hidden: 512,
                bottleneck: 128,
                batch: 16,
                epochs: 12,
                // Of 16 photos 1.25e-4: with four times as much the teacher soon tells nothing apart.
                learning_rate: 2e-3,
                warmup_epochs: 1.0,
                // At the published 0.04 the image loss rises to that of a teacher that tells nothing apart, and stays there.
                teacher_temperature: 0.02,
                first_teacher_temperature: 0.02,
                validation: 0.05,
                validate_every: 100,
                ..published
            },
        }
    }
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Preset::Cpu.config()
    }
}

impl PretrainConfig {
    /// Shape of a network that begins from nothing.
    #[must_use]
    pub fn fresh(&self) -> FreshVit {
        let Self { patch, width, depth, image_size, selfpatch, .. } = *self;
        let heads = self.heads.unwrap_or((width / HEAD_CHANNELS).max(1));
        FreshVit { patch, width, depth, heads, grid: image_size / patch.max(1), has_cls: !selfpatch }
    }

    /// Which crops the teacher sees.
    #[must_use]
    pub fn seen_by_teacher(&self) -> TeacherCrops {
        if self.selfpatch { self.teacher_crops } else { TeacherCrops::Global }
    }

    /// The courses of a run on so many photos.
    #[must_use]
    pub fn schedule(&self, n_photos: usize) -> Schedule {
        let n_seen = self.batch.saturating_mul(self.accumulate).max(1);
        let steps_per_epoch = (n_photos / n_seen).max(1) as u64;
        #[expect(clippy::cast_precision_loss, reason = "far fewer photos than 2^53")]
        let share = n_seen as f64 / RATE_BATCH;
        Schedule {
            steps: self.steps.unwrap_or(self.epochs.saturating_mul(steps_per_epoch)),
            steps_per_epoch,
            rate: [self.learning_rate * share, self.min_learning_rate],
            warmup_epochs: self.warmup_epochs,
            decay: self.weight_decay,
            momentum: self.momentum,
            temperature: [self.first_teacher_temperature, self.teacher_temperature],
            temperature_epochs: self.teacher_temperature_epochs,
            freeze_epochs: self.freeze_prototypes_epochs,
        }
    }

    /// The first setting that cannot be.
    ///
    /// # Errors
    /// Its name and what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.check_network()?;
        self.check_crops()?;
        let counts = [self.batch as u64, self.accumulate as u64, self.epochs, self.steps.unwrap_or(1), self.validate_every];
        if counts.contains(&0) {
            return Err("batch, accumulate, epochs, steps and validate_every must be at least 1".into());
        }
        let heads = [self.prototypes, self.patch_prototypes, self.hidden, self.bottleneck];
        if heads.iter().any(|extent| *extent < 1) {
            return Err("prototypes, patch_prototypes, hidden and bottleneck must be at least 1".into());
        }
        if !(1..=8).contains(&self.n_neighbours) {
            return Err(format!("n_neighbours is {}: a patch has 1 to 8", self.n_neighbours));
        }
        let temperatures = [self.student_temperature, self.teacher_temperature, self.first_teacher_temperature];
        if temperatures.iter().any(|value| *value <= 0.0) || self.learning_rate <= 0.0 {
            return Err("temperatures and learning_rate must be above 0".into());
        }
        if [self.drop_path, self.centre_momentum, self.validation].iter().any(|share| !(0.0..1.0).contains(share)) {
            return Err("drop_path, centre_momentum and validation must lie in [0, 1)".into());
        }
        let not_negative = [self.patch_weight, self.min_learning_rate, self.warmup_epochs, self.clip];
        if not_negative.iter().chain(&self.weight_decay).any(|value| *value < 0.0) || !(0.0..=1.0).contains(&self.momentum) {
            return Err(
                "patch_weight, min_learning_rate, warmup_epochs, clip and weight_decay must not be negative, momentum in [0, 1]"
                    .into(),
            );
        }
        Ok(())
    }

    fn check_network(&self) -> Result<(), String> {
        let FreshVit { patch, width, depth, heads, .. } = self.fresh();
        if patch == 0 || width == 0 || depth == 0 || heads == 0 || width % heads != 0 {
            return Err(format!("patch, width and depth must be at least 1, and {heads} heads must divide a width of {width}"));
        }
        if self.image_size < patch {
            return Err(format!("image_size is {}: it must hold a patch of {patch} px", self.image_size));
        }
        Ok(())
    }

    fn check_crops(&self) -> Result<(), String> {
        for (name, size) in [("global_size", self.global_size), ("local_size", self.local_size)] {
            if size == 0 || !size.is_multiple_of(self.patch) {
                return Err(format!("{name} is {size}: it must be a multiple of the patch, {}", self.patch));
            }
        }
        for (name, [least, most]) in [("global_scale", self.global_scale), ("local_scale", self.local_scale)] {
            if !(least > 0.0 && least <= most && most <= 1.0) {
                return Err(format!("{name} is {least} to {most}: shares of a photo, above 0 and at most 1, lesser first"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_named() {
        let bad = |config: PretrainConfig| config.check().err().unwrap_or_default();
        let usual = PretrainConfig::default;
        assert_eq!([Preset::Cpu, Preset::Gpu].map(|preset| bad(preset.config())), ["", ""]);
        assert!(
            bad(PretrainConfig { local_size: 50, ..usual() })
                .contains("local_size is 50: it must be a multiple of the patch, 16")
        );
        assert!(bad(PretrainConfig { heads: Some(5), ..usual() }).contains("5 heads"));
        assert!(bad(PretrainConfig { local_scale: [0.5, 0.2], ..usual() }).contains("local_scale"));
        assert!(bad(PretrainConfig { n_neighbours: 9, ..usual() }).contains("1 to 8"));
        assert!(bad(PretrainConfig { teacher_temperature: 0.0, ..usual() }).contains("temperatures"));
        assert!(bad(PretrainConfig { steps: Some(0), ..usual() }).contains("steps"));
    }

    #[test]
    fn settings_survive_their_file() {
        for preset in [Preset::Cpu, Preset::Gpu] {
            let text = toml::to_string(&preset.config()).unwrap_or_default();
            assert_eq!(toml::from_str::<PretrainConfig>(&text).ok(), Some(preset.config()), "{text}");
        }
        assert!(toml::from_str::<PretrainConfig>("stepps = 3").is_err());
    }

    #[test]
    fn published_rates_are_those_of_256_photos() {
        let schedule = PretrainConfig { batch: 64, accumulate: 2, ..Preset::Gpu.config() }.schedule(1280);
        assert_eq!((schedule.steps_per_epoch, schedule.steps), (10, 3000));
        assert!((schedule.rate[0] - 2.5e-4).abs() < 1e-12);
        assert_eq!(PretrainConfig { steps: Some(7), ..Preset::Gpu.config() }.schedule(3).steps, 7);
    }
}
