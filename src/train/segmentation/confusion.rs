//! What was taken for what: one matrix over a whole split, and the scores that it gives.

use densevit::manifest::SegmentScores;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::segmentation::data::labels::Labels;

/// What a whole split gives; both in \[0, 1\].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean over the classes of intersection over union.
    pub miou: f64,
    /// Share of the pixels whose class is right.
    pub pixel_accuracy: f64,
}

impl From<Scores> for SegmentScores {
    fn from(scores: Scores) -> Self {
        Self { miou: Some(scores.miou), pixel_accuracy: Some(scores.pixel_accuracy) }
    }
}

/// Counts of pixels by true and predicted class. Pixels that do not count are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    n_classes: usize,
    /// `[K, K]`, a row a true class.
    counts: Vec<u64>,
}

impl Confusion {
    /// Of nothing yet.
    #[must_use]
    pub fn new(n_classes: usize) -> Self {
        Self { n_classes, counts: vec![0; n_classes * n_classes] }
    }

    /// Counts the pixels of an image.
    ///
    /// # Shapes
    /// - `predicted`: `[H, W]` i64, as large as the labels
    ///
    /// # Errors
    /// When the counts cannot be read back.
    pub fn add(&mut self, predicted: &Tensor, labels: &Labels) -> Result<(), tch::TchError> {
        let n = i64::try_from(self.n_classes).unwrap_or(i64::MAX);
        let truth = Tensor::from_slice(&labels.data).to_kind(Kind::Int64);
        let predicted = predicted.flatten(0, -1).to_device(truth.device());
        // Rows from K on are pixels that do not count.
        let cells = truth.clamp_max(n) * n + predicted;
        let counts = Vec::<i64>::try_from(cells.bincount::<Tensor>(None, (n + 1) * n))?;
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.unsigned_abs());
        Ok(())
    }

    /// Adds the counts of another matrix of as many classes.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    /// Pixels of a true class that were taken for another, or for itself.
    #[must_use]
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.counts.get(truth * self.n_classes + predicted).copied().unwrap_or_default()
    }

    /// Number of classes (K).
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Pixels of a true class.
    #[must_use]
    pub fn n_true(&self, class: usize) -> u64 {
        (0..self.n_classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// Intersection over union of each class; none where it neither is nor was predicted.
    #[must_use]
    pub fn ious(&self) -> Vec<Option<f64>> {
        let iou = |class: usize| {
            let hit = self.count(class, class);
            let n_predicted: u64 = (0..self.n_classes).map(|truth| self.count(truth, class)).sum();
            share(hit, self.n_true(class) + n_predicted - hit)
        };
        (0..self.n_classes).map(iou).collect()
    }

    /// Share of each class's pixels that were found; none where there are none.
    #[must_use]
    pub fn recalls(&self) -> Vec<Option<f64>> {
        (0..self.n_classes).map(|class| share(self.count(class, class), self.n_true(class))).collect()
    }

    /// Mean intersection over union, and share of the pixels whose class is right.
    #[must_use]
    pub fn scores(&self) -> Scores {
        let hits = (0..self.n_classes).map(|class| self.count(class, class)).sum();
        let pixel_accuracy = share(hits, self.counts.iter().sum()).unwrap_or_default();
        Scores { miou: mean(&self.ious()), pixel_accuracy }
    }
}

/// Mean of the values that are there.
#[must_use]
pub fn mean(values: &[Option<f64>]) -> f64 {
    let (sum, n) = values.iter().flatten().fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "pixels are far fewer than 2^53")]
    let share = part as f64 / whole as f64;
    (whole > 0).then_some(share)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn scores_count_all_images_together_and_no_ignored_pixels() {
        let mut confusion = Confusion::new(3);
        let mut add = |predicted: &[i64], labels: &[u8]| {
            let labels = Labels { height: 1, width: u32::try_from(labels.len()).unwrap(), data: labels.to_vec() };
            confusion.add(&Tensor::from_slice(predicted).view([1, -1]), &labels).unwrap();
        };
        add(&[1, 1, 1, 1], &[0, 1, 1, 255]);
        add(&[0, 1], &[0, 0]);
        // Class 0: 1 of 3; class 1: 2 of 4; class 2 is nowhere.
        assert_eq!(confusion.ious(), [Some(1.0 / 3.0), Some(0.5), None]);
        assert_eq!(confusion.recalls(), [Some(1.0 / 3.0), Some(1.0), None]);
        let scores = confusion.scores();
        assert!((scores.miou - 5.0 / 12.0).abs() < 1e-12 && (scores.pixel_accuracy - 0.6).abs() < 1e-12, "{scores:?}");
        assert_eq!((confusion.count(0, 1), confusion.n_true(0)), (2, 3));
    }
}
