//! `train lift`.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use densevit::{
    import::LiftCard,
    manifest::{Facet, LiftForm},
};

use crate::{
    backbone::Backbone,
    commands::run::{RunArgs, stop_on_ctrl_c},
    config::{Downscale, Framing, LiftConfig, Objective, Preset, Products, Schedule},
    data::{cache, loader::Shape, photos, source::Source},
    head::HeadShape,
    install::install,
    lift::{self, Job},
};

/// Flags of `train lift`. Settings come from the preset, then from the file, then from flags.
#[derive(Debug, Args)]
pub struct LiftArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
    /// Folders of photos, searched recursively.
    #[arg(short, long, value_name = "DIR", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Photos to measure on, at most.
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_validation: usize,
    /// Named settings.
    #[arg(long, value_enum, default_value = "guided")]
    preset: Preset,
    /// official, residual, guided or corrected.
    #[arg(long, value_parser = parse_form)]
    form: Option<LiftForm>,
    /// Facet that the head takes [default: the model's].
    #[arg(long)]
    facet: Option<Facet>,
    /// Block that the head takes, 0-based [default: the model's].
    #[arg(long)]
    layer: Option<u32>,
    /// Guided and corrected forms: side of the window.
    #[arg(long)]
    window: Option<i64>,
    /// Width of the trunk; the official form has its own.
    #[arg(long)]
    width: Option<i64>,
    /// Side of the largest image, in pixels.
    #[arg(long)]
    size: Option<u32>,
    /// Doublings that an example teaches, each from an image of half the size.
    #[arg(long)]
    scales: Option<u32>,
    /// How the smaller images are made.
    #[arg(long, value_enum)]
    downscale: Option<Downscale>,
    /// Which part of a photo becomes an example.
    #[arg(long, value_enum)]
    framing: Option<Framing>,
    /// Colour jitter; 0 for none.
    #[arg(long)]
    jitter: Option<f64>,
    /// Examples of each photo.
    #[arg(long)]
    views: Option<u32>,
    /// What is made small.
    #[arg(long, value_enum)]
    objective: Option<Objective>,
    /// Doublings that are trained through: 1 or 2.
    #[arg(long)]
    depth: Option<u32>,
    /// Examples that run at once.
    #[arg(long)]
    batch: Option<usize>,
    /// Batches whose gradients are summed for one step.
    #[arg(long)]
    accumulate: Option<usize>,
    /// Element type of the products of a step.
    #[arg(long, value_enum)]
    products: Option<Products>,
    /// Steps of the whole run.
    #[arg(long)]
    steps: Option<u64>,
    /// Highest learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Course of the learning rate.
    #[arg(long, value_enum)]
    schedule: Option<Schedule>,
    /// Share of the old value in the moving average of the weights; 0 for none.
    #[arg(long)]
    ema: Option<f64>,
    /// Share of the photos that is kept for validation.
    #[arg(long)]
    validation: Option<f64>,
    /// Steps between validations and checkpoints.
    #[arg(long)]
    validate_every: Option<u64>,
    /// Of weights, views and order.
    #[arg(long)]
    seed: Option<u64>,
}

/// Trains and writes the head, and says how to serve it.
///
/// # Errors
/// Settings, photos, model or output that cannot be used; a loss that is no number; Ctrl-C, after the checkpoint was saved.
pub fn run(args: LiftArgs) -> anyhow::Result<()> {
    let config = config(&args)?;
    let device = args.run.device()?;
    let mut backbone = Backbone::open(&args.model, |default| config.tap(default), device)?;
    let tap = backbone.tap();
    if let Err(problem) = config.check(backbone.patch()) {
        bail!("{problem}");
    }
    let mut split = photos::find(&args.images, config.validation).context("reading the photos")?;
    ensure!(!split.train.is_empty(), "no photos to learn from in {:?}", args.images);
    ensure!(!split.validation.is_empty(), "no photos to measure on: more photos, or a larger --validation share, are needed");
    split.validation.truncate(args.max_validation.max(1));
    println!("{} photos to learn from, {} to measure on; the head takes the {tap}", split.train.len(), split.validation.len());
    let place = (args.run.cache.as_path(), args.run.cache_bytes);
    let cached = if args.run.no_cache { None } else { Some(cache::fill(&split.train, &mut backbone, &config, place)?) };
    let validation = cache::fill(&split.validation, &mut backbone, &config, place)?;
    let stop = stop_on_ctrl_c()?;
    let shape = Shape {
        grid: i64::from(config.size / backbone.patch()),
        size: i64::from(config.size),
        scales: config.scales,
        channels: i64::try_from(backbone.channels())?,
        normalisation: backbone.normalisation(),
        device,
    };
    let head = HeadShape::new(&config, backbone.channels(), backbone.patch());
    let source = backbone.entry().manifest.provenance.source_sha256.clone();
    let card = LiftCard { tap, backbone_source_sha256: source, license: args.run.license.clone(), scores: Vec::new() };
    let example = validation.first().cloned().unwrap_or_default();
    let job = Job { config: &config, head, shape, validation, card, out: &args.run.out, stop: &stop };
    let source = cached.map_or_else(|| Source::live(split.train, backbone, &config), Source::Cached);
    let scores = lift::train(&job, source, args.run.resume)?;
    println!("cosine distance {:.1} % below bilinear", 100.0 * scores.gain());
    let file = args.run.out.join(lift::HEAD);
    if args.run.no_install {
        println!("serve it: densevit head {} {}", args.model.display(), file.display());
        return Ok(());
    }
    let had_masks = densevit::manifest::load_dir(&args.model)?.manifest.segmenter.is_some();
    let (entry, difference) = install(&args.model, &file, &example, shape, tap)?;
    if had_masks && entry.manifest.segmenter.is_none() {
        println!(
            "the model's segmentation head read through its old LiFT head and was taken out: train segvit --input lift makes another"
        );
    }
    println!("wrote {}; served, the head gives what it gave here to {difference:.0e} of the largest value", entry.dir.display());
    Ok(())
}

fn config(args: &LiftArgs) -> anyhow::Result<LiftConfig> {
    let mut config = args.run.settings(|| args.preset.config())?;
    macro_rules! take {
        ($($name:ident),*) => { $(if let Some(value) = args.$name { config.$name = value; })* };
    }
    take!(
        form,
        window,
        width,
        size,
        scales,
        downscale,
        framing,
        jitter,
        views,
        objective,
        depth,
        batch,
        accumulate,
        products,
        steps,
        learning_rate,
        schedule,
        ema,
        validation,
        validate_every,
        seed
    );
    config.facet = args.facet.or(config.facet);
    config.layer = args.layer.or(config.layer);
    Ok(config)
}

fn parse_form(text: &str) -> Result<LiftForm, String> {
    LiftForm::ALL
        .into_iter()
        .find(|form| form.name() == text)
        .ok_or_else(|| format!("\"{text}\" is no form: official, residual, guided or corrected"))
}
