//! mIoU of labels that are propagated from the first frame of a densely labelled video: CamVid's validation split.
//!
//! # Design
//! All classes are carried along, and what does not count as one more, so that nothing else spreads into it. Pixels that do not count in
//! the truth of a frame are left out; pixels that were given to what does not count are wrong. Scored over all frames but the first, and
//! over parts of them: how long a mask lasts is the question.

use anyhow::{Context as _, ensure};
use densevit::{correspond::PropagateOptions, manifest::Interpolation, tensor::RgbImage};
use serde::Serialize;
use tch::Tensor;

use crate::{
    backbone::Backbone,
    data::view::resized,
    eval::{propagation::Propagators, rows::Rows},
    segmentation::{
        confusion::{Confusion, mean},
        data::{classes::IGNORED, labels::Labels, layout::Dataset},
    },
};

/// Last frames of the parts that are scored on their own.
pub const PARTS: [usize; 3] = [10, 40, usize::MAX];

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// What features.
    pub row: String,
    /// Frames that were scored.
    pub n_frames: usize,
    /// mIoU over all frames but the first.
    pub miou: f64,
    /// The same over frames up to each of [`PARTS`], from behind the part before; none where there are no frames.
    pub parts: Vec<Option<f64>>,
}

/// Labels of one frame, for pictures; what does not count is the class after the last.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Number of the frame.
    pub idx: usize,
    /// The frame.
    pub frame: &'a RgbImage,
    /// What is true.
    pub truth: &'a Labels,
    /// What each row gave.
    pub found: &'a [Labels],
}

/// Measures all rows on the frames of a data set in their order, after one that leaves the first labels where they are.
///
/// # Errors
/// When a frame cannot be read, the backbone fails, or there are fewer than two frames.
pub fn measure(
    backbone: &mut Backbone,
    rows: &Rows,
    (dataset, size): (&Dataset, [u32; 2]),
    options: PropagateOptions,
    mut show: impl FnMut(Shown<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Score>> {
    ensure!(dataset.samples.len() >= 2, "a video has two frames or more");
    let n_classes = dataset.classes.len();
    let other = u8::try_from(n_classes).ok().filter(|other| *other != IGNORED).context("too many classes to carry along")?;
    let names: Vec<&str> = std::iter::once("the first labels").chain(rows.rows().iter().map(|row| row.name.as_str())).collect();
    let mut of_parts = vec![vec![Confusion::new(n_classes + 1); PARTS.len()]; names.len()];
    let mut carried: Option<(Propagators, Labels)> = None;
    for (idx, sample) in dataset.samples.iter().enumerate() {
        let (frame, truth) = sample.open(&dataset.classes)?;
        let input = resized(&frame, size, Interpolation::Bicubic, None).map_err(anyhow::Error::msg)?;
        let maps = rows.maps(backbone, &input)?;
        let Some((propagators, first)) = &mut carried else {
            let first = counted(&truth, other);
            carried = Some((Propagators::new(&maps, &first, options, backbone.patch())?, first));
            continue;
        };
        let found = propagators.next(&maps, [truth.height, truth.width])?;
        let part = PARTS.iter().position(|last| idx <= *last).unwrap_or_default();
        for (parts, found) in of_parts.iter_mut().zip(std::iter::once(&*first).chain(&found)) {
            parts[part].add(&to_tensor(found), &truth)?;
        }
        show(Shown { idx, frame: &frame, truth: &counted(&truth, other), found: &found })?;
    }
    let n_frames = dataset.samples.len() - 1;
    let score = |(row, parts): (&&str, &Vec<Confusion>)| {
        let ious: Vec<Vec<Option<f64>>> = parts.iter().map(|part| of_classes(part, n_classes)).collect();
        let is_there = |part: &Vec<Option<f64>>| part.iter().any(Option::is_some).then(|| mean(part));
        let all = of_classes(&together(parts), n_classes);
        Score { row: (*row).to_owned(), n_frames, miou: mean(&all), parts: ious.iter().map(is_there).collect() }
    };
    Ok(names.iter().zip(&of_parts).map(score).collect())
}

/// Intersection over union of the classes that count.
fn of_classes(confusion: &Confusion, n_classes: usize) -> Vec<Option<f64>> {
    confusion.ious().into_iter().take(n_classes).collect()
}

/// All parts as one.
fn together(parts: &[Confusion]) -> Confusion {
    let mut all = Confusion::new(parts.first().map_or(1, Confusion::n_classes));
    parts.iter().for_each(|part| all.merge(part));
    all
}

/// What does not count, as a class.
fn counted(labels: &Labels, other: u8) -> Labels {
    let data = labels.data.iter().map(|label| if *label == IGNORED { other } else { *label }).collect();
    Labels { data, ..labels.clone() }
}

fn to_tensor(labels: &Labels) -> Tensor {
    let values: Vec<i64> = labels.data.iter().map(|label| i64::from(*label)).collect();
    Tensor::from_slice(&values).view([i64::from(labels.height), i64::from(labels.width)])
}
