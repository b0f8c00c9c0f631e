//! What a run is asked for: presets, a TOML file, flags. Saved beside every checkpoint.

use densevit::manifest::{Facet, LiftForm, Tap};
use serde::{Deserialize, Serialize};

/// How the small images of a training example are made from the large one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Downscale {
    /// Every second, every fourth pixel, as the authors' code does.
    Stride,
    /// Antialiased.
    Antialias,
}

/// Which part of a photo becomes an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// All of it, squeezed into a square, as the authors' code does.
    Squeeze,
    /// A random square of at least half the shorter side, mirrored half of the time.
    Crop,
}

/// Course of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The same from the first step to the last.
    Constant,
    /// Up over the warm-up, then down to zero along half a cosine.
    Cosine,
}

/// What is made small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// `1 - cos` between descriptors, as published.
    Cosine,
    /// The same after the mean descriptor of the photos was subtracted from both.
    Centred,
    /// Mean absolute difference.
    L1,
    /// Mean squared difference.
    L2,
}

/// Element type of the products of a step. Weights, statistics and losses stay in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// IEEE single.
    Fp32,
    /// bfloat16.
    Bf16,
}

/// Settings of `train lift`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiftConfig {
    /// Form of the head.
    pub form: LiftForm,
    /// Facet that the head takes; none means the model's default.
    pub facet: Option<Facet>,
    /// Block that the head takes; none means the model's default.
    pub layer: Option<u32>,
    /// Guided and corrected forms: side of the window of coarse cells, odd.
    pub window: i64,
    /// Width of the trunk of our own forms. The official form has its own.
    pub width: i64,
    /// Side of the largest image of an example, in pixels: a multiple of `2^scales` patches.
    pub size: u32,
    /// Doublings that an example teaches: half to full, quarter to half, eighth to quarter. Published: 2.
    pub scales: u32,
    /// How its half, its quarter and so on are made.
    pub downscale: Downscale,
    /// Which part of a photo becomes an example.
    pub framing: Framing,
    /// Colour jitter: factors of brightness, contrast and saturation within `1 ± jitter`, hue turned by up to `jitter` of a turn; 0 for none.
    pub jitter: f64,
    /// Examples of each photo.
    pub views: u32,
    /// What is made small.
    pub objective: Objective,
    /// Doublings that are trained through: 2 adds a term, quarter to full by two passes in a row.
    pub depth: u32,
    /// Examples that run at once.
    pub batch: usize,
    /// Batches whose gradients are summed for one step.
    pub accumulate: usize,
    /// Element type of the products of a step.
    pub products: Products,
    /// Steps of the whole run.
    pub steps: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Steps until the highest learning rate.
    pub warmup: u64,
    /// Share of the old value in the moving average of the weights, a step; 0 for none.
    pub ema: f64,
    /// Share of the photos that is kept for validation.
    pub validation: f64,
    /// Steps between validations and checkpoints.
    pub validate_every: u64,
    /// Of weights, views and order.
    pub seed: u64,
}

/// From 1 down to 0 as `progress` goes from 0 to 1.
pub(crate) fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
}

/// A named set of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// As published: official form, strided images, colour jitter, constant rate, plain Adam.
    Official,
    /// This project's: guided form, antialiased crops, centred objective, cosine schedule, moving average. The default model's head.
    Guided,
}

impl Preset {
    /// Its settings.
    #[must_use]
    pub fn config(self) -> LiftConfig {
        let guided = LiftConfig {
            form: LiftForm::Guided,
            facet: None,
            layer: None,
            window: 5,
            width: 96,
            size: 448,
            scales: 3,
            downscale: Downscale::Antialias,
            framing: Framing::Crop,
            jitter: 0.0,
            views: 2,
            objective: Objective::Centred,
            depth: 1,
            batch: 8,
            accumulate: 1,
            products: Products::Fp32,
            steps: 1500,
            learning_rate: 1e-3,
            schedule: Schedule::Cosine,
            warmup: 50,
            ema: 0.995,
            validation: 0.1,
            validate_every: 250,
            seed: 0,
        };
        match self {
            Self::Guided => guided,
            Self::Official => LiftConfig {
                form: LiftForm::Official,
                scales: 2,
                downscale: Downscale::Stride,
                framing: Framing::Squeeze,
                jitter: 0.2,
                views: 1,
                objective: Objective::Cosine,
                steps: 2000,
                schedule: Schedule::Constant,
                warmup: 0,
                ema: 0.0,
                ..guided
            },
        }
    }
}

impl Default for LiftConfig {
    fn default() -> Self {
        Preset::Guided.config()
    }
}

impl LiftConfig {
    /// What the head takes, on a model with this default.
    #[must_use]
    pub fn tap(&self, default: Tap) -> Tap {
        Tap { facet: self.facet.unwrap_or(default.facet), layer: self.layer.unwrap_or(default.layer) }
    }

    /// Learning rate of a step (0-based).
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "steps are far fewer than 2^53")]
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let warm = if step < self.warmup { share(step + 1, self.warmup) } else { 1.0 };
        let course = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let progress = share(step.saturating_sub(self.warmup), self.steps.saturating_sub(self.warmup));
                half_cosine(progress)
            }
        };
        self.learning_rate * warm * course
    }

    /// The first setting that cannot be, for a patch of so many pixels.
    ///
    /// # Errors
    /// Its name and what is wrong.
    pub fn check(&self, patch: u32) -> Result<(), String> {
        if self.window < 1 || self.window % 2 == 0 {
            return Err(format!("window is {}: it must be odd", self.window));
        }
        if !(1..=4).contains(&self.scales) {
            return Err(format!("scales is {}: it must lie in [1, 4]", self.scales));
        }
        let unit = patch << self.scales;
        if self.size == 0 || !self.size.is_multiple_of(unit) {
            return Err(format!("size is {}: with {} scales it must be a multiple of {unit}", self.size, self.scales));
        }
        if self.batch == 0 || self.accumulate == 0 || self.views == 0 || self.width < 1 || self.validate_every == 0 {
            return Err("batch, accumulate, views, width and validate_every must be at least 1".into());
        }
        if !(1..=2).contains(&self.depth) || self.depth > self.scales || !(0.0..=0.5).contains(&self.jitter) {
            return Err("depth must be 1 or 2 and at most scales, jitter must lie in [0, 0.5]".into());
        }
        if !(0.0..1.0).contains(&self.ema) || !(0.0..1.0).contains(&self.validation) || self.learning_rate <= 0.0 {
            return Err("ema and validation must lie in [0, 1), learning_rate above 0".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_ends_at_zero() {
        let config = LiftConfig { learning_rate: 1.0, warmup: 4, steps: 104, ..LiftConfig::default() };
        assert_eq!([0, 3].map(|step| config.rate(step)), [0.25, 1.0]);
        assert!((config.rate(54) - 0.5).abs() < 1e-12 && config.rate(104) < 1e-12);
        assert!((Preset::Official.config().rate(1999) - 1e-3).abs() < 1e-12);
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let bad = |config: LiftConfig| config.check(14).err().unwrap_or_default();
        assert!(bad(LiftConfig { window: 4, ..LiftConfig::default() }).contains("window"));
        assert!(bad(LiftConfig { size: 450, ..LiftConfig::default() }).contains("with 3 scales it must be a multiple of 112"));
        assert_eq!(bad(LiftConfig::default()), "");
    }
}
