//! `train bench`: seconds of a step, the share of the raw backbone's rate that filling the cache reaches, and seconds to find an object. The
//! first two are for ratios, not for absolute numbers: `benches/train_step.py` and `benches/pretrain_step.py` compare steps with PyTorch's.

mod pretrain;

use std::{path::PathBuf, time::Instant};

use anyhow::ensure;
use clap::{Args, Subcommand};
use densevit::{
    discover::{CORNERS, DEFAULT_TAU, Method},
    manifest::{Facet, Interpolation, Tap},
};
use tch::{Device, Kind, Tensor, nn};

use crate::{
    backbone::Backbone,
    commands::run::{DEFAULT_MODEL, DeviceArg},
    config::{LiftConfig, Objective, Preset, Products},
    data::{
        cache,
        loader::Batch,
        photos,
        view::{make_view, resized},
    },
    head::{Head, HeadShape},
    loss::Loss,
    optim::Adam,
};

/// What is timed.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Forward, backward and Adam on random examples.
    Step(StepArgs),
    /// Filling the cache against running the backbone on images that are in memory.
    Features(FeaturesArgs),
    /// Finding one object in the features of photos, on one thread.
    Discover(DiscoverArgs),
    /// A step of pre-training on random crops.
    Pretrain(pretrain::PretrainArgs),
}

/// Flags of `train bench step`.
#[derive(Debug, Args)]
struct StepArgs {
    /// official or guided: the preset whose form is timed.
    #[arg(long, value_enum, default_value = "official")]
    preset: Preset,
    /// Channels of a descriptor.
    #[arg(long, default_value_t = 384)]
    channels: usize,
    /// Pixels on a side of a patch.
    #[arg(long, default_value_t = 16)]
    patch: u32,
    /// Side of the largest image, in pixels.
    #[arg(long, default_value_t = 448)]
    size: i64,
    /// Examples of a step.
    #[arg(long, default_value_t = 8)]
    batch: i64,
    /// Steps that are timed, after two that are not.
    #[arg(long, default_value_t = 5)]
    steps: u32,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Where the steps run.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
    /// Element type of the products.
    #[arg(long, value_enum, default_value = "fp32")]
    products: Products,
}

/// Flags of `train bench features`.
#[derive(Debug, Args)]
struct FeaturesArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
    /// Folders of photos.
    #[arg(short, long, value_name = "DIR", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Photos of a round.
    #[arg(long, default_value_t = 8)]
    photos: usize,
    /// Rounds of both, one after the other.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
}

/// Flags of `train bench discover`.
#[derive(Debug, Args)]
struct DiscoverArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_MODEL)]
    model: PathBuf,
    /// Folders of photos.
    #[arg(short, long, value_name = "DIR", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Photos.
    #[arg(long, default_value_t = 5)]
    photos: usize,
    /// Cells on a side: 56 are the 3,136 cells of 448 px with a patch of 16 and LiFT.
    #[arg(long, default_value_t = 56)]
    grid: u32,
    /// TokenCut: cosine above which cells are similar.
    #[arg(long, default_value_t = DEFAULT_TAU)]
    tau: f32,
}

/// Times and prints.
///
/// # Errors
/// Models or photos that cannot be used.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Step(args) => step(args),
        What::Features(args) => features(args),
        What::Discover(args) => discover(args),
        What::Pretrain(args) => pretrain::run(args),
    }
}

/// Prints the seconds of each step, one a line.
fn step(args: &StepArgs) -> anyhow::Result<()> {
    tch::set_num_threads(args.threads);
    tch::manual_seed(0);
    let (config, device) = (args.preset.config(), args.device.find()?);
    let store = nn::VarStore::new(device);
    let head = Head::new(&store.root(), HeadShape::new(&config, args.channels, args.patch)).with_products(args.products);
    let mut adam = Adam::new(&store);
    let (grid, channels) = (args.size / i64::from(args.patch), i64::try_from(args.channels)?);
    let options = (Kind::Float, device);
    let image = |side: i64| Tensor::randn([args.batch, 3, side, side], options);
    let map = |side: i64| Tensor::randn([args.batch, channels, side, side], options);
    let batch = Batch {
        images: vec![image(args.size / 2), image(args.size / 4)],
        features: vec![map(grid), map(grid / 2), map(grid / 4)],
        names: Vec::new(),
    };
    let loss = Loss::new(Objective::Cosine, 1, None);
    for idx in 0..args.steps + 2 {
        let began = Instant::now();
        let value = loss.of(&head, &batch, true);
        adam.accumulate(&value);
        adam.step(1e-3);
        if device.is_cuda() {
            tch::Cuda::synchronize(0);
        }
        if idx >= 2 {
            println!("{:.6}", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

fn features(args: &FeaturesArgs) -> anyhow::Result<()> {
    let config = LiftConfig::default();
    let mut backbone = Backbone::open(&args.model, |default| config.tap(default), Device::Cpu)?;
    let found = photos::find(&args.images, 0.0)?.train;
    ensure!(found.len() >= args.photos * args.rounds, "{} photos, {} rounds need more", found.len(), args.rounds);
    let mut ratios = Vec::new();
    for photos in found.chunks_exact(args.photos).take(args.rounds) {
        let views = photos.iter().map(|photo| make_view(&photo.path, &photo.digest, 0, &config));
        let views = views.collect::<Result<Vec<_>, String>>().map_err(anyhow::Error::msg)?;
        let began = Instant::now();
        for image in views.iter().flat_map(|view| std::iter::once(&view.full).chain(&view.smaller)) {
            let _map = backbone.features(image)?;
        }
        let raw = began.elapsed().as_secs_f64();
        let folder = tempfile::tempdir()?;
        let began = Instant::now();
        let _files = cache::fill(photos, &mut backbone, &config, (folder.path(), u64::MAX))?;
        let filled = began.elapsed().as_secs_f64();
        println!("raw {raw:.2} s, cache {filled:.2} s, ratio of rates {:.3}", raw / filled);
        ratios.push(raw / filled);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.3}", ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN));
    Ok(())
}

/// Prints seconds of each photo and each way to find an object, and their medians.
fn discover(args: &DiscoverArgs) -> anyhow::Result<()> {
    let mut backbone = Backbone::open(&args.model, |tap| Tap { facet: Facet::Key, ..tap }, Device::Cpu)?;
    let side = args.grid * backbone.patch();
    let photos = photos::find(&args.images, 0.0)?.train;
    let ways =
        [("LOST", Method::Lost { gram_bias: 0.0 }), ("TokenCut", Method::TokenCut { tau: args.tau, max_corners: CORNERS })];
    let mut seconds = vec![Vec::new(); ways.len()];
    for photo in photos.iter().take(args.photos) {
        let image = photos::open(&photo.path).map_err(anyhow::Error::msg)?;
        let image = resized(&image, [side; 2], Interpolation::Bicubic, None).map_err(anyhow::Error::msg)?;
        let map = backbone.features(&image)?;
        for ((name, method), seconds) in ways.iter().zip(&mut seconds) {
            let began = Instant::now();
            let found = densevit::discover::discover(map.data(), [map.rows(), map.cols()], *method, 1)?;
            let elapsed = began.elapsed().as_secs_f64();
            println!("{name:<8} {} cells {elapsed:.3} s, {} object", map.rows() * map.cols(), found.len());
            seconds.push(elapsed);
        }
    }
    for ((name, _), mut seconds) in ways.iter().zip(seconds) {
        seconds.sort_by(f64::total_cmp);
        println!("median of {name} {:.3} s", seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN));
    }
    Ok(())
}
