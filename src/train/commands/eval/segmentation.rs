//! `train eval segmentation`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use densevit::manifest::Facet;
use tch::{Device, Tensor, nn};

use crate::{
    checkpoint,
    commands::run::{DEFAULT_MODEL, DeviceArg, pair},
    segmentation::{
        confusion::Confusion,
        data::{
            labels::Labels,
            layout::{Dataset, Layout},
            recipe::Recipe,
            view::Augmentation,
        },
        features::{Features, Model, Reading, WeightFiles},
        head::{self, Opened},
        learner,
        pictures::{draw_confusion, draw_panels},
        report::{Cost, Report},
        segmenter::{Mode, Segmenter},
    },
};

/// How images are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// All of an image at once.
    Whole,
    /// Windows of the training size, averaged where they overlap.
    Slide,
}

/// Flags of `train eval segmentation`.
#[derive(Debug, Args)]
pub struct SegmentationArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_MODEL)]
    model: PathBuf,
    /// Head to measure: segment.safetensors of a run [default: the one beside the model's versions].
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Weights of the backbone, if it learned (backbone/model.safetensors of the run) or is a Shrunk one.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// LiFT head in front of a head that reads LiFT's features, where --weights is needed too.
    #[arg(long, value_name = "FILE")]
    lift: Option<PathBuf>,
    /// The data set.
    #[arg(short, long, value_name = "DIR")]
    data: PathBuf,
    /// How it is laid out, as for `train segvit` [default: as the known data set with the head's classes, or generic].
    #[arg(long)]
    layout: Option<Layout>,
    /// Split to measure on [default: the layout's to measure on].
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// How images are run.
    #[arg(long, value_enum, default_value = "whole")]
    mode: ModeArg,
    /// Rows and columns between windows, in pixels [default: two thirds of the window].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "H,W")]
    stride: Option<Vec<u32>>,
    /// Window; the shorter side of a whole image is as long as its shorter side [default: the training size].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "H,W")]
    size: Option<Vec<u32>>,
    /// Images at most.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Where the backbone runs in the training framework.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
    /// Write all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the confusion matrix as a picture.
    #[arg(long, value_name = "FILE")]
    confusion: Option<PathBuf>,
    /// Write photo, truth and prediction of some images here.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// How many.
    #[arg(long, default_value_t = 8)]
    n_pictures: usize,
}

/// Measures and prints a table.
///
/// # Errors
/// A model, head or data set that cannot be used.
pub fn run(args: &SegmentationArgs) -> anyhow::Result<()> {
    let model = Model::open(&args.model)?;
    let mut segmenter = segmenter(args, &model)?;
    let layout = args.layout.unwrap_or_else(|| Layout::of_classes(&segmenter.opened.card.classes));
    let mut dataset = layout.read(&args.data, args.split.as_deref().unwrap_or(layout.validation))?;
    let (own, of_head) = (dataset.classes.list(), segmenter.opened.card.classes.as_slice());
    ensure!(own == of_head, "the head knows {} classes, {} has {} others", of_head.len(), args.data.display(), own.len());
    dataset.samples.truncate(args.limit);
    let mode = match args.mode {
        ModeArg::Whole => Mode::Whole,
        ModeArg::Slide => {
            let usual = segmenter.recipe.augmentation.size.map(|side| (2 * side / 3).max(1));
            Mode::Slide(pair("--stride", args.stride.as_deref(), usual)?)
        }
    };
    let (confusion, seconds) = measure(args, &mut segmenter, &dataset, mode)?;
    let first = dataset.samples.first().context("there are no images")?.open(&dataset.classes)?.0;
    let cost = Cost::new(&model.manifest().architecture, &segmenter.opened, &segmenter.recipe, &first);
    let timed = (dataset.samples.len(), seconds.as_secs_f64());
    let report = Report::new(&confusion, dataset.classes.list(), timed, cost.map_err(anyhow::Error::msg)?);
    print(&report);
    if let Some(file) = &args.json {
        checkpoint::write_bytes(file, serde_json::to_string_pretty(&report)?.as_bytes())?;
    }
    if let Some(file) = &args.confusion {
        draw_confusion(file, &confusion, dataset.classes.list())?;
    }
    Ok(())
}

/// Backbone and head, and how images are fitted.
fn segmenter(args: &SegmentationArgs, model: &Model) -> anyhow::Result<Segmenter> {
    let manifest = model.manifest();
    let arch = &manifest.architecture;
    let device = args.device.find()?;
    // Heads are small: only a backbone in the training framework is worth a device.
    let own = args.model.join("..").join(learner::HEAD);
    let opened = head::open(args.head.as_ref().unwrap_or(&own), i64::from(arch.width), Device::Cpu)?;
    let size = pair("--size", args.size.as_deref(), opened.card.size)?;
    ensure!(
        size.iter().all(|side| *side > 0 && side % arch.patch == 0),
        "{size:?} are no multiples of the patch, {}",
        arch.patch
    );
    let augmentation = Augmentation { size, ..Augmentation::default() };
    let recipe = Recipe { augmentation, pixels: model.pixels(), patch: arch.patch, seed: 0 };
    let features = features(args, model, &opened, device)?;
    Ok(Segmenter { features, opened, recipe })
}

fn features(args: &SegmentationArgs, model: &Model, opened: &Opened, device: Device) -> anyhow::Result<Features> {
    let card = &opened.card;
    let reading = Reading { taps: card.taps.clone(), input: card.input, downsample: opened.training.downsample, drop_path: 0.0 };
    let provenance = &model.manifest().provenance;
    if args.weights.is_none() && reading.downsample.is_none() {
        ensure!(
            provenance.source_sha256 == card.backbone_source_sha256,
            "the head was trained on the backbone of the weights with SHA-256 {}, {} has {} (--weights takes its own)",
            card.backbone_source_sha256,
            model.manifest().name,
            provenance.source_sha256
        );
        return model.served(reading, device);
    }
    ensure!(card.taps.iter().all(|tap| tap.facet == Facet::Token), "the training framework offers tokens only");
    let mut store = nn::VarStore::new(device);
    let files = WeightFiles { backbone: args.weights.clone(), lift: args.lift.clone() };
    let network = model.trained(&store.root(), reading, &files, &card.backbone_source_sha256)?;
    store.freeze();
    Ok(Features::Trained(Box::new(network)))
}

/// Runs every image; the time is that of all but the first, from decoded image to labels.
fn measure(
    args: &SegmentationArgs,
    segmenter: &mut Segmenter,
    dataset: &Dataset,
    mode: Mode,
) -> anyhow::Result<(Confusion, Duration)> {
    if let Some(folder) = &args.pictures {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let every = dataset.samples.len().div_ceil(args.n_pictures.max(1)).max(1);
    let mut confusion = Confusion::new(dataset.classes.len());
    let mut seconds = Duration::ZERO;
    for (idx, sample) in dataset.samples.iter().enumerate() {
        let (image, truth) = sample.open(&dataset.classes)?;
        let began = Instant::now();
        let predicted = segmenter.predict(&image, mode).with_context(|| format!("running {}", sample.image.display()))?;
        if idx > 0 {
            seconds += began.elapsed();
        }
        confusion.add(&predicted, &truth)?;
        if let Some(folder) = args.pictures.as_deref().filter(|_| idx % every == 0) {
            let file = folder.join(Path::new(sample.image.file_stem().unwrap_or_default()).with_extension("png"));
            draw_panels(&file, &image, [&truth, &to_labels(&predicted)?], dataset.classes.list())?;
        }
    }
    Ok((confusion, seconds))
}

fn to_labels(predicted: &Tensor) -> anyhow::Result<Labels> {
    let (height, width) = predicted.size2()?;
    let data = Vec::<u8>::try_from(predicted.to_kind(tch::Kind::Uint8).contiguous().view([-1]))?;
    Ok(Labels { height: u32::try_from(height)?, width: u32::try_from(width)?, data })
}

fn print(report: &Report) {
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2}", 100.0 * share));
    println!("  {:<20} {:>7} {:>7} {:>12}", "class", "IoU", "recall", "pixels");
    for class in &report.classes {
        println!("  {:<20} {:>7} {:>7} {:>12}", class.name, percent(class.iou), percent(class.recall), class.pixels);
    }
    println!(
        "mIoU {:.4}, pixel accuracy {:.4}, mean recall {:.4} on {} images, {:.2} images/s",
        report.miou, report.pixel_accuracy, report.mean_recall, report.images, report.images_per_second
    );
    let cost = report.cost;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let giga = |macs: u64| macs as f64 / 1e9;
    println!(
        "backbone {} weights, {:.3} GMAC; head {} weights, {:.3} GMAC",
        cost.backbone_parameters,
        giga(cost.backbone_macs),
        cost.head_parameters,
        giga(cost.head_macs)
    );
}
