//! `densevit extract`: images in, arrays out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    arrays::{ArrayRef, ElementType, write_npy, write_safetensors},
    commands::{
        features::{DTypeArg, FeatureArgs},
        inputs::{InputImage, collect},
        target::TargetArgs,
    },
    grpc::client::{Client, Features},
    grpc::pb::v1 as pb,
};

/// File format of the arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One array, `numpy.load`.
    Npy,
    /// The array, CLS and register tokens, and what they are, as metadata.
    Safetensors,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Npy => "npy",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Flags of `densevit extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// Images, or folders of images.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// A file (.npy or .safetensors) for a single image, else a folder.
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Format of the files in an output folder.
    #[arg(long, value_enum, default_value = "npy")]
    format: Format,
    #[command(flatten)]
    features: FeatureArgs,
    /// LiFT passes; each doubles the map [default: 1 with a head, else 0].
    #[arg(long)]
    lift_passes: Option<u32>,
    /// Element type.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DTypeArg,
    /// Channels first instead of last.
    #[arg(long)]
    chw: bool,
    /// Scale descriptors to unit length.
    #[arg(long)]
    l2: bool,
    /// Also the CLS token (safetensors only).
    #[arg(long)]
    cls: bool,
    /// Also the register tokens (safetensors only).
    #[arg(long)]
    registers: bool,
    /// Write again what is there already; without it, images whose output exists are skipped.
    #[arg(long)]
    force: bool,
    /// Images in flight.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
    #[command(flatten)]
    target: TargetArgs,
}

/// One image and where its array goes.
#[derive(Debug)]
struct Task {
    image: PathBuf,
    out: PathBuf,
    format: Format,
}

/// Extracts all images.
///
/// # Errors
/// When an input or the server cannot be used, and at the end when images failed; what succeeded is kept.
pub fn run(args: &ExtractArgs) -> anyhow::Result<()> {
    let tasks = plan(args)?;
    let n_all = tasks.len();
    let due: Vec<Task> = tasks.into_iter().filter(|task| args.force || !is_there(&task.out)).collect();
    let n_skipped = n_all - due.len();
    if due.is_empty() {
        println!("nothing to do: {n_skipped} of {n_all} outputs exist (--force writes them again)");
        return Ok(());
    }
    let n_failed = args.target.with_client(async |client| Ok(extract_all(args, &client, &due).await))?;
    let n_done = due.len() - n_failed;
    println!("extracted {n_done} image(s) to {}, skipped {n_skipped}, failed {n_failed}", args.out.display());
    if n_failed > 0 {
        bail!("{n_failed} of {} images failed", due.len());
    }
    Ok(())
}

fn plan(args: &ExtractArgs) -> anyhow::Result<Vec<Task>> {
    let images = collect(&args.images)?;
    let single = Format::from_path(&args.out);
    if let (Some(format), [InputImage { path, .. }]) = (single, images.as_slice()) {
        check_format(args, format)?;
        return Ok(vec![Task { image: path.clone(), out: args.out.clone(), format }]);
    }
    if single.is_some() {
        bail!("{} names one file, but there are {} images: give a folder", args.out.display(), images.len());
    }
    check_format(args, args.format)?;
    let out = |name: &Path| {
        let mut file = args.out.join(name).into_os_string();
        file.push(".");
        file.push(args.format.extension());
        PathBuf::from(file)
    };
    Ok(images.iter().map(|image| Task { image: image.path.clone(), out: out(&image.name), format: args.format }).collect())
}

impl Format {
    fn from_path(path: &Path) -> Option<Self> {
        [Self::Npy, Self::Safetensors].into_iter().find(|format| path.extension().is_some_and(|ext| ext == format.extension()))
    }
}

fn check_format(args: &ExtractArgs, format: Format) -> anyhow::Result<()> {
    if format == Format::Npy && (args.cls || args.registers || matches!(args.dtype, DTypeArg::I8)) {
        bail!("a .npy file holds one array and no scales: --cls, --registers and --dtype i8 need --format safetensors");
    }
    Ok(())
}

/// An output counts as there when it is a file: outputs appear complete or not at all.
fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file())
}

/// Returns the number of images that failed.
async fn extract_all(args: &ExtractArgs, client: &Client, tasks: &[Task]) -> usize {
    let bar = ProgressBar::new(tasks.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} images  {per_sec}  eta {eta}  {msg}") {
        bar.set_style(style);
    }
    let work = tasks.iter().map(|task| async move { (task, extract_one(args, client, task).await) });
    let mut outcomes = stream::iter(work).buffer_unordered(usize::from(args.in_flight));
    let mut n_failed = 0;
    while let Some((task, outcome)) = outcomes.next().await {
        if let Err(error) = outcome {
            n_failed += 1;
            bar.suspend(|| eprintln!("densevit: {}: {error:#}", task.image.display()));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    n_failed
}

async fn extract_one(args: &ExtractArgs, client: &Client, task: &Task) -> anyhow::Result<()> {
    let image = tokio::fs::read(&task.image).await.context("reading the image")?;
    let features = client.extract(request(args, image.into())).await?;
    let (out, format) = (task.out.clone(), task.format);
    tokio::task::spawn_blocking(move || write(&features, &out, format)).await.context("writing the array")?
}

fn request(args: &ExtractArgs, image: Bytes) -> pb::ExtractRequest {
    let dtype = match args.dtype {
        DTypeArg::F32 => pb::DType::DtypeF32,
        DTypeArg::F16 => pb::DType::DtypeF16,
        DTypeArg::I8 => pb::DType::DtypeI8,
    };
    let layout = if args.chw { pb::Layout::Chw } else { pb::Layout::Hwc };
    let features = pb::FeatureOptions {
        lift_passes: args.lift_passes,
        dtype: dtype as i32,
        layout: layout as i32,
        l2_normalize: args.l2,
        cls_token: args.cls,
        register_tokens: args.registers,
        ..args.features.features()
    };
    pb::ExtractRequest {
        model: Some(args.features.model()),
        image: Some(pb::Image { source: Some(pb::image::Source::Encoded(image)) }),
        preprocess: Some(args.features.preprocess()),
        features: Some(features),
    }
}

fn write(features: &Features, out: &Path, format: Format) -> anyhow::Result<()> {
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let header = &features.header;
    let (rows, cols, channels) = (header.rows as usize, header.cols as usize, header.channels as usize);
    let shape = if header.layout() == pb::Layout::Chw { vec![channels, rows, cols] } else { vec![rows, cols, channels] };
    let element_type = match header.dtype() {
        pb::DType::DtypeF16 => ElementType::F16,
        pb::DType::DtypeI8 => ElementType::I8,
        _ => ElementType::F32,
    };
    let map = ArrayRef { element_type, shape, data: &features.data };
    match format {
        Format::Npy => write_npy(out, &map)?,
        Format::Safetensors => write_safetensors(out, &named_arrays(header, map), &metadata(header))?,
    }
    Ok(())
}

fn named_arrays<'a>(header: &'a pb::FeatureHeader, map: ArrayRef<'a>) -> Vec<(&'static str, ArrayRef<'a>)> {
    let channels = header.channels as usize;
    let mut arrays = vec![("features", map)];
    if !header.cls_token.is_empty() {
        arrays.push(("cls_token", ArrayRef { element_type: ElementType::F32, shape: vec![channels], data: &header.cls_token }));
    }
    if !header.register_tokens.is_empty() {
        let n_registers = header.register_tokens.len() / (4 * channels.max(1));
        let shape = vec![n_registers, channels];
        arrays.push(("register_tokens", ArrayRef { element_type: ElementType::F32, shape, data: &header.register_tokens }));
    }
    arrays
}

/// What the array is, as strings: the metadata of a safetensors file knows nothing else.
fn metadata(header: &pb::FeatureHeader) -> Vec<(String, String)> {
    let affine = header.grid_to_image.unwrap_or_default();
    let size = |size: Option<pb::Size>| size.map(|size| format!("{}x{}", size.height, size.width)).unwrap_or_default();
    let mut pairs = vec![
        ("model", format!("{}/{}", header.model, header.version)),
        ("digest", header.digest.clone()),
        ("facet", header.facet().as_str_name().trim_start_matches("FACET_").to_lowercase()),
        ("layer", header.layer.to_string()),
        ("lift_passes", header.lift_passes.to_string()),
        ("layout", header.layout().as_str_name().trim_start_matches("LAYOUT_").to_lowercase()),
        ("stride_px", header.stride.to_string()),
        ("input_size", size(header.input)),
        ("original_size", size(header.original)),
        ("grid_to_image", format!("x = {} + {} * col, y = {} + {} * row", affine.x0, affine.dx, affine.y0, affine.dy)),
    ];
    if !header.scale.is_empty() {
        let scale: Vec<String> = header.scale.iter().map(f32::to_string).collect();
        pairs.push(("scale", scale.join(",")));
    }
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
