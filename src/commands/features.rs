//! Flags that say which features a client command asks for.

use anyhow::{bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::{
    grpc::{client::Features, pb::v1 as pb},
    manifest::Facet,
    tensor::FeatureMap,
};

/// Element type of the answer.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum DTypeArg {
    /// Single precision.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// 8 bits, one scale a channel.
    I8,
}

/// Kernel of the resize.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum InterpolationArg {
    /// Nearest pixel.
    Nearest,
    /// Triangle.
    Bilinear,
    /// Catmull-Rom.
    Bicubic,
    /// Three lobes.
    Lanczos,
}

/// Flags of all commands that ask a model about an image.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// Model name [default: the server's default model].
    #[arg(long, default_value = "", hide_default_value = true)]
    pub model: String,
    /// Model version [default: the newest].
    #[arg(long, default_value = "", hide_default_value = true)]
    pub model_version: String,
    /// Length of the model input's shorter side, in pixels.
    #[arg(long, value_name = "PIXELS", group = "resize")]
    pub short_side: Option<u32>,
    /// Exact size of the model's input, e.g. 448x672 (height x width).
    #[arg(long, value_name = "HxW", group = "resize", value_parser = parse_size)]
    pub exact: Option<(u32, u32)>,
    /// Fit into this size and fill the rest, e.g. 448x448 (height x width).
    #[arg(long, value_name = "HxW", group = "resize", value_parser = parse_size)]
    pub letterbox: Option<(u32, u32)>,
    /// The image's own size, rounded to the patch size.
    #[arg(long, group = "resize")]
    pub native: bool,
    /// Kernel of the resize [default: the model's].
    #[arg(long)]
    pub interpolation: Option<InterpolationArg>,
    /// Part of the image to use, in pixels: x,y,width,height.
    #[arg(long, value_name = "X,Y,W,H", value_parser = parse_box, allow_hyphen_values = true)]
    pub crop: Option<pb::Box>,
}

/// Flags shared by `extract` and `view`.
#[derive(Debug, Args)]
pub struct FeatureArgs {
    #[command(flatten)]
    pub input: InputArgs,
    /// key, query, value, token or `norm_token` [default: the model's].
    #[arg(long)]
    pub facet: Option<Facet>,
    /// Transformer block, 0-based [default: the model's].
    #[arg(long)]
    pub layer: Option<u32>,
}

/// Flags of commands that compute something from a map.
#[derive(Debug, Args)]
pub struct MapArgs {
    #[command(flatten)]
    pub features: FeatureArgs,
    /// LiFT passes; each doubles the map [default: the server's].
    #[arg(long)]
    lift_passes: Option<u32>,
}

impl MapArgs {
    /// The map.
    pub fn map(&self) -> pb::MapOptions {
        let pb::FeatureOptions { facet, layer, .. } = self.features.features();
        pb::MapOptions { facet, layer, lift_passes: self.lift_passes }
    }
}

impl InputArgs {
    /// The model to ask.
    pub fn model(&self) -> pb::ModelRef {
        pb::ModelRef { name: self.model.clone(), version: self.model_version.clone() }
    }

    /// How the image is prepared.
    pub fn preprocess(&self) -> pb::Preprocess {
        use pb::preprocess::Resize;
        let size = |(height, width)| pb::Size { height, width };
        let resize = (self.short_side.map(Resize::ShortSide))
            .or(self.exact.map(|exact| Resize::Exact(size(exact))))
            .or(self.letterbox.map(|letterbox| Resize::Letterbox(size(letterbox))))
            .or(self.native.then_some(Resize::Native(true)));
        let interpolation = match self.interpolation {
            None => pb::Interpolation::Unspecified,
            Some(InterpolationArg::Nearest) => pb::Interpolation::Nearest,
            Some(InterpolationArg::Bilinear) => pb::Interpolation::Bilinear,
            Some(InterpolationArg::Bicubic) => pb::Interpolation::Bicubic,
            Some(InterpolationArg::Lanczos) => pb::Interpolation::Lanczos,
        };
        pb::Preprocess { resize, interpolation: interpolation as i32, crop: self.crop }
    }
}

impl FeatureArgs {
    /// Facet and layer; everything else left to the caller.
    pub fn features(&self) -> pb::FeatureOptions {
        let facet = match self.facet {
            None => pb::Facet::Unspecified,
            Some(Facet::Key) => pb::Facet::Key,
            Some(Facet::Query) => pb::Facet::Query,
            Some(Facet::Value) => pb::Facet::Value,
            Some(Facet::Token) => pb::Facet::Token,
            Some(Facet::NormToken) => pb::Facet::NormToken,
        };
        pb::FeatureOptions { facet: facet as i32, layer: self.layer, ..Default::default() }
    }
}

/// An image file as it goes to the server.
pub(super) fn encoded(file: Bytes) -> pb::Image {
    pb::Image { source: Some(pb::image::Source::Encoded(file)) }
}

/// Parses `HEIGHTxWIDTH`.
pub(super) fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(height, width)| Some((height.parse().ok()?, width.parse().ok()?)));
    sides.ok_or_else(|| format!("\"{text}\" is no size: expected HEIGHTxWIDTH, e.g. 448x672"))
}

/// Parses `X,Y`.
pub(super) fn parse_point(text: &str) -> Result<pb::Point, String> {
    let numbers = text.split_once(',').and_then(|(x, y)| Some((x.trim().parse().ok()?, y.trim().parse().ok()?)));
    numbers.map(|(x, y)| pb::Point { x, y }).ok_or_else(|| format!("\"{text}\" is no point: expected X,Y"))
}

pub(super) fn parse_box(text: &str) -> Result<pb::Box, String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match numbers.as_deref() {
        Ok(&[x, y, width, height]) => Ok(pb::Box { x, y, width, height }),
        _ => Err(format!("\"{text}\" is no box: expected X,Y,WIDTH,HEIGHT")),
    }
}

/// The map of an answer in f32.
///
/// # Errors
/// When the answer is no such map.
pub(super) fn to_map(features: &Features) -> anyhow::Result<FeatureMap> {
    let header = &features.header;
    ensure!(header.dtype() == pb::DType::DtypeF32, "the server answered in {:?}, not f32", header.dtype());
    let values: Vec<f32> =
        features.data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    let map = FeatureMap::new(header.rows as usize, header.cols as usize, header.channels as usize, values.into());
    let Some(map) = map else { bail!("the server's answer does not have the size that its header says") };
    Ok(map)
}
