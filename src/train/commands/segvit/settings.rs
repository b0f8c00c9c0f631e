//! Settings of `train segvit` as flags.

use clap::Args;
use densevit::manifest::{SegmentForm, SegmentInput};

use crate::{
    commands::run::pair,
    segmentation::{config::SegvitConfig, loss::Ignored},
};

/// Settings as flags.
#[derive(Debug, Args)]
pub(super) struct SettingArgs {
    /// How the head makes masks: segvit (attention-to-mask decoder, a stage a tap), shrunk (a backbone that halves its grid on the way, and
    /// a decoder that restores it) or linear (BatchNorm and 1x1 convolution).
    #[arg(long)]
    form: Option<SegmentForm>,
    /// What it reads: backbone (taps of the backbone) or lift (one tap after one pass of the model's LiFT head).
    #[arg(long)]
    input: Option<SegmentInput>,
    /// Blocks whose outputs it reads, in the order in which it reads them: 11,7,5.
    #[arg(long, value_delimiter = ',')]
    taps: Option<Vec<u32>>,
    /// Stages of a SegViT head whose taps are not given.
    #[arg(long)]
    stages: Option<u32>,
    /// Channels of the decoder.
    #[arg(long)]
    width: Option<i64>,
    /// Attention heads of the decoder.
    #[arg(long)]
    heads: Option<i64>,
    /// Share of values that training sets to zero.
    #[arg(long)]
    dropout: Option<f64>,
    /// Scores are served at so many times the rows and columns of the grid.
    #[arg(long)]
    upscale: Option<u32>,
    /// Shrunk: block in which the backbone halves its grid.
    #[arg(long)]
    downsample: Option<u32>,
    /// Let the backbone learn too.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    finetune: Option<bool>,
    /// Learning rate of each block of the backbone, as a share of the next one's.
    #[arg(long)]
    layer_decay: Option<f64>,
    /// Share of the images for which the last block is left out.
    #[arg(long)]
    drop_path: Option<f64>,
    /// Rows and columns of an example, in pixels.
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "H,W")]
    size: Option<Vec<u32>>,
    /// At ratio 1 an image fits this: longer and shorter side, in pixels.
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "LONG,SHORT")]
    base: Option<Vec<u32>>,
    /// Smallest and largest ratio.
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "LOW,HIGH")]
    ratio: Option<Vec<f64>>,
    /// Largest share of a class in an example.
    #[arg(long)]
    max_share: Option<f64>,
    /// Mirror half of the examples.
    #[arg(long)]
    flip: Option<bool>,
    /// Distort colours.
    #[arg(long)]
    distort: Option<bool>,
    /// Examples of each image that are kept on disk.
    #[arg(long)]
    views: Option<u32>,
    /// The loss sees every so many-th row and column of the labels.
    #[arg(long)]
    label_stride: Option<u32>,
    /// What pixels are that do not count.
    #[arg(long, value_enum)]
    ignored: Option<Ignored>,
    /// Examples that run at once.
    #[arg(long)]
    batch: Option<usize>,
    /// Batches whose gradients are summed for one step.
    #[arg(long)]
    accumulate: Option<usize>,
    /// Steps of the whole run.
    #[arg(long)]
    steps: Option<u64>,
    /// Highest learning rate of the backbone.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// The head's, as a multiple of it.
    #[arg(long)]
    head_factor: Option<f64>,
    /// Decay of matrices.
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Exponent of the rate's course.
    #[arg(long)]
    power: Option<f64>,
    /// Steps until the highest learning rate.
    #[arg(long)]
    warmup: Option<u64>,
    /// Largest norm of a step's gradient; 0 for any.
    #[arg(long)]
    clip: Option<f64>,
    /// Share of the old value in the moving average of the weights; 0 for none.
    #[arg(long)]
    ema: Option<f64>,
    /// Steps between validations and checkpoints.
    #[arg(long)]
    validate_every: Option<u64>,
    /// Of weights, views and order.
    #[arg(long)]
    seed: Option<u64>,
}

impl SettingArgs {
    /// Settings with those that were given as flags in place of their own.
    ///
    /// # Errors
    /// When a flag of two numbers has another count.
    pub(super) fn over(&self, mut config: SegvitConfig) -> anyhow::Result<SegvitConfig> {
        let flags = self;
        macro_rules! take {
        ($into:expr, $($name:ident),*) => { $(if let Some(value) = flags.$name { $into.$name = value; })* };
    }
        take!(
            config,
            form,
            input,
            stages,
            dropout,
            upscale,
            finetune,
            layer_decay,
            drop_path,
            views,
            label_stride,
            ignored,
            batch,
            accumulate,
            steps,
            learning_rate,
            head_factor,
            weight_decay,
            power,
            warmup,
            clip,
            ema,
            validate_every,
            seed
        );
        take!(config.augmentation, max_share, flip, distort);
        config.width = flags.width.or(config.width);
        config.heads = flags.heads.or(config.heads);
        config.downsample = flags.downsample.or(config.downsample);
        if let Some(taps) = &flags.taps {
            config.taps.clone_from(taps);
        }
        let augmentation = &mut config.augmentation;
        augmentation.size = pair("--size", flags.size.as_deref(), augmentation.size)?;
        augmentation.base = pair("--base", flags.base.as_deref(), augmentation.base)?;
        augmentation.ratio = pair("--ratio", flags.ratio.as_deref(), augmentation.ratio)?;
        Ok(config)
    }
}
