//! `train bench pretrain`: seconds of a step of pre-training on random crops.

use std::{path::Path, time::Instant};

use anyhow::bail;
use clap::Args;
use tch::{Device, Kind, Tensor};

use crate::{
    commands::run::DeviceArg,
    fit::Learner as _,
    optim::{Adam, Clip, Pace},
    pretrain::{
        config::{Preset, PretrainConfig},
        data::batch::Batch,
        learner::{PretrainLearner, group},
    },
    vit::Source,
};

/// Flags of `train bench pretrain`.
#[derive(Debug, Args)]
pub(super) struct PretrainArgs {
    /// Settings that are timed.
    #[arg(long, value_enum, default_value = "cpu")]
    preset: Preset,
    /// DINO alone.
    #[arg(long)]
    no_selfpatch: bool,
    /// Register tokens.
    #[arg(long, default_value_t = 0)]
    registers: u32,
    /// Photos of a step [default: the preset's].
    #[arg(long)]
    batch: Option<usize>,
    /// Steps that are timed, after two that are not.
    #[arg(long, default_value_t = 5)]
    steps: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Where the steps run.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
}

/// Prints the seconds of each step, one a line: both networks, backward, clipping, AdamW and the moving average. Crops are there already.
///
/// # Errors
/// A device that is not there, settings that cannot be.
pub(super) fn run(args: &PretrainArgs) -> anyhow::Result<()> {
    tch::set_num_threads(args.threads);
    tch::manual_seed(0);
    let (preset, device) = (args.preset.config(), args.device.find()?);
    let config = PretrainConfig {
        selfpatch: !args.no_selfpatch,
        registers: args.registers,
        batch: args.batch.unwrap_or(preset.batch),
        freeze_prototypes_epochs: 0,
        ..preset
    };
    if let Err(problem) = config.check() {
        bail!("{problem}");
    }
    let batch = random(&config, device)?;
    let source = Source::fresh(config.fresh()).with_registers(config.registers)?;
    let looked_at = Tensor::zeros([1, 3, 1, 1], (Kind::Float, device));
    let schedule = config.schedule(1000);
    let mut learner = PretrainLearner::new(&config, schedule, source, (looked_at, Path::new("")))?;
    let mut adam = Adam::with_groups(learner.store(), group);
    for step in 0..args.steps + 2 {
        let began = Instant::now();
        let loss = learner.loss(&batch);
        adam.accumulate(&loss);
        let _norm = adam.clip(Clip::Each(config.clip));
        adam.step_but(Pace { rate: 1e-4, decay: learner.decay(step) }, |_name| false);
        learner.end(step);
        if device.is_cuda() {
            tch::Cuda::synchronize(0);
        }
        if step >= 2 {
            println!("{:.6}", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

fn random(config: &PretrainConfig, device: Device) -> anyhow::Result<Batch> {
    let n = i64::try_from(config.batch)?;
    let crops = |n_crops: i64, side: u32| Tensor::randn([n_crops * n, 3, side.into(), side.into()], (Kind::Float, device));
    let local = (config.n_local > 0).then(|| crops(config.n_local.into(), config.local_size));
    Ok(Batch { global: crops(2, config.global_size), local, names: vec!["random".into(); config.batch] })
}
