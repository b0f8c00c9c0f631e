//! What all training commands take.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use tch::Device;

/// The model that `make setup` imports.
pub(super) const DEFAULT_MODEL: &str = "models/dinov2-vits14-imgfocus/1";

/// Where something runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DeviceArg {
    Cpu,
    /// The first NVIDIA GPU, for the backbone (ONNX Runtime) and for the steps (libtorch).
    Cuda,
}

/// Flags of a run.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Where log, loss curve, checkpoint and head go.
    #[arg(short, long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Where the backbone's features are kept.
    #[arg(long, value_name = "DIR", default_value = "target/train-cache")]
    pub(super) cache: PathBuf,
    /// Most bytes of features on disk.
    #[arg(long, default_value_t = 16 << 30)]
    pub(super) cache_bytes: u64,
    /// Run the backbone in every step, on new views each epoch: for more images than the disk can hold. Only images to measure on are
    /// kept.
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Where backbone and steps run.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
    /// Licence of the head, for its file and the manifest.
    #[arg(long, default_value = "unknown")]
    pub(super) license: String,
    /// Settings (TOML); replaces the preset.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not put the head into the model directory.
    #[arg(long)]
    pub(super) no_install: bool,
    /// Go on from the checkpoint in --out.
    #[arg(long)]
    pub(super) resume: bool,
}

impl RunArgs {
    /// The device of libtorch.
    ///
    /// # Errors
    /// When there is none of this kind.
    pub(super) fn device(&self) -> anyhow::Result<Device> {
        self.device.find()
    }

    /// Settings of the file, or else of the preset.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn settings<T: DeserializeOwned>(&self, preset: impl FnOnce() -> T) -> anyhow::Result<T> {
        settings(self.config.as_deref(), preset)
    }
}

/// Settings of a file, or else of a preset.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn settings<T: DeserializeOwned>(file: Option<&Path>, preset: impl FnOnce() -> T) -> anyhow::Result<T> {
    let Some(file) = file else { return Ok(preset()) };
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

impl DeviceArg {
    /// The device of libtorch.
    ///
    /// # Errors
    /// When there is none of this kind.
    pub(super) fn find(self) -> anyhow::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => {
                let is_there = tch::Cuda::is_available();
                ensure!(is_there, "libtorch finds no GPU; README says how to start the trainer with its CUDA build");
                Ok(Device::Cuda(0))
            }
        }
    }
}

/// Turns true at Ctrl-C.
///
/// # Errors
/// When the signal cannot be caught.
pub(super) fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    ctrlc::set_handler(move || stopping.store(true, Ordering::Relaxed)).context("catching Ctrl-C")?;
    Ok(stop)
}

/// Two numbers of a flag, or those that are set.
///
/// # Errors
/// When there is another count.
pub(super) fn pair<T: Copy>(flag: &str, given: Option<&[T]>, otherwise: [T; 2]) -> anyhow::Result<[T; 2]> {
    match given {
        None => Ok(otherwise),
        Some(&[first, second]) => Ok([first, second]),
        Some(other) => bail!("{flag} takes two numbers, not {}", other.len()),
    }
}
