//! How much of an output each class takes, and how sure the model is of it.

use crate::masks::ClassSet;

/// The part of a label map that has one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassSummary {
    /// Index in the model.
    pub class: u16,
    /// Pixels that have the label.
    pub area_px: u64,
    /// Mean of the class's score over these pixels; 0 when there are none.
    pub mean_score: f32,
}

/// Pixels and sums of scores, by class of the model.
#[derive(Debug)]
pub(super) struct Tally {
    classes: Vec<(u64, f64)>,
}

impl Tally {
    pub(super) fn new(n_classes: usize) -> Self {
        Self { classes: vec![(0, 0.0); n_classes] }
    }

    /// Counts a row of labels and the scores of these labels; labels that are no class do not count.
    pub(super) fn add(&mut self, labels: &[u32], scores: &[f32]) {
        let mut rest = scores;
        for run in labels.chunk_by(|one, other| one == other) {
            let (scores, behind) = rest.split_at(run.len().min(rest.len()));
            rest = behind;
            let class = run.first().and_then(|label| self.classes.get_mut(*label as usize));
            if let Some((area_px, sum)) = class {
                *area_px += run.len() as u64;
                *sum += scores.iter().map(|score| f64::from(*score)).sum::<f64>();
            }
        }
    }

    /// Counts what another thread counted.
    pub(super) fn merge(&mut self, other: &Self) {
        for ((area_px, sum), (other_area_px, other_sum)) in self.classes.iter_mut().zip(&other.classes) {
            *area_px += other_area_px;
            *sum += other_sum;
        }
    }

    /// One summary a class of the set, in its order.
    pub(super) fn summaries(&self, classes: &ClassSet) -> Vec<ClassSummary> {
        let summary = |class: &u16| {
            let (area_px, sum) = self.classes.get(usize::from(*class)).copied().unwrap_or_default();
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean to the precision of scores")]
            let mean_score = (sum / area_px.max(1) as f64) as f32;
            ClassSummary { class: *class, area_px, mean_score }
        };
        classes.classes().iter().map(summary).collect()
    }
}
