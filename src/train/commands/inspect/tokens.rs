//! `train inspect tokens`.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use densevit::{
    manifest::{Manifest, load_dir},
    norms::{self, Histogram, Outliers, Spread},
};
use serde::Serialize;
use tch::{Kind, Tensor, nn};

use crate::{
    checkpoint,
    commands::run::DeviceArg,
    data::{
        normalisation::Normalisation,
        photos::{self, Photo},
    },
    tokens::{
        pictures,
        probes::{self, Known},
        survey::{self, Look, Seen},
    },
    vit::{Source, Vit, VitOptions},
};

/// Flags of `train inspect tokens`.
#[derive(Debug, Args)]
pub struct TokensArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
    /// The file of weights that the model was imported from.
    #[arg(short, long, value_name = "FILE")]
    weights: PathBuf,
    /// Folders of photos.
    #[arg(short, long, value_name = "DIR", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Photos at most.
    #[arg(long, default_value_t = 64)]
    limit: usize,
    /// Side of the square from the middle of each photo, in pixels [default: the 448 px or so that are a multiple of the patch].
    #[arg(long)]
    size: Option<u32>,
    /// Write pictures.png (norms, likeness, attention of some photos) and histograms.png there.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Photos to draw.
    #[arg(long, default_value_t = 4)]
    draw: usize,
    /// Write the numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the backbone runs.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    size: u32,
    n_photos: usize,
    blocks: Vec<Row>,
    /// The block whose outliers are looked at: the last that has some, or the last of all.
    block: usize,
    ordinary: Group,
    outliers: Option<Group>,
}

/// Norms after one block.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    spread: Spread,
    outliers: Option<Outliers>,
}

/// Tokens of one kind.
#[derive(Debug, Serialize)]
struct Group {
    /// Mean cosine to the patches around, at the patch embedding.
    likeness: f64,
    #[serde(flatten)]
    known: Known,
}

/// Looks at photos, prints what the tokens tell, and draws it.
///
/// # Errors
/// A model, weights or photos that cannot be used; a size that is no multiple of the patch.
pub fn run(args: &TokensArgs) -> anyhow::Result<()> {
    let manifest = load_dir(&args.model)?.manifest;
    let patch = manifest.architecture.patch;
    let size = args.size.unwrap_or(448 / patch * patch);
    ensure!(
        size >= 2 * patch && size.is_multiple_of(patch),
        "--size {size} px is no multiple of the patch, {patch}, with at least two of them"
    );
    ensure!(
        (10..=4096).contains(&args.limit),
        "--limit {} is not between 10 and 4096 photos: a fifth of them is kept for measuring",
        args.limit
    );
    let seen = look(args, &manifest, size)?;
    let report = diagnose(&manifest, size, &seen)?;
    print(&report);
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        pictures::draw_photos(&out.join("pictures.png"), &seen[..args.draw.min(seen.len())], report.block)?;
        let of_blocks: Vec<Histogram> =
            (0..report.blocks.len()).map(|block| Ok(Histogram::of(&norms(&seen, block)?))).collect::<anyhow::Result<_>>()?;
        pictures::draw_histograms(&out.join("histograms.png"), &of_blocks)?;
        println!("pictures: {0}/pictures.png, {0}/histograms.png", out.display());
    }
    let Some(json) = &args.json else { return Ok(()) };
    checkpoint::write_bytes(json, serde_json::to_string_pretty(&report)?.as_bytes())
}

fn look(args: &TokensArgs, manifest: &Manifest, size: u32) -> anyhow::Result<Vec<Seen>> {
    let device = args.device.find()?;
    let mut store = nn::VarStore::new(device);
    let mut vit = Vit::new(&store.root(), Source::read(&args.weights, manifest)?, VitOptions::default());
    store.freeze();
    let preprocess = &manifest.preprocess;
    let look = Look { size, normalisation: Normalisation { mean: preprocess.mean, std: preprocess.std }, device };
    let mut found: Vec<Photo> = photos::find(&args.images, 0.0).context("reading the photos")?.train;
    ensure!(found.len() >= 10, "there are {} photos, at least 10 are needed: a fifth of them is kept for measuring", found.len());
    found.truncate(args.limit);
    println!("{} (weights {}), {} photos of {size} x {size} px", manifest.name, args.weights.display(), found.len());
    found.iter().map(|photo| survey::see(&mut vit, &photo.path, look)).collect()
}

/// Norms of all patches after a block.
fn norms(seen: &[Seen], block: usize) -> anyhow::Result<Vec<f32>> {
    let block = i64::try_from(block)?;
    let of_photos =
        seen.iter().map(|seen| Ok(Vec::<f32>::try_from(seen.norms.get(block))?)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(of_photos.concat())
}

fn diagnose(manifest: &Manifest, size: u32, seen: &[Seen]) -> anyhow::Result<Report> {
    let n_blocks = manifest.architecture.depth as usize;
    let row = |block| {
        let norms = norms(seen, block)?;
        Ok(Row { spread: Spread::of(&norms).context("there are no norms")?, outliers: norms::find(&norms) })
    };
    let blocks = (0..n_blocks).map(row).collect::<anyhow::Result<Vec<Row>>>()?;
    let block = blocks.iter().rposition(|row| row.outliers.is_some()).unwrap_or(n_blocks - 1);
    let found = blocks[block].outliers;
    let above = found.map_or(f32::INFINITY, |of| of.above);
    let of_block = i64::try_from(block)?;
    let is_outlier = |seen: &Seen| seen.norms.get(of_block).ge(f64::from(above));
    // A photo in five is kept for measuring.
    let (test, train) = seen.split_at(seen.len() / 5);
    let [train, test] = [train, test].map(|part| survey::asked(part, is_outlier));
    let [ordinary, outliers] = probes::measure(&train, &test, seen[0].grid[1], 0);
    let likeness = |of: &dyn Fn(&Seen) -> Tensor| {
        let picked: Vec<Tensor> = seen.iter().map(|seen| seen.likeness.masked_select(&of(seen))).collect();
        Tensor::cat(&picked, 0).mean(Kind::Double).double_value(&[])
    };
    let group = |known, of: &dyn Fn(&Seen) -> Tensor| Group { likeness: likeness(of), known };
    Ok(Report {
        model: manifest.name.clone(),
        size,
        n_photos: seen.len(),
        blocks,
        block,
        ordinary: group(ordinary, &|seen| is_outlier(seen).logical_not()),
        outliers: found.map(|_| group(outliers, &is_outlier)),
    })
}

fn print(report: &Report) {
    println!("norms of the patches after each block:");
    for (block, row) in report.blocks.iter().enumerate() {
        let outliers = row.outliers.map_or("none".to_owned(), |of| of.to_string());
        println!(
            "  block {block:>2}: median {:>8.2}  deviation {:>7.2}  largest {:>8.2}  outliers: {outliers}",
            row.spread.median, row.spread.deviation, row.spread.max
        );
    }
    match (&report.outliers, report.block + 1 == report.blocks.len()) {
        (None, _) => println!("outliers: none: no block's norms fall into two groups"),
        (Some(_), true) => {
            println!("outliers: in the output; they know less of their patch than others, if the rows below say so")
        }
        (Some(_), false) => println!("outliers: none in the output, but after block {}", report.block),
    }
    print_group("ordinary", &report.ordinary);
    report.outliers.iter().for_each(|group| print_group("outliers", group));
}

fn print_group(name: &str, Group { likeness, known }: &Group) {
    let number = |of: Option<f64>, factor: f64| of.map_or("-".to_owned(), |of| format!("{:.2}", factor * of));
    println!(
        "  {name}: cosine to the patches around {likeness:.3}; position {} % exact, off by {} patches; pixels off by {} (blind {}); {} tokens measured",
        number(known.position, 100.0),
        number(known.distance, 1.0),
        number(known.pixels, 1.0),
        number(known.pixels_blind, 1.0),
        known.n
    );
}
