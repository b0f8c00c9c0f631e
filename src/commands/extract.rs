//! `densevit extract`: images in, arrays out.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::{
    arrays::{ArrayRef, ElementType, write_npy, write_safetensors},
    commands::{
        features::{DTypeArg, FeatureArgs, encoded},
        folder::{FolderArgs, Task},
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
    #[command(flatten)]
    folder: FolderArgs,
    /// Format of the files in an output folder; a single file has it by its extension.
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
}

/// Extracts all images.
///
/// # Errors
/// When an input or the server cannot be used, and at the end when images failed; what succeeded is kept.
pub fn run(args: &ExtractArgs) -> anyhow::Result<()> {
    let single = Format::from_path(&args.folder.out);
    let format = single.unwrap_or(args.format);
    let tasks = args.folder.tasks(single.is_some(), format.extension())?;
    check_format(args, format)?;
    args.folder.run(tasks, "extracted", async |client, task| extract_one(args, client, task, format).await)
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

async fn extract_one(args: &ExtractArgs, client: &Client, task: &Task, format: Format) -> anyhow::Result<()> {
    let image = tokio::fs::read(&task.image).await.context("reading the image")?;
    let features = client.extract(request(args, image.into())).await?;
    let out = task.out.clone();
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
        model: Some(args.features.input.model()),
        image: Some(encoded(image)),
        preprocess: Some(args.features.input.preprocess()),
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
