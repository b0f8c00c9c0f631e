//! `densevit segment`: images in, masks out.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    arrays::{ArrayRef, ElementType, write_atomically, write_npy},
    commands::{
        features::{InputArgs, encoded, parse_box, parse_size},
        folder::{FolderArgs, Task},
        inputs::LIMITS,
        labels::drawn,
    },
    grpc::client::{Client, Segmentation},
    grpc::pb::v1 as pb,
    picture::write_png,
    preprocess::decode,
    tensor::RgbImage,
};

/// Files that the command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Labels with the classes' colours as palette.
    Png,
    /// Classes, areas, scores and COCO run lengths.
    Json,
    /// Scores of all classes, `numpy.load`.
    Npy,
}

impl Format {
    const ALL: [Self; 3] = [Self::Png, Self::Json, Self::Npy];

    fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Json => "json",
            Self::Npy => "npy",
        }
    }
}

/// Flags of `densevit segment`.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Format of the files in an output folder; a single file has it by its extension.
    #[arg(long, value_enum, default_value = "png")]
    format: Format,
    /// Draw the masks over the photo instead of writing labels (PNG only).
    #[arg(long)]
    overlay: bool,
    /// Outlines instead of run lengths (JSON only), at most so many pixels off the masks' borders.
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, default_missing_value = "0")]
    polygons: Option<f32>,
    /// Only these classes, by name.
    #[arg(long, value_delimiter = ',')]
    classes: Vec<String>,
    /// Pixels whose best score is lower get no class.
    #[arg(long, default_value_t = 0.0)]
    min_score: f32,
    /// Every class covers all pixels where its own score is at least this: masks may overlap (JSON only).
    #[arg(long)]
    threshold: Option<f32>,
    /// Only this part of the image, in pixels: x,y,width,height.
    #[arg(long, value_name = "X,Y,W,H", value_parser = parse_box, allow_hyphen_values = true)]
    region: Option<pb::Box>,
    /// Windows of this size on the model's input (height x width) [default: the head's training size, for large inputs].
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    window: Option<(u32, u32)>,
    /// Take the model's input as one window, whatever its size.
    #[arg(long, conflicts_with = "window")]
    whole: bool,
    #[command(flatten)]
    input: InputArgs,
}

/// Segments all images.
///
/// # Errors
/// When an input or the server cannot be used, and at the end when images failed; what succeeded is kept.
pub fn run(args: &SegmentArgs) -> anyhow::Result<()> {
    let of_path = |format: &Format| args.folder.out.extension().is_some_and(|extension| extension == format.extension());
    let single = Format::ALL.into_iter().find(of_path);
    let format = single.unwrap_or(args.format);
    if args.overlay && format != Format::Png {
        bail!("--overlay needs a .png output or --format png");
    }
    if args.overlay && (args.region.is_some() || args.input.crop.is_some()) {
        bail!("--overlay draws over the whole photo: --region and --crop cannot go with it");
    }
    if format != Format::Json && (args.polygons.is_some() || args.threshold.is_some()) {
        bail!("--polygons and --threshold need a .json output or --format json");
    }
    let tasks = args.folder.tasks(single.is_some(), format.extension())?;
    args.folder.run(tasks, "segmented", async |client, task| segment_one(args, client, task, format).await)
}

async fn segment_one(args: &SegmentArgs, client: &Client, task: &Task, format: Format) -> anyhow::Result<()> {
    let image = Bytes::from(tokio::fs::read(&task.image).await.context("reading the image")?);
    let segmentation = client.segment(request(args, image.clone(), format)).await?;
    let (out, is_overlay) = (task.out.clone(), args.overlay);
    let photo = is_overlay.then_some(image);
    tokio::task::spawn_blocking(move || write(&segmentation, photo.as_ref(), &out, format)).await.context("writing the masks")?
}

fn request(args: &SegmentArgs, image: Bytes, format: Format) -> pb::SegmentRequest {
    let format = match format {
        Format::Png if args.overlay => pb::MaskFormat::Labels,
        Format::Png => pb::MaskFormat::Png,
        Format::Json if args.polygons.is_some() => pb::MaskFormat::Polygons,
        Format::Json => pb::MaskFormat::Rle,
        Format::Npy => pb::MaskFormat::Scores,
    };
    let windows = match (args.whole, args.window) {
        (true, _) => Some(pb::Windows { whole: true, ..Default::default() }),
        (false, Some((height, width))) => Some(pb::Windows { size: Some(pb::Size { height, width }), ..Default::default() }),
        (false, None) => None,
    };
    pb::SegmentRequest {
        model: Some(args.input.model()),
        image: Some(encoded(image)),
        preprocess: Some(args.input.preprocess()),
        masks: Some(pb::SegmentOptions {
            format: format as i32,
            region: args.region,
            classes: args.classes.clone(),
            min_score: args.min_score,
            threshold: args.threshold,
            tolerance: args.polygons.unwrap_or_default(),
            windows,
            keep_empty: args.overlay,
            ..Default::default()
        }),
        features: None,
    }
}

fn write(segmentation: &Segmentation, photo: Option<&Bytes>, out: &Path, format: Format) -> anyhow::Result<()> {
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let header = &segmentation.header;
    match (format, photo) {
        (Format::Png, Some(photo)) => {
            let photo = decode(photo, &LIMITS).context("decoding the image")?;
            write_png(out, &to_canvas(drawn(segmentation, &photo)?)?)?;
        }
        (Format::Png, None) => write_file(out, &segmentation.data)?,
        (Format::Json, _) => write_file(out, serde_json::to_string_pretty(&describe(segmentation))?.as_bytes())?,
        (Format::Npy, _) => {
            let shape = vec![header.rows as usize, header.cols as usize, header.classes.len()];
            write_npy(out, &ArrayRef { element_type: ElementType::F16, shape, data: &segmentation.data })?;
        }
    }
    Ok(())
}

/// As the encoder takes it.
fn to_canvas(picture: RgbImage) -> anyhow::Result<image::RgbImage> {
    let (width, height) = (picture.width(), picture.height());
    image::RgbImage::from_raw(width, height, picture.into_data()).context("the picture has no pixels")
}

fn write_file(out: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(out, &[bytes]).with_context(|| format!("writing {}", out.display()))
}

/// Classes and masks; masks as COCO's tools take them.
fn describe(segmentation: &Segmentation) -> Value {
    let header = &segmentation.header;
    let mask = |index: u32| segmentation.masks.iter().find(|mask| mask.class_index == index);
    let classes = header.classes.iter().map(|class| {
        let mut entry = json!({
            "index": class.index,
            "name": class.name,
            "color": format!("#{:06x}", class.color),
            "area": class.area,
            "score": class.score,
        });
        let found = mask(class.index);
        if let Some(bounds) = found.and_then(|mask| mask.r#box) {
            entry["bbox"] = json!([bounds.x, bounds.y, bounds.width, bounds.height]);
        }
        match found.and_then(|mask| mask.mask.as_ref()) {
            Some(pb::mask::Mask::Rle(counts)) => {
                let counts = String::from_utf8_lossy(counts);
                entry["segmentation"] = json!({ "size": [header.rows, header.cols], "counts": counts });
            }
            Some(pb::mask::Mask::Polygons(polygons)) => {
                let ring = |ring: &pb::Ring| ring.corners.clone();
                let polygon = |polygon: &pb::Polygon| {
                    let outer = polygon.outer.as_ref().map(ring).unwrap_or_default();
                    json!({ "outer": outer, "holes": polygon.holes.iter().map(ring).collect::<Vec<_>>() })
                };
                entry["segmentation"] = polygons.polygons.iter().map(polygon).collect();
            }
            Some(pb::mask::Mask::Bits(_)) | None => {}
        }
        entry
    });
    json!({
        "model": format!("{}/{}", header.model, header.version),
        "digest": header.digest,
        "size": [header.rows, header.cols],
        "classes": classes.collect::<Vec<_>>(),
    })
}
