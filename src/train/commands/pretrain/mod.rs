//! `train pretrain`.

mod settings;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use densevit::{
    import::ImportOptions,
    manifest::{ResizePolicy, load_dir, sha256_file},
};

use crate::{
    commands::{
        pretrain::settings::SettingArgs,
        run::{self, DeviceArg, stop_on_ctrl_c},
    },
    data::photos,
    pretrain::{
        config::{Preset, PretrainConfig},
        install::install,
        learner::{self, BACKBONE, Job, PretrainLearner},
    },
    vit::Source,
};

/// Shorter side, in pixels, of the images of requests that name no size: what DINO's authors judge by, and twice to once the crops of the presets.
const DEFAULT_PX: u32 = 224;

/// Flags of `train pretrain`. Settings come from the preset, then from the file, then from flags.
#[derive(Debug, Args)]
pub struct PretrainArgs {
    /// Folders of photos, searched recursively.
    #[arg(short, long, value_name = "DIR", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Where log, loss curve, checkpoint and backbone go.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Go on with the backbone of this model, models/NAME/VERSION, whose weights --weights names.
    #[arg(long, value_name = "DIR", requires = "weights")]
    from: Option<PathBuf>,
    /// Go on with the weights in this file, whatever kind `densevit import` takes.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Where the steps run.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
    /// Named settings.
    #[arg(long, value_enum, default_value = "cpu")]
    preset: Preset,
    /// Settings (TOML); replaces the preset.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on from the checkpoint in --out.
    #[arg(long)]
    resume: bool,
    /// Name of the model.
    #[arg(long, default_value = "pretrained")]
    name: String,
    /// Licence of the weights, for the manifest.
    #[arg(long, default_value = "unknown")]
    license: String,
    /// Import the backbone into the repository at the end.
    #[arg(long)]
    install: bool,
    /// The model repository, for --install.
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Replace a model of this name that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

/// Trains and writes the backbone, and says how to serve it.
///
/// # Errors
/// Settings, photos, weights or output that cannot be used; a loss that is no number; Ctrl-C, after the checkpoint was saved.
pub fn run(args: PretrainArgs) -> anyhow::Result<()> {
    let mut config = args.settings.over(run::settings(args.config.as_deref(), || args.preset.config())?)?;
    let device = args.device.find()?;
    tch::manual_seed(i64::try_from(config.seed).unwrap_or_default());
    let source = source(&args, &mut config)?;
    if let Err(problem) = config.check() {
        bail!("{problem}");
    }
    let photos = photos::find(&args.images, config.validation).context("reading the photos")?;
    ensure!(!photos.train.is_empty(), "no photos to learn from in {:?}", args.images);
    let (n_photos, arch) = (photos.train.len(), source.arch().clone());
    println!(
        "{n_photos} photos to learn from; {}, width {}, depth {}, patch {}, {} registers; {} steps",
        objective(&config),
        arch.width,
        arch.depth,
        arch.patch,
        arch.registers,
        config.schedule(n_photos).steps
    );
    let stop = stop_on_ctrl_c()?;
    let job = Job { config: &config, source, photos, out: &args.out, device, stop: &stop };
    let (_spread, learner) = learner::train(job, args.resume)?;
    serve(&args, &config, n_photos, learner)
}

/// What the backbone begins with. Settings take the sizes of weights that are there.
fn source(args: &PretrainArgs, config: &mut PretrainConfig) -> anyhow::Result<Source> {
    let Some(file) = &args.weights else {
        ensure!(config.from_sha256.is_none(), "the settings go on with weights: --weights must name them");
        if let Err(problem) = config.check() {
            bail!("{problem}");
        }
        return Source::fresh(config.fresh()).with_registers(config.registers);
    };
    let source = begun(file, args.from.as_deref(), config)?;
    let n_registers = config.registers.max(source.arch().registers);
    let source = source.with_registers(n_registers)?;
    let arch = source.arch();
    config.patch = arch.patch;
    config.width = arch.width;
    config.depth = arch.depth;
    config.heads = Some(arch.heads);
    config.registers = arch.registers;
    config.image_size = source.image_size();
    Ok(source)
}

/// The weights in a file, those of a model if one is named.
fn begun(file: &Path, from: Option<&Path>, config: &mut PretrainConfig) -> anyhow::Result<Source> {
    let digest = sha256_file(file).with_context(|| format!("reading {}", file.display()))?;
    let known = config.from_sha256.replace(digest.clone()).filter(|known| *known != digest);
    ensure!(
        known.is_none(),
        "{} holds other weights than those that the settings go on with: its SHA-256 is {digest}",
        file.display()
    );
    let Some(from) = from else { return Source::open(file) };
    let manifest = load_dir(from)?.manifest;
    let of_model = &manifest.provenance.source_sha256;
    ensure!(
        *of_model == digest,
        "{} was not made of {}: it names SHA-256 {of_model}, not {digest}",
        manifest.name,
        file.display()
    );
    Source::read(file, &manifest)
}

fn objective(config: &PretrainConfig) -> &'static str {
    if config.selfpatch { "DINO + SelfPatch" } else { "DINO" }
}

/// Puts the backbone into the repository, or says how.
fn serve(args: &PretrainArgs, config: &PretrainConfig, n_photos: usize, mut learner: PretrainLearner) -> anyhow::Result<()> {
    let file = args.out.join(BACKBONE);
    if !args.install {
        let (file, name, license) = (file.display(), &args.name, &args.license);
        println!("serve it: densevit import {file} --name {name} --license {license} --out {}", args.models.display());
        return Ok(());
    }
    let description = format!(
        "ViT, width {}, depth {}, patch {}, {} registers, trained with {} on {n_photos} photos",
        config.width,
        config.depth,
        config.patch,
        config.registers,
        objective(config)
    );
    let options = ImportOptions {
        force: args.force,
        license: args.license.clone(),
        description,
        resize: ResizePolicy::ShortSide { pixels: DEFAULT_PX.next_multiple_of(config.patch.max(1)) },
        ..ImportOptions::new(file, args.models.clone(), &args.name)
    };
    let (entry, difference) = install(&options, learner.teacher().vit())?;
    println!("wrote {}; served, it gives what it gave here to {difference:.0e} of the largest value", entry.dir.display());
    Ok(())
}
