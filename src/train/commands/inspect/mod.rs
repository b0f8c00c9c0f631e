//! `train inspect`.

mod tokens;

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use densevit::{
    graph,
    manifest::{Architecture, FfnKind, LiftForm, SegmentForm, Tap, load_dir},
};
use tch::{Device, nn};

use crate::{
    config::LiftConfig,
    cost::head_macs,
    head::{self, Head, HeadShape},
    segmentation::{
        config::SegvitConfig,
        cost::{backbone_macs, head_macs as segment_macs},
        data::view::Augmentation,
        head::{Head as SegmentHead, n_weights as weights_of},
    },
};

/// Flags of `train inspect`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct InspectArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    costs: Option<CostArgs>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Norms of a backbone's tokens, outliers among them and what they know, attention of class token and registers.
    Tokens(tokens::TokensArgs),
}

/// Flags of `train inspect` itself.
#[derive(Debug, Args)]
struct CostArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
    /// Heads: lift.safetensors of a run [default: each form with the widths of the guided preset].
    #[arg(long, value_name = "FILE", num_args = 1..)]
    head: Vec<PathBuf>,
    /// Classes of the segmentation heads.
    #[arg(long, default_value_t = 150)]
    classes: usize,
    /// Sides of the image, in pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [224, 448])]
    sizes: Vec<u32>,
}

/// Prints what was asked for.
///
/// # Errors
/// A model, weights, a head or photos that cannot be used, a size that is no multiple of the patch.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    match (&args.what, &args.costs) {
        (Some(What::Tokens(args)), _) => tokens::run(args),
        (None, Some(args)) => costs(args),
        (None, None) => bail!("--model is missing: the directory of the model to inspect"),
    }
}

/// Prints weights and exact MACs of the backbone, of LiFT heads and of segmentation heads.
fn costs(args: &CostArgs) -> anyhow::Result<()> {
    let manifest = load_dir(&args.model)?.manifest;
    let arch = &manifest.architecture;
    let wrong = args.sizes.iter().find(|size| **size == 0 || **size % arch.patch != 0);
    ensure!(wrong.is_none(), "{} px are no multiple of the patch size, {}", wrong.unwrap_or(&0), arch.patch);
    let shapes = if args.head.is_empty() { forms(arch.width, arch.patch) } else { files(args, arch.width, arch.patch)? };
    println!("{} ({} channels, patch {}): {} weights", manifest.name, arch.width, arch.patch, arch.parameters);
    for size in &args.sizes {
        let side = u64::from(size / arch.patch);
        let cost = graph::cost::backbone_macs(arch, None, [side; 2]);
        println!("  {size} px: {} (linear {}, attention {})", giga(cost.total()), giga(cost.linear), giga(cost.attention));
    }
    for (name, shape) in shapes {
        let n_weights = n_weights(shape);
        println!("{name}: {n_weights} weights, {}", share(n_weights, arch.parameters));
        for size in &args.sizes {
            let side = u64::from(size / arch.patch);
            let (macs, cost) = (head_macs(&shape, side, side), graph::cost::backbone_macs(arch, None, [side; 2]));
            let (of_all, of_linear) = (share(macs, cost.total()), share(macs, cost.linear));
            println!("  {size} px: {}, {of_all} of all, {of_linear} without attention products", giga(macs));
        }
    }
    println!(
        "The paper says +5.7 % weights and +22.1 % operations for the official form on ViT-S/16 at 224 px; counted exactly: 5.48 % and"
    );
    println!("17.3 % (16.4 % of all): it rounds the backbone to 21 M, and charges the transposed convolution four times.");
    for size in &args.sizes {
        segmentation(arch, manifest.backbone.default, *size, args.classes);
    }
    println!("As published, ViT-L/16 and 150 classes, for which the authors say 637.9 and 373.5 GFLOPs, Shrunk 41.5 % less:");
    segmentation(&vit_l16(), manifest.backbone.default, 640, 150);
    Ok(())
}

/// Prints what segmentation costs with the published taps: the backbone up to the last of them, and the head.
fn segmentation(arch: &Architecture, default: Tap, size: u32, n_classes: usize) {
    let grid = [u64::from(size / arch.patch); 2];
    let mut segvit = None;
    for form in [SegmentForm::Linear, SegmentForm::Segvit, SegmentForm::Shrunk] {
        let augmentation = Augmentation { size: [size; 2], ..Augmentation::default() };
        let config = SegvitConfig { form, augmentation, ..SegvitConfig::default() };
        let (taps, downsample) = (config.taps(arch.depth, default), config.downsample(arch.depth));
        let shape = config.shape(arch, taps.len(), n_classes);
        let is_halved = |tap: &Tap| downsample.is_some_and(|block| tap.layer >= block);
        let halved = grid.map(|side| side.div_ceil(2));
        let grids: Vec<[u64; 2]> = taps.iter().map(|tap| if is_halved(tap) { halved } else { grid }).collect();
        let n_blocks = taps.iter().map(|tap| tap.layer + 1).max().unwrap_or_default();
        let (backbone, head) = (backbone_macs(arch, grid, n_blocks, downsample), segment_macs(&shape, &grids));
        let store = nn::VarStore::new(Device::Cpu);
        let _head = SegmentHead::new(&store.root(), &shape);
        let layers: Vec<String> = taps.iter().map(|tap| tap.layer.to_string()).collect();
        println!(
            "{form:?}, {n_classes} classes, blocks {}, {size} px: {} weights, {} and the backbone's {}{}",
            layers.join(", "),
            weights_of(&store),
            giga(head),
            giga(backbone),
            segvit.map_or(String::new(), |whole| less(backbone + head, whole))
        );
        if form == SegmentForm::Segvit {
            segvit = Some(backbone + head);
        }
    }
}

fn less(part: u64, whole: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let share = 100.0 * (1.0 - part as f64 / whole as f64);
    format!(": {share:.1} % less than Segvit")
}

/// What the paper of SegViT counts for.
fn vit_l16() -> Architecture {
    Architecture {
        family: "vit".into(),
        width: 1024,
        depth: 24,
        heads: 16,
        patch: 16,
        registers: 0,
        ffn: FfnKind::Mlp,
        layer_scale: false,
        norm_eps: 1e-6,
        parameters: 304_000_000,
    }
}

fn forms(width: u32, patch: u32) -> Vec<(String, HeadShape)> {
    let shape = |form| HeadShape::new(&LiftConfig { form, ..LiftConfig::default() }, width as usize, patch);
    LiftForm::ALL.into_iter().map(|form| (form.name().to_owned(), shape(form))).collect()
}

fn files(args: &CostArgs, width: u32, patch: u32) -> anyhow::Result<Vec<(String, HeadShape)>> {
    let open = |file: &PathBuf| {
        let (_head, shape) = head::open(file, width as usize, patch)?;
        Ok((format!("{} ({})", shape.form.name(), file.display()), shape))
    };
    args.head.iter().map(open).collect::<anyhow::Result<_>>().context("reading the heads")
}

fn n_weights(shape: HeadShape) -> u64 {
    let store = nn::VarStore::new(Device::Cpu);
    let _head = Head::new(&store.root(), shape);
    store.trainable_variables().iter().map(|tensor| tensor.numel() as u64).sum()
}

fn giga(macs: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let giga = macs as f64 / 1e9;
    format!("{giga:.3} GMAC")
}

fn share(part: u64, whole: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let share = 100.0 * part as f64 / whole as f64;
    format!("+{share:.2} %")
}
