//! `densevit propagate`: the labels of a first frame along a video.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::Args;
use image::{RgbImage as Canvas, imageops};
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    arrays::write_atomically,
    commands::{
        features::{MapArgs, encoded},
        inputs::{InputImage, LIMITS, collect},
        target::TargetArgs,
    },
    grpc::client::Client,
    grpc::pb::v1::{self as pb, propagate_request::Part, propagate_response},
    masks::{LabelFile, LabelMap, Labels, OverlayStyle, Palette, overlay},
    picture::{Panel, sheet, write_png},
    preprocess::decode,
    tensor::RgbImage,
};

/// Name of the contact sheet in the output folder.
const SHEET: &str = "contact-sheet";
/// Frames on the contact sheet.
const SHEET_FRAMES: usize = 12;
/// Frames that wait for the server to take them.
const FRAMES_AHEAD: usize = 2;
/// Labels of 8 bits.
const N_LABELS: usize = 256;

/// Flags of `densevit propagate`.
#[derive(Debug, Args)]
pub struct PropagateArgs {
    /// The frames: a folder, in alphabetical order, or files.
    #[arg(required = true, value_name = "FRAMES")]
    frames: Vec<PathBuf>,
    /// Labels of the first frame, at its size (PNG, palette or grey).
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,
    /// Folder for the labels of every frame (PNG with the colours of the mask) and a contact sheet.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Last frames that give labels, beside the first [default: 7].
    #[arg(long, value_name = "N")]
    context: Option<u32>,
    /// How far a cell may move from frame to frame, in cells [default: 12].
    #[arg(long, value_name = "CELLS")]
    radius: Option<u32>,
    /// Cells that give their labels to one [default: 5].
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Temperature of their weights [default: 0.1].
    #[arg(long)]
    temperature: Option<f32>,
    /// Stretch the shares of each label over the frame, as the evaluations on DAVIS do.
    #[arg(long)]
    stretch: bool,
    #[command(flatten)]
    map: MapArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Sends the frames, writes their labels, and at the end the contact sheet.
///
/// # Errors
/// When inputs, server or outputs cannot be used, and at the end when frames failed; what succeeded is kept.
pub fn run(args: &PropagateArgs) -> anyhow::Result<()> {
    let frames = collect(&args.frames)?;
    if let Some(twin) = frames.iter().find(|frame| frame.name == Path::new(SHEET)) {
        bail!("{} would get the name of the contact sheet", twin.path.display());
    }
    let mask = checked_mask(&args.mask, frames.first())?;
    let (panels, n_failed) = args.target.with_client(async |client| {
        let (sender, messages) = mpsc::channel(FRAMES_AHEAD);
        let sending = send(args, &frames, mask.into(), sender);
        let receiving = receive(args, &client, &frames, ReceiverStream::new(messages));
        let ((), received) = tokio::try_join!(sending, receiving)?;
        Ok(received)
    })?;
    let path = args.out.join(SHEET).with_extension("png");
    write_png(&path, &sheet(&panels)).with_context(|| format!("writing {}", path.display()))?;
    let n_done = frames.len() - n_failed;
    println!("labelled {n_done} frame(s) in {}; {} shows some", args.out.display(), path.display());
    ensure!(n_failed == 0, "{n_failed} of {} frames failed", frames.len());
    Ok(())
}

/// The file of labels, if it is one of the first frame.
fn checked_mask(path: &Path, first: Option<&InputImage>) -> anyhow::Result<Vec<u8>> {
    let mask = fs::read(path).with_context(|| format!("reading {} (--mask)", path.display()))?;
    let frame = first.context("there are no frames")?;
    let photo = open(frame)?;
    let size = [photo.height() as usize, photo.width() as usize];
    LabelFile::read(&mask, size).with_context(|| format!("{} (--mask) does not fit {}", path.display(), frame.path.display()))?;
    Ok(mask)
}

fn open(frame: &InputImage) -> anyhow::Result<RgbImage> {
    let file = fs::read(&frame.path).with_context(|| format!("reading {}", frame.path.display()))?;
    decode(&file, &LIMITS).with_context(|| format!("decoding {}", frame.path.display()))
}

/// Sends frame after frame, as fast as the server takes them.
async fn send(
    args: &PropagateArgs,
    frames: &[InputImage],
    mask: Bytes,
    sender: mpsc::Sender<pb::PropagateRequest>,
) -> anyhow::Result<()> {
    let mut start = Some(start(args, mask));
    for frame in frames {
        let file = tokio::fs::read(&frame.path).await.with_context(|| format!("reading {}", frame.path.display()))?;
        let image = encoded(file.into());
        let part = match start.take() {
            Some(start) => Part::Start(pb::PropagateStart { frame: Some(image), ..start }),
            None => Part::Frame(image),
        };
        if sender.send(pb::PropagateRequest { part: Some(part) }).await.is_err() {
            // The call has ended; its status says why.
            break;
        }
    }
    Ok(())
}

fn start(args: &PropagateArgs, mask: Bytes) -> pb::PropagateStart {
    let input = &args.map.features.input;
    pb::PropagateStart {
        model: Some(input.model()),
        frame: None,
        preprocess: Some(input.preprocess()),
        features: Some(args.map.map()),
        labels: Some(pb::LabelMap { png: mask, ..Default::default() }),
        options: Some(pb::PropagateOptions {
            context_frames: args.context,
            radius: args.radius,
            top_k: args.top_k,
            temperature: args.temperature,
            stretch: args.stretch,
        }),
        format: pb::MaskFormat::Png.into(),
        size: pb::MaskSize::Image.into(),
    }
}

/// Writes the labels of every frame; returns panels of some, and how many failed.
async fn receive(
    args: &PropagateArgs,
    client: &Client,
    frames: &[InputImage],
    messages: ReceiverStream<pb::PropagateRequest>,
) -> anyhow::Result<(Vec<Panel>, usize)> {
    let bar = ProgressBar::new(frames.len() as u64);
    let mut video = client.propagate(messages).await?;
    let (mut panels, mut n_failed) = (Vec::new(), 0);
    for (idx, frame) in frames.iter().enumerate() {
        let answer = video.next().await?.with_context(|| format!("the server ended after {idx} of {} frames", frames.len()))?;
        ensure!(answer.frame == idx as u64, "frame {} came where frame {idx} was due", answer.frame);
        match answer.result {
            Some(propagate_response::Result::Masks(masks)) => {
                write(&args.out, &frame.name, &masks.data)?;
                if is_shown(idx, frames.len()) {
                    panels.push(panel(frame, &masks)?);
                }
            }
            Some(propagate_response::Result::Error(error)) => {
                n_failed += 1;
                bar.suspend(|| eprintln!("densevit: {}: {}", frame.path.display(), error.message));
            }
            None => bail!("the answer to frame {idx} is empty"),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((panels, n_failed))
}

fn write(folder: &Path, name: &Path, file: &[u8]) -> anyhow::Result<()> {
    let mut out = folder.join(name).into_os_string();
    out.push(".png");
    let out = PathBuf::from(out);
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    write_atomically(&out, &[file]).with_context(|| format!("writing {}", out.display()))
}

/// Whether a frame is one of those on the contact sheet, which are evenly spaced and include the first and the last.
fn is_shown(idx: usize, n_frames: usize) -> bool {
    let n_shown = SHEET_FRAMES.min(n_frames);
    n_shown == n_frames || (0..n_shown).any(|place| place * (n_frames - 1) / (n_shown - 1) == idx)
}

/// A frame, or the part of it that is used, under the colours of its labels; label 0 shows it as it is.
fn panel(frame: &InputImage, masks: &pb::SegmentResponse) -> anyhow::Result<Panel> {
    let header = masks.header.as_ref().context("the answer says nothing of its labels")?;
    let place = header.raster_to_image.context("the answer does not say where its labels are")?;
    let photo = part(&open(frame)?, [place.x0, place.y0], [header.cols, header.rows])?;
    let caption = frame.name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Panel { caption, image: drawn(&photo, &masks.data)? })
}

/// The part of a photo whose first pixel has its centre at `[x, y]`.
fn part(photo: &RgbImage, [x, y]: [f64; 2], [width, height]: [u32; 2]) -> anyhow::Result<RgbImage> {
    let whole = Canvas::from_raw(photo.width(), photo.height(), photo.data().to_vec()).context("the photo has no pixels")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates at the ends of an image")]
    let part = imageops::crop_imm(&whole, x as u32, y as u32, width, height).to_image();
    RgbImage::new(part.height(), part.width(), part.into_raw()).context("the labels lie outside the photo")
}

fn drawn(photo: &RgbImage, file: &[u8]) -> anyhow::Result<RgbImage> {
    let size = [photo.height() as usize, photo.width() as usize];
    let LabelFile { values, palette } = LabelFile::read(file, size)?;
    // One class less than labels: 0 wraps to the highest value, which is void and shows the photo.
    let labels = values.iter().map(|value| u8::try_from(*value).unwrap_or_default().wrapping_sub(1)).collect();
    let map = LabelMap::new(size[0], size[1], N_LABELS - 1, Labels::U8(labels))?;
    let colors = palette.into_iter().skip(1).chain(std::iter::repeat([0; 3])).take(N_LABELS - 1).collect();
    Ok(overlay(photo, &map, &Palette::new(colors)?, &OverlayStyle::default())?)
}
