//! The three forms of a segmentation head: SegViT's attention-to-mask decoder, its Shrunk form, a linear layer.

use tch::{
    Tensor,
    nn::{self, Module as _, ModuleT as _},
};

use crate::segmentation::{
    layers::{Attended, Projection, Stage, Widths, linear},
    output::{Masks, Output, upsampled},
};

/// SegViT: a stage a tap, deepest first, masks accumulated over the stages, class queries handed on.
#[derive(Debug)]
pub struct Segvit {
    projections: Vec<Projection>,
    stages: Vec<Stage>,
    classifier: Classifier,
}

/// SegViT Shrunk: learned queries of a full grid read the taps in natural order (QU), and one stage decodes them.
#[derive(Debug)]
pub struct Shrunk {
    /// `[D, rows, cols]`.
    queries: Tensor,
    projections: Vec<Projection>,
    upsamplers: Vec<Stage>,
    stage: Stage,
    classifier: Classifier,
}

/// BatchNorm and 1x1 convolution on one tap.
#[derive(Debug)]
pub struct Linear {
    norm: nn::BatchNorm,
    linear: nn::Linear,
}

/// The learned class queries, and what makes classes of them.
#[derive(Debug)]
struct Classifier {
    /// `[K, D]`.
    queries: Tensor,
    linear: nn::Linear,
}

impl Classifier {
    fn new(root: &nn::Path<'_>, n_classes: i64, width: i64) -> Self {
        let queries = (root / "q").randn_standard("weight", &[n_classes, width]);
        Self { queries, linear: linear(root / "class_embed", width, n_classes + 1) }
    }

    /// `[B, K, D]`.
    fn begin(&self, batch: i64) -> Tensor {
        self.queries.unsqueeze(0).expand([batch, -1, -1], false)
    }

    /// Class and mask logits of a grid.
    fn masks(&self, attended: &Attended, [rows, cols]: [i64; 2]) -> Masks {
        let size = attended.masks.size();
        Masks { classes: self.linear.forward(&attended.queries), masks: attended.masks.view([size[0], size[1], rows, cols]) }
    }
}

impl Segvit {
    /// Fresh weights.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, n_taps: usize, channels: i64, n_classes: i64, widths: Widths) -> Self {
        Self {
            projections: (1..=n_taps).map(|idx| Projection::new(root, idx, channels, widths.width)).collect(),
            stages: (1..=n_taps).map(|idx| Stage::new(&(root / format!("decoder_{idx}")), widths)).collect(),
            classifier: Classifier::new(root, n_classes, widths.width),
        }
    }

    /// Reads the taps, deepest first; one output a stage, the last is the prediction.
    ///
    /// # Shapes
    /// - `maps`: `[B, h, w, C]` each; grids may differ
    pub fn forward(&self, maps: &[Tensor], train: bool) -> Output {
        let (batch, grid) = maps.last().map_or((0, [0, 0]), |map| (map.size()[0], grid(map)));
        let mut queries = self.classifier.begin(batch);
        let mut sum: Option<Tensor> = None;
        let mut outputs = Vec::with_capacity(maps.len());
        for ((map, projection), stage) in maps.iter().zip(&self.projections).zip(&self.stages) {
            let Some(last) = stage.masks(&queries, &projection.forward(map), train).pop() else { continue };
            let mut masks = self.classifier.masks(&last, self::grid(map));
            let own = upsampled(&masks.masks, grid);
            masks.masks = sum.map_or_else(|| own.shallow_clone(), |sum| sum + &own);
            sum = Some(masks.masks.shallow_clone());
            queries = last.queries;
            outputs.push(masks);
        }
        Output::Masks(outputs)
    }
}

impl Shrunk {
    /// Fresh weights for a training grid of so many rows and columns.
    #[must_use]
    pub fn new(
        root: &nn::Path<'_>,
        (n_taps, channels, n_classes): (usize, i64, i64),
        [rows, cols]: [i64; 2],
        widths: Widths,
    ) -> Self {
        let qu = root / "qu";
        Self {
            queries: qu.randn_standard("query", &[widths.width, rows, cols]),
            projections: (1..=n_taps).map(|idx| Projection::new(&qu, idx, channels, widths.width)).collect(),
            upsamplers: (1..=n_taps).map(|idx| Stage::new(&(&qu / format!("decoder_{idx}")), widths)).collect(),
            stage: Stage::new(&(root / "decoder_1"), widths),
            classifier: Classifier::new(root, n_classes, widths.width),
        }
    }

    /// Reads the taps in natural order; one output a layer, the last is the prediction. Masks have the grid of the first map.
    ///
    /// # Shapes
    /// - `maps`: `[B, h, w, C]` each; grids may differ
    pub fn forward(&self, maps: &[Tensor], train: bool) -> Output {
        let (batch, grid) = maps.first().map_or((0, [0, 0]), |map| (map.size()[0], grid(map)));
        let queries = upsampled(&self.queries.unsqueeze(0), grid).flatten(2, 3).transpose(1, 2);
        let mut features = queries.expand([batch, -1, -1], false);
        for ((map, projection), stage) in maps.iter().zip(&self.projections).zip(&self.upsamplers) {
            features = stage.queries(&features, &projection.forward(map), train);
        }
        let attended = self.stage.masks(&self.classifier.begin(batch), &features, train);
        Output::Masks(attended.iter().map(|layer| self.classifier.masks(layer, grid)).collect())
    }
}

impl Linear {
    /// Fresh weights.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, channels: i64, n_classes: i64) -> Self {
        let norm = crate::head::batch_norm(root / "norm", channels);
        Self { norm, linear: linear(root / "linear", channels, n_classes) }
    }

    /// Reads the one tap.
    ///
    /// # Shapes
    /// - `map`: `[B, h, w, C]`
    pub fn forward(&self, map: &Tensor, train: bool) -> Output {
        let normed = self.norm.forward_t(&map.permute([0, 3, 1, 2]), train);
        Output::Logits(self.linear.forward(&normed.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]))
    }
}

/// Rows and columns of a map `[B, h, w, C]`.
fn grid(map: &Tensor) -> [i64; 2] {
    let size = map.size();
    [size[1], size[2]]
}
