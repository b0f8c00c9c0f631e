//! `train segvit`.

mod settings;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use clap::Args;
use densevit::{
    import::SegmentCard,
    manifest::{SegmentForm, SegmentInput, SegmentScores, Tap},
};
use tch::{Device, nn};

use crate::{
    commands::{
        run::{RunArgs, stop_on_ctrl_c},
        segvit::settings::SettingArgs,
    },
    segmentation::{
        cache::{self, Kind, Place},
        card::TrainingCard,
        config::{Preset, SegvitConfig},
        data::{
            layout::{Dataset, Layout},
            recipe::Recipe,
        },
        features::{Features, Model, Network, Reading, WeightFiles},
        head::Shape,
        install::install,
        learner::{self, Job},
        source::{Source, Supply},
    },
    vit,
};

/// Flags of `train segvit`. Settings come from the preset, then from the file, then from flags.
#[derive(Debug, Args)]
pub struct SegvitArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
    /// The data set.
    #[arg(short, long, value_name = "DIR")]
    data: PathBuf,
    /// How it is laid out: generic (images/SPLIT, masks/SPLIT, classes.toml), camvid, ade20k, voc, pascal-context, coco-stuff-10k,
    /// coco-stuff-27, cityscapes, cityscapes-train-ids.
    #[arg(long, default_value = "generic")]
    layout: Layout,
    /// Split to learn from [default: the layout's].
    #[arg(long, value_name = "NAME")]
    train_split: Option<String>,
    /// Split to measure on [default: the layout's].
    #[arg(long, value_name = "NAME")]
    validation_split: Option<String>,
    /// Images to measure on, at most.
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_validation: usize,
    /// Weights that the model was imported from: the backbone runs in the training framework then, as one that learns and that of Shrunk
    /// must.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// LiFT head in front of a head that reads LiFT's features, where --weights is needed too.
    #[arg(long, value_name = "FILE")]
    lift: Option<PathBuf>,
    /// Begin with the weights of this head, segment.safetensors of another run, instead of fresh ones.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Named settings.
    #[arg(long, value_enum, default_value = "camvid")]
    preset: Preset,
    #[command(flatten)]
    settings: SettingArgs,
}

/// Everything that a run is made of, before anything runs.
struct Setting {
    config: SegvitConfig,
    model: Model,
    train: Arc<Dataset>,
    validation: Arc<Dataset>,
    recipe: Recipe,
    reading: Reading,
    shape: Shape,
    device: Device,
}

/// Trains and writes the head.
///
/// # Errors
/// Settings, data, model or output that cannot be used; a loss that is no number; Ctrl-C, after the checkpoint was saved.
pub fn run(args: SegvitArgs) -> anyhow::Result<()> {
    let setting = setting(&args)?;
    let files = WeightFiles { backbone: args.weights.clone(), lift: args.lift.clone() };
    let sha256 = setting.model.manifest().provenance.source_sha256.clone();
    let make = |root: &nn::Path<'_>| setting.model.trained(root, setting.reading.clone(), &files, &sha256);
    let (supply, cached) = supply(&setting, &args, make)?;
    let stop = stop_on_ctrl_c()?;
    let config = &setting.config;
    let job = Job {
        config,
        shape: setting.shape,
        validation: Arc::clone(&setting.validation),
        cached,
        recipe: setting.recipe,
        from: args.from.as_deref(),
        card: card(&setting, &args, &sha256),
        training: TrainingCard { downsample: setting.reading.downsample },
        out: &args.run.out,
        device: setting.device,
        stop: &stop,
    };
    let source = Source { dataset: Arc::clone(&setting.train), recipe: setting.recipe, supply };
    let scores = learner::train(&job, source, config.finetune.then_some(make), args.run.resume)?;
    println!("mIoU {:.4}, pixel accuracy {:.4} on {} images", scores.miou, scores.pixel_accuracy, job.validation.samples.len());
    serve(&args, &setting)
}

/// Puts the head into the model directory, or says how to serve it with a backbone that is not there.
fn serve(args: &SegvitArgs, setting: &Setting) -> anyhow::Result<()> {
    let (model, file) = (&args.model, args.run.out.join(learner::HEAD));
    let manifest = setting.model.manifest();
    // A backbone that learned, or that halves its grid, is another model.
    let learned = setting.config.finetune.then(|| args.run.out.join(learner::BACKBONE).join(vit::FILE));
    let halved = args.weights.clone().filter(|_| setting.reading.downsample.is_some());
    if let Some(weights) = learned.or(halved) {
        let halved = setting.reading.downsample.map(|block| format!(" --query-downsample {block}")).unwrap_or_default();
        let lift = args.lift.as_ref().map(|lift| format!(" --lift {}", lift.display())).unwrap_or_default();
        println!(
            "serve it: densevit import {} --name {}-segment{halved}{lift} --segment {}, with the options that {} was imported with",
            weights.display(),
            manifest.name,
            file.display(),
            manifest.name
        );
        return Ok(());
    }
    if args.run.no_install {
        println!("serve it: densevit head {} {}", model.display(), file.display());
        return Ok(());
    }
    let example = setting.validation.samples.first().context("there is nothing to measure on")?;
    let image = setting.recipe.whole(example, &setting.validation.classes)?.image;
    let (entry, difference) = install(model, &file, &image)?;
    println!("wrote {}; served, the head gives what it gave here to {difference:.0e} of the largest score", entry.dir.display());
    Ok(())
}

fn setting(args: &SegvitArgs) -> anyhow::Result<Setting> {
    let config = args.settings.over(args.run.settings(|| args.preset.config())?)?;
    let device = args.run.device()?;
    let model = Model::open(&args.model)?;
    let manifest = model.manifest();
    let (arch, default) = (&manifest.architecture, manifest.backbone.default);
    let default = manifest.lift.as_ref().filter(|_| config.input == SegmentInput::Lift).map_or(default, |lift| lift.tap);
    let taps = config.taps(arch.depth, default);
    if let Err(problem) = config.check(arch, &taps) {
        bail!("{problem}");
    }
    let layout = args.layout;
    let read = |split: &Option<String>, usual: &str| layout.read(&args.data, split.as_deref().unwrap_or(usual));
    let train = read(&args.train_split, layout.train)?;
    let mut validation = read(&args.validation_split, layout.validation)?;
    thin(&mut validation, args.max_validation.max(1));
    let shape = config.shape(arch, taps.len(), train.classes.len());
    let recipe = Recipe { augmentation: config.augmentation, pixels: model.pixels(), patch: arch.patch, seed: config.seed };
    println!(
        "{} images to learn from, {} to measure on, {} classes; the head reads {}",
        train.samples.len(),
        validation.samples.len(),
        train.classes.len(),
        taps.iter().map(Tap::to_string).collect::<Vec<_>>().join(", ")
    );
    let downsample = config.downsample(arch.depth);
    let reading = Reading { taps, input: config.input, downsample, drop_path: config.drop_path };
    let (train, validation) = (Arc::new(train), Arc::new(validation));
    Ok(Setting { config, model, train, validation, recipe, reading, shape, device })
}

/// Keeps every so many-th image, at most `n`.
fn thin(dataset: &mut Dataset, n: usize) {
    let step = dataset.samples.len().div_ceil(n).max(1);
    let mut idx = 0;
    dataset.samples.retain(|_| {
        idx += 1;
        (idx - 1) % step == 0
    });
}

/// Where examples come from, and the features of the images to measure on.
fn supply(
    setting: &Setting,
    args: &SegvitArgs,
    make: impl FnOnce(&nn::Path<'_>) -> anyhow::Result<Network>,
) -> anyhow::Result<(Supply, Option<Vec<PathBuf>>)> {
    let Setting { config, model, reading, recipe, device, .. } = setting;
    if config.finetune {
        return Ok((Supply::Images, None));
    }
    let mut features = if reading.downsample.is_some() || args.weights.is_some() {
        let mut store = nn::VarStore::new(*device);
        let network = make(&store.root())?;
        store.freeze();
        Features::Trained(Box::new(network))
    } else {
        model.served(reading.clone(), *device)?
    };
    let manifest = model.manifest();
    let lift = manifest.lift.as_ref().filter(|_| reading.input == SegmentInput::Lift).map(|lift| &lift.sha256);
    let key = format!("{} {:?} {:?} {lift:?}", manifest.backbone.sha256, reading.taps, reading.downsample);
    let place = Place { folder: args.run.cache.clone(), max_bytes: args.run.cache_bytes, key };
    let whole = cache::fill(&setting.validation, &mut features, recipe, &place, Kind::Whole)?.concat();
    if args.run.no_cache {
        return Ok((Supply::Live(features), Some(whole)));
    }
    let views = cache::fill(&setting.train, &mut features, recipe, &place, Kind::Views(config.views))?;
    Ok((Supply::Cached(views), Some(whole)))
}

fn card(setting: &Setting, args: &SegvitArgs, sha256: &str) -> SegmentCard {
    let Setting { config, reading, shape, train, .. } = setting;
    let heads = u32::try_from(shape.widths.heads).ok().filter(|_| config.form != SegmentForm::Linear);
    SegmentCard {
        form: config.form,
        input: config.input,
        taps: reading.taps.clone(),
        heads,
        classes: train.classes.list().to_vec(),
        size: config.augmentation.size,
        upscale: config.upscale,
        backbone_source_sha256: sha256.to_owned(),
        license: args.run.license.clone(),
        scores: SegmentScores::default(),
    }
}
