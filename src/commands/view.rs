//! `densevit view`: the features, the masks, the objects or the norms of an image as a picture.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;

use crate::{
    commands::{
        features::{FeatureArgs, encoded, to_map},
        inputs::LIMITS,
        labels, norms,
        objects::{ObjectArgs, draw_objects},
        target::TargetArgs,
    },
    grpc::client::{Client, Features, Segmentation},
    grpc::pb::v1 as pb,
    picture::{Panel, Pca, bilinear_2x, legend, side_by_side, stacked, write_png},
    preprocess::decode,
    tensor::{FeatureMap, RgbImage},
};

/// Flags of `densevit view`.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// The image.
    image: PathBuf,
    /// The picture to write (PNG).
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Draw the masks of the model's segmentation head, and which colour means what, instead of features.
    #[arg(long, conflicts_with_all = ["facet", "layer", "crop"])]
    masks: bool,
    /// Draw the objects that stand out in the image, their boxes and seeds, instead of features.
    #[arg(long, conflicts_with = "masks")]
    discover: bool,
    /// Draw the norms of the tokens after every block, as maps and as histograms, and say whether some are outliers.
    #[arg(long, conflicts_with_all = ["masks", "discover", "facet", "layer"])]
    norms: bool,
    #[command(flatten)]
    objects: ObjectArgs,
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

/// Draws photo and features, photo and masks, photo and objects, or photo and norms.
///
/// # Errors
/// When the image, the server or the picture cannot be used.
pub fn run(args: &ViewArgs) -> anyhow::Result<()> {
    let file = fs::read(&args.image).with_context(|| format!("reading {}", args.image.display()))?;
    let photo = decode(&file, &LIMITS).with_context(|| format!("decoding {}", args.image.display()))?;
    let file = Bytes::from(file);
    let (rows, what) = if args.norms {
        token_norms(args, photo, file)?
    } else {
        let (panels, what) = match (args.masks, args.discover) {
            (true, _) => masks(args, photo, file)?,
            (false, true) => objects(args, photo, file)?,
            (false, false) => features(args, photo, file)?,
        };
        (vec![panels], what)
    };
    let rows: Vec<_> = rows.iter().map(|panels| side_by_side(panels)).collect();
    write_png(&args.out, &stacked(&rows)).with_context(|| format!("writing {}", args.out.display()))?;
    println!("{}: {what}", args.out.display());
    Ok(())
}

/// Photo, PCA of the grid, PCA of its bilinear double and, when the model has a head for the facet and layer, PCA after LiFT. All share
/// the principal components and the colour scale of the grid.
fn features(args: &ViewArgs, photo: RgbImage, file: Bytes) -> anyhow::Result<(Vec<Panel>, String)> {
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
    let facet = header.facet().as_str_name().trim_start_matches("FACET_").to_lowercase();
    Ok((panels, format!("{}/{}, {facet} of block {}", header.model, header.version, header.layer)))
}

/// Photo, the same under the colours of its classes, and which colour means what, by falling area.
fn masks(args: &ViewArgs, photo: RgbImage, file: Bytes) -> anyhow::Result<(Vec<Panel>, String)> {
    let segmentation = args.target.with_client(async |client| Ok(client.segment(to_segment(args, file)).await?))?;
    let (header, image) = (&segmentation.header, labels::drawn(&segmentation, &photo)?);
    let entry = |class: &pb::ClassArea| (format!("{} {}", percent(class, &segmentation), class.name), labels::rgb(class.color));
    let entries: Vec<_> = header.classes.iter().filter(|class| class.area > 0).map(entry).collect();
    let mut panels = vec![Panel { caption: caption_of_photo(&photo), image: photo }, Panel { caption: "masks".into(), image }];
    panels.extend(legend(&entries).map(|image| Panel { caption: "share of the photo".into(), image }));
    Ok((panels, format!("{}/{}, {} classes", header.model, header.version, entries.len())))
}

/// Photo, the same with its objects, and how far each stands out.
fn objects(args: &ViewArgs, photo: RgbImage, file: Bytes) -> anyhow::Result<(Vec<Panel>, String)> {
    let request = args.objects.request(&args.features, file);
    let found = args.target.with_client(async |client| Ok(client.discover(request).await?))?;
    let header = found.map.clone().unwrap_or_default();
    let (image, entries) = draw_objects(&found, &photo)?;
    let mut panels = vec![Panel { caption: caption_of_photo(&photo), image: photo }, Panel { caption: "objects".into(), image }];
    panels.extend(legend(&entries).map(|image| Panel { caption: "score".into(), image }));
    Ok((panels, format!("{}/{}, {} objects", header.model, header.version, entries.len())))
}

/// Photo and histograms of norms, then a map of norms for each block; says what the norms are.
fn token_norms(args: &ViewArgs, photo: RgbImage, file: Bytes) -> anyhow::Result<(Vec<Vec<Panel>>, String)> {
    let (model, blocks) = args.target.with_client(async |client| norms::fetch(&args.features, &client, file).await)?;
    norms::describe(&blocks).iter().for_each(|line| println!("{line}"));
    let rows = norms::draw(Panel { caption: caption_of_photo(&photo), image: photo }, &blocks)?;
    Ok((rows, format!("{model}, norms after {} blocks", blocks.len())))
}

fn to_segment(args: &ViewArgs, file: Bytes) -> pb::SegmentRequest {
    pb::SegmentRequest {
        model: Some(args.features.input.model()),
        image: Some(encoded(file)),
        preprocess: Some(args.features.input.preprocess()),
        masks: Some(pb::SegmentOptions { format: pb::MaskFormat::Labels.into(), keep_empty: true, ..Default::default() }),
        features: None,
    }
}

/// Share of the photo that a class covers.
fn percent(class: &pb::ClassArea, segmentation: &Segmentation) -> String {
    let pixels = u64::from(segmentation.header.rows) * u64::from(segmentation.header.cols);
    let permille = (1000 * class.area).checked_div(pixels).unwrap_or_default();
    format!("{:>2}.{}%", permille / 10, permille % 10)
}

async fn extract(args: &ViewArgs, client: &Client, file: Bytes) -> anyhow::Result<Maps> {
    let model = client.model(args.features.input.model()).await?;
    let request = |lift_passes| pb::ExtractRequest {
        model: Some(args.features.input.model()),
        image: Some(encoded(file.clone())),
        preprocess: Some(args.features.input.preprocess()),
        features: Some(pb::FeatureOptions { lift_passes: Some(lift_passes), ..args.features.features() }),
    };
    let coarse = client.extract(request(0)).await?;
    let (facet, layer) = (coarse.header.facet(), coarse.header.layer);
    let fits = model.lift.is_some_and(|lift| lift.facet() == facet && lift.layer == layer);
    let lifted = if fits { Some(client.extract(request(1)).await?) } else { None };
    Ok(Maps { coarse, lifted })
}

fn panel(what: &str, pca: &Pca, map: &FeatureMap) -> anyhow::Result<Panel> {
    let image = pca.paint(map).context("the maps of one image differ in their channels")?;
    Ok(Panel { caption: format!("{what} {}x{}", map.rows(), map.cols()), image })
}

pub(super) fn caption_of_photo(photo: &RgbImage) -> String {
    format!("photo {}x{}", photo.height(), photo.width())
}
