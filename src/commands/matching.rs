//! `densevit match`: points of one image in another.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{
    commands::{
        features::{MapArgs, encoded, parse_point},
        inputs::LIMITS,
        target::TargetArgs,
        view::caption_of_photo,
    },
    grpc::pb::v1 as pb,
    picture::{Pair, Panel, hues, pairs, write_png},
    preprocess::decode,
    tensor::RgbImage,
};

/// Colour of matches that do not lead back.
const DOUBTFUL: [u8; 3] = [128; 3];

/// Flags of `densevit match`.
#[derive(Debug, Args)]
pub struct MatchArgs {
    /// The image with the points.
    source: PathBuf,
    /// The image that they are looked for in.
    target: PathBuf,
    /// The picture to write (PNG): both images, and a line for each point, grey where the match does not lead back.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Points of the first image, in pixels: x,y and so on.
    #[arg(long, value_name = "X,Y", num_args = 1.., value_parser = parse_point, conflicts_with = "grid")]
    points: Vec<pb::Point>,
    /// Points in even rows and columns instead, so many along the longer side.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    grid: u32,
    #[command(flatten)]
    map: MapArgs,
    #[command(flatten)]
    target_server: TargetArgs,
}

/// Matches, draws, and prints where the points are.
///
/// # Errors
/// When the images, the server or the picture cannot be used.
pub fn run(args: &MatchArgs) -> anyhow::Result<()> {
    let [source, target] = [&args.source, &args.target].map(|path| {
        let file = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let photo = decode(&file, &LIMITS).with_context(|| format!("decoding {}", path.display()))?;
        anyhow::Ok((photo, file))
    });
    let ((source, source_file), (target, target_file)) = (source?, target?);
    let points = if args.points.is_empty() { even(&source, args) } else { args.points.clone() };
    let input = &args.map.features.input;
    let request = pb::MatchRequest {
        model: Some(input.model()),
        source: Some(encoded(source_file.into())),
        target: Some(encoded(target_file.into())),
        preprocess: Some(input.preprocess()),
        target_preprocess: None,
        features: Some(args.map.map()),
        points: points.clone(),
        refine: None,
    };
    let found = args.target_server.with_client(async |client| Ok(client.match_points(request).await?))?;
    ensure!(found.matches.len() == points.len(), "the server matched {} of {} points", found.matches.len(), points.len());
    let lines = lines(&points, &found.matches);
    let panels = [source, target].map(|image| Panel { caption: caption_of_photo(&image), image });
    write_png(&args.output, &pairs(&panels, &lines)).with_context(|| format!("writing {}", args.output.display()))?;
    if !args.points.is_empty() {
        points.iter().zip(&found.matches).for_each(|(point, found)| println!("{}", describe(*point, found)));
    }
    let n_mutual = found.matches.iter().filter(|found| found.is_mutual).count();
    let header = found.source.unwrap_or_default();
    println!(
        "{}: {}/{}, {} points, {n_mutual} of them lead back",
        args.output.display(),
        header.model,
        header.version,
        points.len()
    );
    Ok(())
}

/// Points in even rows and columns, inside `--crop` if there is one.
fn even(photo: &RgbImage, args: &MatchArgs) -> Vec<pb::Point> {
    let (width, height) = (f64::from(photo.width()), f64::from(photo.height()));
    let part = args.map.features.input.crop.unwrap_or(pb::Box { x: 0.0, y: 0.0, width, height });
    let step = part.width.max(part.height) / f64::from(args.grid);
    let places = |begin: f64, extent: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the grid's side")]
        let n = ((extent / step).round() as u32).clamp(1, args.grid);
        (0..n).map(move |idx| begin + extent * (f64::from(idx) + 0.5) / f64::from(n))
    };
    let cols = || places(part.x, part.width);
    places(part.y, part.height).flat_map(|y| cols().map(move |x| pb::Point { x, y })).collect()
}

fn lines(points: &[pb::Point], matches: &[pb::PointMatch]) -> Vec<Pair> {
    let place = |point: &pb::Point| [point.x, point.y];
    let each = points.iter().zip(matches).zip(hues(points.len()));
    let mut lines: Vec<(bool, Pair)> = each
        .map(|((point, found), color)| {
            let target = place(&found.point.unwrap_or_default());
            let color = if found.is_mutual { color } else { DOUBTFUL };
            (found.is_mutual, Pair { source: place(point), target, color })
        })
        .collect();
    // Those to trust are drawn over the others.
    lines.sort_by_key(|(is_mutual, _)| *is_mutual);
    lines.into_iter().map(|(_, pair)| pair).collect()
}

fn describe(point: pb::Point, found: &pb::PointMatch) -> String {
    let place = found.point.unwrap_or_default();
    let trust = if found.is_mutual { "leads back" } else { "does not lead back" };
    format!(
        "{:.1},{:.1} -> {:.1},{:.1}  score {:.2}  margin {:.2}  {trust}",
        point.x, point.y, place.x, place.y, found.score, found.margin
    )
}
