//! Settings of `train pretrain` as flags.

use clap::Args;

use crate::{
    commands::run::pair,
    pretrain::{
        config::{PretrainConfig, TeacherCrops},
        neighbours::Border,
    },
};

/// Settings as flags.
#[derive(Debug, Args)]
pub(super) struct SettingArgs {
    /// DINO alone: learn from the CLS token, not from patches.
    #[arg(long)]
    no_selfpatch: bool,
    /// Pixels on a side of a patch.
    #[arg(long)]
    patch: Option<u32>,
    /// Channels of a token.
    #[arg(long)]
    width: Option<u32>,
    /// Blocks.
    #[arg(long)]
    depth: Option<u32>,
    /// Attention heads [default: one for 64 channels].
    #[arg(long)]
    heads: Option<u32>,
    /// Pixels on a side of the image whose grid the position table has.
    #[arg(long)]
    image_size: Option<u32>,
    /// Register tokens; weights that have none get fresh ones.
    #[arg(long)]
    registers: Option<u32>,
    /// Share of the images for which the student's last block is left out; earlier blocks less.
    #[arg(long)]
    drop_path: Option<f64>,
    /// Pixels on a side of the two global crops.
    #[arg(long)]
    global_size: Option<u32>,
    /// Share of the photo that a global crop takes.
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "LEAST,MOST")]
    global_scale: Option<Vec<f64>>,
    /// Local crops.
    #[arg(long)]
    n_local: Option<u32>,
    /// Pixels on a side of a local crop.
    #[arg(long)]
    local_size: Option<u32>,
    /// Share of the photo that a local crop takes.
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "LEAST,MOST")]
    local_scale: Option<Vec<f64>>,
    /// Which crops the teacher sees.
    #[arg(long, value_enum)]
    teacher_crops: Option<TeacherCrops>,
    /// What lies beyond the border of the grid.
    #[arg(long, value_enum)]
    neighbours: Option<Border>,
    /// Neighbours, those most like it, that speak for a patch.
    #[arg(long)]
    n_neighbours: Option<i64>,
    /// Factor on the loss of patches.
    #[arg(long)]
    patch_weight: Option<f64>,
    /// Prototypes of images.
    #[arg(long)]
    prototypes: Option<i64>,
    /// Prototypes of patches.
    #[arg(long)]
    patch_prototypes: Option<i64>,
    /// Channels inside the projection heads.
    #[arg(long)]
    hidden: Option<i64>,
    /// Channels before the prototypes.
    #[arg(long)]
    bottleneck: Option<i64>,
    /// Keep the length of prototypes.
    #[arg(long)]
    norm_last_layer: Option<bool>,
    /// Temperature of the student.
    #[arg(long)]
    student_temperature: Option<f64>,
    /// Temperature of the teacher after the warm-up.
    #[arg(long)]
    teacher_temperature: Option<f64>,
    /// Temperature of the teacher at first.
    #[arg(long)]
    first_teacher_temperature: Option<f64>,
    /// Epochs until the teacher's temperature is reached.
    #[arg(long)]
    teacher_temperature_epochs: Option<u64>,
    /// Share of the old value in the centres, a batch.
    #[arg(long)]
    centre_momentum: Option<f64>,
    /// Photos that run at once.
    #[arg(long)]
    batch: Option<usize>,
    /// Batches whose gradients are summed for one step.
    #[arg(long)]
    accumulate: Option<usize>,
    /// Times that each photo is seen.
    #[arg(long)]
    epochs: Option<u64>,
    /// Steps of the whole run [default: those of the epochs].
    #[arg(long)]
    steps: Option<u64>,
    /// Highest learning rate for steps of 256 photos; other steps get their share of it.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Learning rate at the end.
    #[arg(long)]
    min_learning_rate: Option<f64>,
    /// Epochs until the highest learning rate.
    #[arg(long)]
    warmup_epochs: Option<f64>,
    /// Decay of weights.
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "FIRST,LAST")]
    weight_decay: Option<Vec<f64>>,
    /// Share of the old value in the teacher at first, a step.
    #[arg(long)]
    momentum: Option<f64>,
    /// Largest norm of a tensor's gradient; 0 for any.
    #[arg(long)]
    clip: Option<f64>,
    /// Epochs in which prototypes stay as they are.
    #[arg(long)]
    freeze_prototypes_epochs: Option<u64>,
    /// Share of the photos that is kept to look for collapse on.
    #[arg(long)]
    validation: Option<f64>,
    /// Steps between looks and checkpoints.
    #[arg(long)]
    validate_every: Option<u64>,
    /// Write the backbone in half precision.
    #[arg(long)]
    half: bool,
    /// Of weights, crops and order.
    #[arg(long)]
    seed: Option<u64>,
}

impl SettingArgs {
    /// Settings with those that were given as flags in place of their own.
    ///
    /// # Errors
    /// When a flag of two numbers has another count.
    pub(super) fn over(&self, mut config: PretrainConfig) -> anyhow::Result<PretrainConfig> {
        macro_rules! take {
            ($($name:ident),*) => { $(if let Some(value) = self.$name { config.$name = value; })* };
        }
        take!(
            patch,
            width,
            depth,
            image_size,
            registers,
            drop_path,
            global_size,
            n_local,
            local_size,
            teacher_crops,
            neighbours,
            n_neighbours,
            patch_weight,
            prototypes,
            patch_prototypes,
            hidden,
            bottleneck,
            norm_last_layer,
            student_temperature,
            teacher_temperature,
            first_teacher_temperature,
            teacher_temperature_epochs,
            centre_momentum,
            batch,
            accumulate,
            epochs,
            learning_rate,
            min_learning_rate,
            warmup_epochs,
            momentum,
            clip,
            freeze_prototypes_epochs,
            validation,
            validate_every,
            seed
        );
        config.selfpatch &= !self.no_selfpatch;
        config.half |= self.half;
        config.heads = self.heads.or(config.heads);
        config.steps = self.steps.or(config.steps);
        config.global_scale = pair("--global-scale", self.global_scale.as_deref(), config.global_scale)?;
        config.local_scale = pair("--local-scale", self.local_scale.as_deref(), config.local_scale)?;
        config.weight_decay = pair("--weight-decay", self.weight_decay.as_deref(), config.weight_decay)?;
        Ok(config)
    }
}
