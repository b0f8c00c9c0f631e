//! `train eval spair`.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use densevit::manifest::Facet;
use serde::Serialize;

use crate::{
    commands::eval::tasks::{TaskArgs, check_sizes},
    datasets::spair,
    eval::{
        keypoint_pairs::{Framing, Protocol, Score, Shown, measure, sampled},
        keypoints::Average,
        rows::Rows,
    },
    marks::{FOUND, Marks, TRUTH},
};

/// Pairs of a category in LiFT's protocol.
const LIFT_PAIRS: usize = 100;

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolArg {
    /// All pairs, images squeezed, distances of up to the tolerance on the image as it is.
    Usual,
    /// 100 pairs of each category with replacement, images letterboxed, distances below the tolerance on the letterboxed image.
    Lift,
}

/// Over what is averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AverageArg {
    Category,
    Image,
    Point,
}

/// How images fill the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FramingArg {
    Letterbox,
    Squeeze,
}

/// Flags of `train eval spair`.
#[derive(Debug, Args)]
pub struct SpairArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// Split.
    #[arg(long, default_value = "test")]
    split: String,
    /// Sides of squares, in pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [56, 112, 224, 448])]
    sizes: Vec<u32>,
    /// What the flags below are when they are not given.
    #[arg(long, value_enum, default_value = "usual")]
    protocol: ProtocolArg,
    /// Pairs drawn of each category with replacement; 0 for all.
    #[arg(long)]
    pairs: Option<usize>,
    /// Seed of the draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Over what is averaged [default: category].
    #[arg(long, value_enum, default_value = "category")]
    average: AverageArg,
    /// How images fill the square.
    #[arg(long, value_enum)]
    framing: Option<FramingArg>,
    /// Whether a distance of exactly the tolerance is right.
    #[arg(long, value_name = "BOOL")]
    inclusive: Option<bool>,
}

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Report {
    protocol: String,
    scores: Vec<Score>,
}

/// Measures and prints a table.
///
/// # Errors
/// A model, head or data set that cannot be used.
pub fn run(args: &SpairArgs) -> anyhow::Result<()> {
    let (mut backbone, rows) = args.task.open(Facet::Key)?;
    check_sizes(&args.sizes, backbone.patch())?;
    let mut pairs = spair::read(&args.task.data, &args.split)?;
    pairs.truncate(args.task.limit);
    let (protocol, drawn, label) = args.protocol();
    let pairs = sampled(&pairs, drawn);
    println!("PCK, {label}, {} pairs", pairs.len());
    println!("  {:>4} {:<44} {:>7} {:>6} {:>6} {:>6}", "px", "", "points", "@0.1", "@0.05", "@0.01");
    let mut scores = Vec::new();
    for size in &args.sizes {
        let show = |idx: usize, shown: Shown<'_>| args.show((idx, pairs.len(), *size), &rows, &shown);
        let of_size = measure(&mut backbone, &rows, (&pairs, *size), protocol, show)?;
        print(&of_size);
        scores.extend(of_size);
    }
    args.task.report(&Report { protocol: label, scores })
}

impl SpairArgs {
    /// The protocol, its draw, and its name.
    fn protocol(&self) -> (Protocol, Option<(usize, u64)>, String) {
        let is_lift = self.protocol == ProtocolArg::Lift;
        let n_drawn = self.pairs.unwrap_or(if is_lift { LIFT_PAIRS } else { 0 });
        let framing = match self.framing {
            Some(FramingArg::Letterbox) => Framing::Letterbox,
            Some(FramingArg::Squeeze) => Framing::Squeeze,
            None if is_lift => Framing::Letterbox,
            None => Framing::Squeeze,
        };
        let average = match self.average {
            AverageArg::Category => Average::Category,
            AverageArg::Image => Average::Image,
            AverageArg::Point => Average::Point,
        };
        let is_inclusive = self.inclusive.unwrap_or(!is_lift);
        let sampling =
            if n_drawn == 0 { "all pairs".to_owned() } else { format!("{n_drawn} pairs a category, seed {}", self.seed) };
        let sign = if is_inclusive { "<=" } else { "<" };
        let framed = if framing == Framing::Letterbox { "letterboxed" } else { "squeezed" };
        let label = format!("{sampling}, {framed}, distance {sign} tolerance, mean over {:?}", self.average).to_lowercase();
        let drawn = (n_drawn > 0).then_some((n_drawn, self.seed));
        (Protocol { framing, average, is_inclusive }, drawn, label)
    }

    /// The source, and one panel a row: true and found points.
    fn show(&self, (idx, n, size): (usize, usize, u32), rows: &Rows, shown: &Shown<'_>) -> anyhow::Result<()> {
        self.task.picture((idx, n), &format!("{size}-{idx:04}"), || {
            let dotted = |marks: Marks, points: &[[f64; 2]], colour| {
                points.iter().fold(marks, |marks, point| marks.dotted(*point, colour))
            };
            let source = dotted(Marks::new(shown.images[0]), shown.points[0], TRUTH);
            let mut panels = vec![("source".to_owned(), source.into_image().context("an image has no pixels")?)];
            for (row, found) in rows.rows().iter().zip(shown.found) {
                let marks = dotted(Marks::new(shown.images[1]), shown.points[1], TRUTH);
                let image = dotted(marks, found, FOUND).into_image().context("an image has no pixels")?;
                panels.push((row.name.clone(), image));
            }
            Ok(panels)
        })
    }
}

fn print(scores: &[Score]) {
    for score in scores {
        let [loose, middle, strict] = score.pck.map(|pck| 100.0 * pck);
        println!("  {:>4} {:<44} {:>7} {loose:>6.1} {middle:>6.1} {strict:>6.1}", score.size, score.row, score.n_points);
    }
}
