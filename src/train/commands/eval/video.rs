//! `train eval video`.

use anyhow::ensure;
use clap::Args;
use densevit::manifest::Facet;

use crate::{
    commands::eval::tasks::{PropagateArgs, TaskArgs, percent},
    eval::{
        rows::Rows,
        scenes::{PARTS, Score, Shown, measure},
    },
    marks::tinted,
    segmentation::data::{labels::Labels, layout::Layout},
};

/// Flags of `train eval video`.
#[derive(Debug, Args)]
pub struct VideoArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// How the data are laid out, as for `train segvit`.
    #[arg(long, default_value = "camvid")]
    layout: Layout,
    /// Split whose images, in the order of their names, are the video.
    #[arg(long, default_value = "val")]
    split: String,
    /// Rows of the frames for the model, in patches.
    #[arg(long, default_value_t = 24)]
    rows: u32,
    /// Columns, in patches.
    #[arg(long, default_value_t = 32)]
    cols: u32,
    #[command(flatten)]
    propagate: PropagateArgs,
}

/// Measures and prints a table.
///
/// # Errors
/// A model, head or data set that cannot be used.
pub fn run(args: &VideoArgs) -> anyhow::Result<()> {
    let (mut backbone, rows) = args.task.open(Facet::Key)?;
    ensure!(args.rows > 0 && args.cols > 0, "--rows and --cols take positive numbers");
    let mut dataset = args.layout.read(&args.task.data, &args.split)?;
    dataset.samples.truncate(args.task.limit);
    let size = [args.rows, args.cols].map(|cells| cells * backbone.patch());
    println!(
        "{} frames of {} x {} px, labels of the first one, {}",
        dataset.samples.len(),
        size[0],
        size[1],
        args.propagate.label()
    );
    let n_frames = dataset.samples.len().saturating_sub(1);
    let show = |shown: Shown<'_>| {
        let name = format!("{:05}", shown.idx);
        args.task.picture((shown.idx - 1, n_frames), &name, || panels(&rows, &shown))
    };
    let scores = measure(&mut backbone, &rows, (&dataset, size), args.propagate.options(), show)?;
    print(&scores);
    args.task.report(&scores)
}

/// The truth, and one panel a row.
fn panels(rows: &Rows, shown: &Shown<'_>) -> anyhow::Result<Vec<(String, densevit::tensor::RgbImage)>> {
    // The first class gets a colour too.
    let shifted =
        |labels: &Labels| Labels { data: labels.data.iter().map(|label| label.saturating_add(1)).collect(), ..labels.clone() };
    let mut panels = vec![("truth".to_owned(), tinted(shown.frame, &shifted(shown.truth))?)];
    for (row, found) in rows.rows().iter().zip(shown.found) {
        panels.push((row.name.clone(), tinted(shown.frame, &shifted(found))?));
    }
    Ok(panels)
}

fn print(scores: &[Score]) {
    let parts: Vec<String> =
        PARTS.iter().map(|last| if *last == usize::MAX { "later".into() } else { format!("to {last}") }).collect();
    println!("mIoU, {} frames behind the first", scores.first().map_or(0, |score| score.n_frames));
    println!("  {:<44} {:>6} {}", "", "all", parts.iter().map(|part| format!("{part:>7}")).collect::<String>());
    for score in scores {
        let parts: String = score.parts.iter().map(|part| format!("{:>7}", percent(*part))).collect();
        println!("  {:<44} {:>6} {parts}", score.row, percent(Some(score.miou)));
    }
}
