//! `densevit import`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::{
    commands::{
        features::parse_size,
        head::{HeadFlags, SegmentFlags, describe, parse_tap},
        library_from_environment,
    },
    engine::check_runs,
    import::{ImportOptions, Imported, Preset, import},
    manifest::{Facet, Interpolation, PositionVariant, Precision, ResizePolicy, Tap},
};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PresetArg {
    ImgFocus,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionArg {
    Fp32,
    Fp16,
    /// Linear layers of the backbone in bytes; CPU only, needs --ranges.
    Int8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PositionArg {
    /// DINO, DINOv2 without registers.
    Offset,
    /// DINOv2 with registers, timm.
    Antialias,
    /// Hugging Face.
    Exact,
}

/// What may be said of a backbone's weights.
#[derive(Debug, Args)]
pub struct BackboneFlags {
    /// A known source: fills in description, licence and defaults.
    #[arg(long, value_enum)]
    preset: Option<PresetArg>,
    /// Interpolation of the position table [default: the source's].
    #[arg(long, value_enum)]
    position: Option<PositionArg>,
    /// Channel means and standard deviations of 0.5 instead of `ImageNet`'s (supervised `AugReg` models).
    #[arg(long)]
    half_mean: bool,
    /// Attention heads [default: config.json beside the weights, else width / 64].
    #[arg(long)]
    heads: Option<u32>,
    /// Epsilon of the `LayerNorm`s [default: config.json beside the weights, else 1e-6].
    #[arg(long)]
    norm_eps: Option<f64>,
    /// Rows and columns of a position table that is not square, e.g. 12x16.
    #[arg(long, value_name = "RxC", value_parser = parse_size)]
    native_grid: Option<(u32, u32)>,
    /// Halve the grid inside this block (0-based): its queries are those of every second row and column of patches, as heads of the
    /// shrunk form expect it.
    #[arg(long, value_name = "BLOCK")]
    query_downsample: Option<u32>,
}

impl BackboneFlags {
    fn preset(&self) -> Option<Preset> {
        self.preset.map(|PresetArg::ImgFocus| Preset::ImgFocus)
    }

    /// Name of the model when it has none of its own.
    pub(super) fn model_name(&self) -> Option<String> {
        self.preset().map(|preset| preset.model_name().to_owned())
    }

    /// Puts what the flags say into `options`.
    pub(super) fn apply(self, options: &mut ImportOptions) {
        options.position = self.position.map(|position| match position {
            PositionArg::Offset => PositionVariant::Offset,
            PositionArg::Antialias => PositionVariant::Antialias,
            PositionArg::Exact => PositionVariant::Exact,
        });
        if self.half_mean {
            (options.mean, options.std) = ([0.5; 3], [0.5; 3]);
        }
        options.heads = self.heads;
        options.norm_eps = self.norm_eps;
        options.native_grid = self.native_grid.map(|(rows, cols)| [rows as usize, cols as usize]);
        options.query_downsample = self.query_downsample;
        if let Some(preset) = self.preset() {
            preset.apply(options);
        }
    }
}

/// Flags of `densevit import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Weights: .safetensors, .safetensors.index.json, .onnx, or what PyTorch saves (.pth, .pt, .bin).
    source: PathBuf,
    /// Name of the model [default: the preset's].
    #[arg(long)]
    name: Option<String>,
    /// Version of the model.
    #[arg(long = "model-version", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    /// Model repository to write to.
    #[arg(short, long, value_name = "DIR", default_value = "models")]
    out: PathBuf,
    /// Replace a model that is there.
    #[arg(long)]
    force: bool,
    /// Element type of the weights.
    #[arg(long, value_enum, default_value = "fp32")]
    precision: PrecisionArg,
    /// Ranges of the layers' inputs, from `densevit calibrate`: for --precision int8.
    #[arg(long, value_name = "FILE")]
    ranges: Option<PathBuf>,
    /// Blocks that the graph offers, e.g. 9,10,11 (0-based) [default: all].
    #[arg(long, value_delimiter = ',')]
    layers: Option<Vec<u32>>,
    /// Facets that the graph offers [default: all].
    #[arg(long, value_delimiter = ',')]
    facets: Option<Vec<Facet>>,
    /// What requests get that name nothing, e.g. token:10 [default: what the head takes, else `norm_token` of the last block].
    #[arg(long, value_name = "FACET:LAYER", value_parser = parse_tap)]
    default: Option<Tap>,
    /// Bake the position table for one size, e.g. 448x448 (height x width); the file then stands alone.
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    bake: Option<(u32, u32)>,
    /// Shorter side of images whose requests name no resize, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 448)]
    short_side: u32,
    #[command(flatten)]
    backbone: BackboneFlags,
    /// `LiFT` head: official state-dict names in .safetensors, .pth, .pt or .bin. `densevit head` gives one to a model that is there.
    #[arg(long, value_name = "FILE")]
    lift: Option<PathBuf>,
    #[command(flatten)]
    head: HeadFlags,
    /// Segmentation head: state-dict names of the published decoder, or a linear head, in .safetensors, .pth, .pt or .bin.
    #[arg(long, value_name = "FILE")]
    segment: Option<PathBuf>,
    #[command(flatten)]
    segment_head: SegmentFlags,
    /// One line about the model.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Licence of the weights.
    #[arg(long, default_value = "unknown")]
    license: String,
}

/// Imports a model and prints what was recognised and written.
///
/// # Errors
/// Weights that fit no known source, options that do not fit the weights, a place that is taken or cannot be written, a model that
/// does not run.
pub fn run(args: ImportArgs) -> anyhow::Result<()> {
    let source = args.source.display().to_string();
    let options = options(args)?;
    println!("reading {source}");
    let library = library_from_environment();
    let imported = import(&options, |entry| check_runs(entry, library.as_deref()))?;
    report(&imported);
    Ok(())
}

fn options(args: ImportArgs) -> anyhow::Result<ImportOptions> {
    let name = args.name.or(args.backbone.model_name()).context("--name is required without --preset")?;
    let mut options = ImportOptions::new(args.source, args.out, &name);
    options.version = args.version;
    options.force = args.force;
    options.precision = match args.precision {
        PrecisionArg::Fp32 => Precision::Fp32,
        PrecisionArg::Fp16 => Precision::Fp16,
        PrecisionArg::Int8 => Precision::Int8,
    };
    options.ranges = args.ranges;
    options.layers = args.layers;
    options.facets = args.facets.unwrap_or(options.facets);
    options.default = args.default;
    options.baked_size = args.bake.map(|(height, width)| [height, width]);
    if args.short_side == 0 {
        bail!("--short-side must be at least 1");
    }
    options.interpolation = Interpolation::Bicubic;
    options.resize = ResizePolicy::ShortSide { pixels: args.short_side };
    options.description = args.description;
    options.license = args.license;
    options.head = args.lift.map(|source| args.head.options(source));
    options.segment = args.segment.map(|source| args.segment_head.options(source));
    args.backbone.apply(&mut options);
    Ok(options)
}

fn report(imported: &Imported) {
    let manifest = &imported.entry.manifest;
    let (arch, backbone) = (&manifest.architecture, &manifest.backbone);
    let prefix = if imported.prefix.is_empty() { String::new() } else { format!(", prefix \"{}\" stripped", imported.prefix) };
    println!("recognised {} (key map {}{prefix})", arch.family, imported.key_map);
    println!(
        "  width {}, depth {}, heads {}, patch {}, registers {}, {} parameters, position table {}x{} ({:?})",
        arch.width,
        arch.depth,
        arch.heads,
        arch.patch,
        arch.registers,
        arch.parameters,
        manifest.position.native_grid[0],
        manifest.position.native_grid[1],
        manifest.position.variant,
    );
    println!("wrote {} ({:?}, default: {})", imported.entry.dir.display(), backbone.precision, backbone.default);
    println!("  {:<22} sha256 {}", backbone.file, backbone.sha256);
    describe(manifest);
    println!("  {:<22} sha256 {}", "model.toml", imported.entry.digest);
}
