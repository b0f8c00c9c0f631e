//! `train eval`.

mod classify;
mod corloc;
mod davis;
mod segmentation;
mod spair;
mod tasks;
mod video;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use densevit::manifest::{Facet, Tap};
use serde::Serialize;
use tch::Device;

use crate::{
    backbone::Backbone,
    checkpoint,
    commands::run::DeviceArg,
    data::photos,
    eval::{
        Method,
        probe::{self, ProbeScore},
        upsampling::{Distance, measure},
    },
    head,
};

/// What is measured.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Distance of upsampled features to those of the image of twice the size.
    Upsampling(UpsamplingArgs),
    /// Linear segmentation probe on CamVid, on the grid and on its doubles.
    Camvid(CamvidArgs),
    /// Kinds of images told by their neighbours and by a linear classifier.
    Classify(classify::ClassifyArgs),
    /// Labels of a segmentation head on a labelled split.
    Segmentation(Box<segmentation::SegmentationArgs>),
    /// CorLoc of the boxes that LOST and TokenCut find, on VOC and COCO20k.
    Corloc(Box<corloc::CorlocArgs>),
    /// Keypoints found by the nearest feature, on SPair-71k.
    Spair(Box<spair::SpairArgs>),
    /// Masks of objects propagated through videos, on DAVIS 2017.
    Davis(Box<davis::DavisArgs>),
    /// Labels propagated through a densely labelled video, on CamVid.
    Video(Box<video::VideoArgs>),
}

/// What all measurements are made on, and where they go.
#[derive(Debug, Args)]
struct SubjectArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
    /// Heads to measure: lift.safetensors of a run.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    head: Vec<PathBuf>,
    /// Facet [default: the model's].
    #[arg(long)]
    facet: Option<Facet>,
    /// Block, 0-based [default: the model's].
    #[arg(long)]
    layer: Option<u32>,
    /// Write the numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where backbone and heads run.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
}

impl SubjectArgs {
    fn open(&self, device: Device) -> anyhow::Result<Backbone> {
        Backbone::open(&self.model, |default| self.tap(default), device)
    }

    /// The activations that were named, and for what was not those of `default`.
    fn tap(&self, default: Tap) -> Tap {
        Tap { facet: self.facet.unwrap_or(default.facet), layer: self.layer.unwrap_or(default.layer) }
    }

    fn heads(&self, backbone: &Backbone, device: Device) -> anyhow::Result<Vec<Method>> {
        self.head.iter().map(|file| load_head(file, backbone, device)).collect()
    }

    fn report(&self, numbers: &impl Serialize) -> anyhow::Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        checkpoint::write_bytes(file, serde_json::to_string_pretty(numbers)?.as_bytes())
    }
}

/// Flags of `train eval upsampling`.
#[derive(Debug, Args)]
struct UpsamplingArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Folders of photos; the validation share of them is measured.
    #[arg(short, long, value_name = "DIR", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Sizes of the small image, in cells on a side.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8, 16, 32])]
    grids: Vec<u32>,
    /// Share of the photos that was kept from training.
    #[arg(long, default_value_t = 0.1)]
    validation: f64,
    /// Photos at most.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

/// Flags of `train eval camvid`.
#[derive(Debug, Args)]
struct CamvidArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// CamVid: images/{train,val} and annotations/{train,val}, labels 0 to 10, 11 for void.
    #[arg(short, long, value_name = "DIR")]
    data: PathBuf,
    /// Rows of the frames for the model, in patches.
    #[arg(long, default_value_t = 24)]
    rows: u32,
    /// Columns, in patches.
    #[arg(long, default_value_t = 32)]
    cols: u32,
    /// Passes over the training frames.
    #[arg(long, default_value_t = 20)]
    epochs: u64,
    /// Probes of each method, from different random numbers.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// How often heads double the map: a row for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1], value_parser = clap::value_parser!(u32).range(1..=3))]
    passes: Vec<u32>,
}

/// Measures and prints a table.
///
/// # Errors
/// Models, photos or heads that cannot be used.
pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    match args.what {
        What::Upsampling(args) => upsampling(&args),
        What::Camvid(args) => camvid(&args),
        What::Classify(args) => classify::run(&args),
        What::Segmentation(args) => segmentation::run(&args),
        What::Corloc(args) => corloc::run(&args),
        What::Spair(args) => spair::run(&args),
        What::Davis(args) => davis::run(&args),
        What::Video(args) => video::run(&args),
    }
}

fn camvid(args: &CamvidArgs) -> anyhow::Result<()> {
    let device = args.subject.device.find()?;
    let mut backbone = args.subject.open(device)?;
    let size = (args.rows * backbone.patch(), args.cols * backbone.patch());
    println!(
        "{} of {}, frames of {} x {} px, {} epochs",
        backbone.tap(),
        args.subject.model.display(),
        size.0,
        size.1,
        args.epochs
    );
    let train = probe::load(&mut backbone, &args.data, "train", size, device)?;
    let validation = probe::load(&mut backbone, &args.data, "val", size, device)?;
    let heads = args.subject.heads(&backbone, device)?;
    let rows = heads.iter().flat_map(|head| args.passes.iter().map(move |passes| Some((head, *passes))));
    let mut scores: Vec<ProbeScore> = Vec::new();
    for method in [None, Some((&Method::Bilinear, 1))].into_iter().chain(rows) {
        let score = probe::score(&train, &validation, method, (args.epochs, args.seeds))?;
        let listed: Vec<String> = score.miou.iter().map(|miou| format!("{miou:.4}")).collect();
        let bilinear = scores.iter().find(|score| score.method == Method::Bilinear.name()).unwrap_or(&score);
        let gain = 100.0 * (score.mean() - bilinear.mean());
        let name = format!("{}, {} x", score.method, 1 << score.passes);
        println!("  {name:<34} mIoU {:.4} ({gain:+.2} points)   {}", score.mean(), listed.join("  "));
        scores.push(score);
    }
    args.subject.report(&scores)
}

fn upsampling(args: &UpsamplingArgs) -> anyhow::Result<()> {
    let device = args.subject.device.find()?;
    let mut backbone = args.subject.open(device)?;
    let mut photos = photos::find(&args.images, args.validation).context("reading the photos")?.validation;
    photos.truncate(args.limit);
    let mut methods = vec![Method::Nearest, Method::Bicubic, Method::Bilinear];
    methods.extend(args.subject.heads(&backbone, device)?);
    println!(
        "{} of {}, {} photos; 1 - cos to the features of twice the size, and with the mean subtracted",
        backbone.tap(),
        args.subject.model.display(),
        photos.len()
    );
    let mut rows = Vec::new();
    for &grid in &args.grids {
        ensure!(grid > 0, "a grid has at least one cell");
        let measured = measure(&mut backbone, &photos, &methods, grid, device)?;
        print(&measured);
        rows.extend(measured);
    }
    args.subject.report(&rows)
}

fn print(rows: &[Distance]) {
    let bilinear = rows.iter().find(|row| row.method == "bilinear");
    for row in rows {
        let against = |of: fn(&Distance) -> f64| bilinear.map_or(0.0, |bilinear| 100.0 * (of(row) / of(bilinear) - 1.0));
        println!(
            "  {0:>3} x {0:<3} {1:<28} {2:.5} ({3:+5.1} %)   {4:.5} ({5:+5.1} %)",
            row.grid,
            row.method,
            row.distance,
            against(|row| row.distance),
            row.centred,
            against(|row| row.centred)
        );
    }
}

fn load_head(file: &Path, backbone: &Backbone, device: Device) -> anyhow::Result<Method> {
    let (head, shape) = head::open_on(file, backbone.channels(), backbone.patch(), device)?;
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    Ok(Method::Head(format!("{} ({folder})", shape.form.name()), Box::new(head)))
}
