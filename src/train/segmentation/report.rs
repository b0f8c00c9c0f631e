//! What a head reaches on a split, in numbers.

use densevit::{
    manifest::{ClassSpec, SegmentForm, SegmentInput},
    tensor::RgbImage,
};
use serde::Serialize;

use crate::segmentation::{
    confusion::{Confusion, mean},
    cost::{backbone_macs, head_macs},
    data::recipe::Recipe,
    head::Opened,
};

/// Results of a class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Intersection over union; none where it neither is nor was predicted.
    pub iou: Option<f64>,
    /// Share of its pixels that were found.
    pub recall: Option<f64>,
    /// Its pixels.
    pub pixels: u64,
}

/// Weights and multiply-accumulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Weights of the backbone.
    pub backbone_parameters: u64,
    /// Weights of the head.
    pub head_parameters: u64,
    /// Multiply-accumulates of the backbone for an image, up to the last block that is read.
    pub backbone_macs: u64,
    /// Multiply-accumulates of the head for an image.
    pub head_macs: u64,
}

/// Results of a head.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Mean over the classes of intersection over union.
    pub miou: f64,
    /// Share of the pixels whose class is right.
    pub pixel_accuracy: f64,
    /// Mean over the classes of the share of their pixels that were found.
    pub mean_recall: f64,
    /// Images measured.
    pub images: usize,
    /// Images a second from decoded image to labels, without the first.
    pub images_per_second: f64,
    /// What it costs.
    pub cost: Cost,
    /// Results of each class.
    pub classes: Vec<ClassReport>,
    /// `[K][K]`, a row a true class.
    pub confusion: Vec<Vec<u64>>,
}

impl Report {
    /// Of everything that was counted, in so many seconds for all images but the first.
    #[must_use]
    pub fn new(confusion: &Confusion, classes: &[ClassSpec], (images, seconds): (usize, f64), cost: Cost) -> Self {
        let n = confusion.n_classes();
        let (ious, recalls, scores) = (confusion.ious(), confusion.recalls(), confusion.scores());
        let class = |(idx, class): (usize, &ClassSpec)| ClassReport {
            name: class.name.clone(),
            iou: ious[idx],
            recall: recalls[idx],
            pixels: confusion.n_true(idx),
        };
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let images_per_second = (images.saturating_sub(1)) as f64 / seconds.max(1e-9);
        Self {
            miou: scores.miou,
            pixel_accuracy: scores.pixel_accuracy,
            mean_recall: mean(&recalls),
            images,
            images_per_second,
            cost,
            classes: classes.iter().enumerate().map(class).collect(),
            confusion: (0..n).map(|truth| (0..n).map(|predicted| confusion.count(truth, predicted)).collect()).collect(),
        }
    }
}

impl Cost {
    /// Of a head and its backbone on an image. LiFT's own cost is not in it: `train inspect` has it.
    ///
    /// # Errors
    /// When the image cannot be fitted, in words.
    pub fn new(
        arch: &densevit::manifest::Architecture,
        opened: &Opened,
        recipe: &Recipe,
        image: &RgbImage,
    ) -> Result<Self, String> {
        let fitted = recipe.fitted(image)?;
        let grid = [fitted.height(), fitted.width()].map(|side| u64::from(side / arch.patch.max(1)));
        let card = &opened.card;
        let n_blocks = card.taps.iter().map(|tap| tap.layer + 1).max().unwrap_or_default();
        let downsample = opened.training.downsample.filter(|_| card.form == SegmentForm::Shrunk);
        let of_tap = |layer: u32| match (card.input, downsample.is_some_and(|block| layer >= block)) {
            (SegmentInput::Lift, _) => grid.map(|side| 2 * side),
            (SegmentInput::Backbone, true) => grid.map(|side| side.div_ceil(2)),
            (SegmentInput::Backbone, false) => grid,
        };
        let grids: Vec<[u64; 2]> = card.taps.iter().map(|tap| of_tap(tap.layer)).collect();
        Ok(Self {
            backbone_parameters: arch.parameters,
            head_parameters: opened.n_weights,
            backbone_macs: backbone_macs(arch, grid, n_blocks, downsample),
            head_macs: head_macs(&opened.shape, &grids),
        })
    }
}
