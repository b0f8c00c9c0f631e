//! `densevit view`: the features of an image as a picture.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::Args;

use crate::{
    commands::{features::FeatureArgs, target::TargetArgs},
    grpc::client::{Client, Features},
    grpc::pb::v1 as pb,
    picture::{Panel, Pca, bilinear_2x, side_by_side, write_png},
    preprocess::{DecodeLimits, decode},
    tensor::{FeatureMap, RgbImage},
};

/// What the client itself decodes: the server's limits do not bind it.
const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 30, max_pixels: 1 << 29 };

/// Flags of `densevit view`.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// The image.
    image: PathBuf,
    /// The picture to write (PNG).
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// The maps of one image.
struct Maps {
    coarse: Features,
    lifted: Option<Features>,
}

/// Draws photo, PCA of the grid, PCA of its bilinear double and, when the model has a head for the facet and layer, PCA after LiFT.
/// All three share the principal components and the colour scale of the grid.
///
/// # Errors
/// When the image, the server or the picture cannot be used.
pub fn run(args: &ViewArgs) -> anyhow::Result<()> {
    let file = fs::read(&args.image).with_context(|| format!("reading {}", args.image.display()))?;
    let photo = decode(&file, &LIMITS).with_context(|| format!("decoding {}", args.image.display()))?;
    let file = Bytes::from(file);
    let maps = args.target.with_client(async |client| extract(args, &client, file).await)?;
    let header = &maps.coarse.header;
    let coarse = to_map(&maps.coarse)?;
    let lifted = maps.lifted.as_ref().map(to_map).transpose()?;
    let pca = Pca::fit(&coarse);
    let mut panels = vec![Panel { caption: caption_of_photo(&photo), image: photo }, panel("grid", &pca, &coarse)?];
    let doubled = bilinear_2x(&coarse);
    panels.push(panel("bilinear", &pca, &doubled)?);
    if let Some(lifted) = &lifted {
        panels.push(panel("LiFT", &pca, lifted)?);
    }
    write_png(&args.out, &side_by_side(&panels)).with_context(|| format!("writing {}", args.out.display()))?;
    let facet = header.facet().as_str_name().trim_start_matches("FACET_").to_lowercase();
    println!("{}: {}/{}, {facet} of block {}", args.out.display(), header.model, header.version, header.layer);
    Ok(())
}

async fn extract(args: &ViewArgs, client: &Client, file: Bytes) -> anyhow::Result<Maps> {
    let model = client.model(args.features.input.model()).await?;
    let request = |lift_passes| pb::ExtractRequest {
        model: Some(args.features.input.model()),
        image: Some(pb::Image { source: Some(pb::image::Source::Encoded(file.clone())) }),
        preprocess: Some(args.features.input.preprocess()),
        features: Some(pb::FeatureOptions { lift_passes: Some(lift_passes), ..args.features.features() }),
    };
    let coarse = client.extract(request(0)).await?;
    let (facet, layer) = (coarse.header.facet(), coarse.header.layer);
    let fits = model.lift.is_some_and(|lift| lift.facet() == facet && lift.layer == layer);
    let lifted = if fits { Some(client.extract(request(1)).await?) } else { None };
    Ok(Maps { coarse, lifted })
}

fn to_map(features: &Features) -> anyhow::Result<FeatureMap> {
    let header = &features.header;
    ensure!(header.dtype() == pb::DType::DtypeF32, "the server answered in {:?}, not f32", header.dtype());
    let values: Vec<f32> =
        features.data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    let map = FeatureMap::new(header.rows as usize, header.cols as usize, header.channels as usize, values.into());
    let Some(map) = map else { bail!("the server's answer does not have the size that its header says") };
    Ok(map)
}

fn panel(what: &str, pca: &Pca, map: &FeatureMap) -> anyhow::Result<Panel> {
    let image = pca.paint(map).context("the maps of one image differ in their channels")?;
    Ok(Panel { caption: format!("{what} {}x{}", map.rows(), map.cols()), image })
}

fn caption_of_photo(photo: &RgbImage) -> String {
    format!("photo {}x{}", photo.height(), photo.width())
}
