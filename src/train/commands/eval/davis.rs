//! `train eval davis`.

use clap::{Args, ValueEnum};
use densevit::manifest::Facet;

use crate::{
    commands::eval::tasks::{PropagateArgs, TaskArgs, check_sizes},
    datasets::davis,
    eval::{
        objects::{Protocol, Score, Shown, measure},
        rows::Rows,
    },
    marks::tinted,
};

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolArg {
    /// Frames squeezed to squares; keys of the last block.
    Lift,
    /// Frames of 480 pixels on the shorter side; normed tokens of the last block.
    Dino,
}

/// Flags of `train eval davis`.
#[derive(Debug, Args)]
pub struct DavisArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// Split.
    #[arg(long, default_value = "val")]
    split: String,
    /// How frames are given.
    #[arg(long, value_enum, default_value = "lift")]
    protocol: ProtocolArg,
    /// Sides of squares, in pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [56, 112, 224, 448])]
    sizes: Vec<u32>,
    #[command(flatten)]
    propagate: PropagateArgs,
}

/// Measures and prints a table.
///
/// # Errors
/// A model, head or data set that cannot be used.
pub fn run(args: &DavisArgs) -> anyhow::Result<()> {
    let facet = if args.protocol == ProtocolArg::Dino { Facet::NormToken } else { Facet::Key };
    let (mut backbone, rows) = args.task.open(facet)?;
    let mut sequences = davis::read(&args.task.data, &args.split)?;
    sequences.truncate(args.task.limit);
    let protocols: Vec<Protocol> = match args.protocol {
        ProtocolArg::Dino => vec![Protocol::Dino],
        ProtocolArg::Lift => {
            check_sizes(&args.sizes, backbone.patch())?;
            args.sizes.iter().map(|size| Protocol::Square(*size)).collect()
        }
    };
    let n_frames: usize = sequences.iter().map(|sequence| sequence.frames.len().saturating_sub(2)).sum();
    println!("{} videos, {n_frames} frames without first and last, {}", sequences.len(), args.propagate.label());
    let mut all = Vec::new();
    for protocol in protocols {
        let mut n_shown = 0;
        let show = |shown: Shown<'_>| {
            n_shown += 1;
            args.show((n_shown - 1, n_frames, protocol), &rows, &shown)
        };
        let scores = measure(&mut backbone, &rows, (&sequences, protocol), args.propagate.options(), show)?;
        print(&scores);
        all.extend(scores);
    }
    args.task.report(&all)
}

impl DavisArgs {
    /// The truth, and one panel a row.
    fn show(&self, (idx, n, protocol): (usize, usize, Protocol), rows: &Rows, shown: &Shown<'_>) -> anyhow::Result<()> {
        let size = if let Protocol::Square(size) = protocol { size.to_string() } else { "480p".to_owned() };
        let name = format!("{size}-{}-{:05}", shown.video, shown.idx);
        self.task.picture((idx, n), &name, || {
            let mut panels = vec![("truth".to_owned(), tinted(shown.frame, shown.truth)?)];
            for (row, found) in rows.rows().iter().zip(shown.found) {
                panels.push((row.name.clone(), tinted(shown.frame, found)?));
            }
            Ok(panels)
        })
    }
}

fn print(scores: &[Score]) {
    let Some(first) = scores.first() else { return };
    println!("{}, {} objects", first.protocol, first.n_objects);
    println!("  {:<44} {:>6} {:>6} {:>6} {:>8} {:>7}", "", "J&F", "J", "F", "J recall", "J decay");
    for score in scores {
        let [j, recall, decay] = score.j.map(|of| 100.0 * of);
        let (both, f) = (100.0 * score.j_and_f, 100.0 * score.f[0]);
        println!("  {:<44} {both:>6.1} {j:>6.1} {f:>6.1} {recall:>8.1} {decay:>7.1}", score.row);
    }
}
