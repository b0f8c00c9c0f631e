//! `train eval classify`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use densevit::manifest::{Facet, Tap, load_dir};

use crate::{
    backbone::Backbone,
    commands::eval::SubjectArgs,
    eval::classify::{ImageFolder, Vector, describe, score},
};

/// Flags of `train eval classify`.
#[derive(Debug, Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Images to learn from: a folder a class.
    #[arg(long, value_name = "DIR")]
    train: PathBuf,
    /// Images to tell: folders of the same names.
    #[arg(long, value_name = "DIR")]
    test: PathBuf,
    /// What stands for an image.
    #[arg(long, value_enum, default_value = "cls")]
    vector: Vector,
    /// Side of the images, in pixels [default: the 224 px or so that are a multiple of the patch].
    #[arg(long)]
    size: Option<u32>,
    /// Neighbours that vote.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 20, 100, 200], value_parser = clap::value_parser!(i64).range(1..=10_000))]
    neighbours: Vec<i64>,
    /// Linear classifiers, from different random numbers.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
}

/// Measures and prints.
pub(super) fn run(args: &ClassifyArgs) -> anyhow::Result<()> {
    ensure!(args.subject.head.is_empty(), "--head has no part in this: a vector of the whole image is read");
    let device = args.subject.device.find()?;
    // Before the model is opened: what is wrong with a folder shows at once.
    let (train, test) = (ImageFolder::open(&args.train)?, ImageFolder::open(&args.test)?);
    ensure!(train.classes == test.classes, "{} and {} hold other classes", args.train.display(), args.test.display());
    let default = final_tokens(args)?;
    let mut backbone = Backbone::open(&args.subject.model, |_| args.subject.tap(default), device)?;
    let vector = args.vector;
    let patch = backbone.patch();
    let size = args.size.unwrap_or(224 / patch * patch);
    ensure!(size > 0 && size.is_multiple_of(patch), "--size {size} px is no multiple of the patch, {patch}");
    println!(
        "{} of {}, {vector:?}, {size} px; {} classes, {} images to learn from, {} to tell",
        backbone.tap(),
        args.subject.model.display(),
        train.classes.len(),
        train.images.len(),
        test.images.len()
    );
    let [train, test] = [describe(&mut backbone, &train, size, vector)?, describe(&mut backbone, &test, size, vector)?];
    let score = score(&train, &test, &args.neighbours, args.seeds);
    score.knn.iter().for_each(|(k, share)| println!("  {k:>5} neighbours {:.2} %", 100.0 * share));
    score.linear.iter().for_each(|share| println!("  linear           {:.2} %", 100.0 * share));
    args.subject.report(&score)
}

/// The final tokens of a model.
fn final_tokens(args: &ClassifyArgs) -> anyhow::Result<Tap> {
    let manifest = load_dir(&args.subject.model)?.manifest;
    let last = manifest.architecture.depth.saturating_sub(1);
    let facet =
        if manifest.backbone.facets.contains(&Facet::NormToken) { Facet::NormToken } else { manifest.backbone.default.facet };
    Ok(Tap { facet, layer: last })
}
