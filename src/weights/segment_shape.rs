//! Sizes of a segmentation head: all that its number of weights and its cost depend on. Read from weights by the importer, made from
//! settings by the trainer.

use crate::manifest::SegmentForm;

/// Sizes of a segmentation head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentShape {
    /// Form of the head.
    pub form: SegmentForm,
    /// Channels of the taps (C).
    pub channels: usize,
    /// Channels of the decoder (D); C in linear heads.
    pub width: usize,
    /// Classes (K).
    pub n_classes: usize,
    /// Taps, each with a stage of its own (S).
    pub n_taps: usize,
    /// Layers a stage (L).
    pub n_layers: usize,
    /// Rows and columns of the learned queries of the shrunk form.
    pub query_grid: Option<[usize; 2]>,
}

impl SegmentShape {
    /// A published decoder: three layers a stage, half the backbone's channels.
    #[must_use]
    pub fn segvit(channels: usize, n_classes: usize, n_taps: usize) -> Self {
        let (form, width) = (SegmentForm::Segvit, channels / 2);
        Self { form, channels, width, n_classes, n_taps, n_layers: 3, query_grid: None }
    }

    /// A published decoder of the shrunk form, for two taps; `query_grid` is the patch grid of the training.
    #[must_use]
    pub fn shrunk(channels: usize, n_classes: usize, query_grid: [usize; 2]) -> Self {
        Self { form: SegmentForm::Shrunk, query_grid: Some(query_grid), ..Self::segvit(channels, n_classes, 2) }
    }

    /// A linear head.
    #[must_use]
    pub fn linear(channels: usize, n_classes: usize) -> Self {
        let form = SegmentForm::Linear;
        Self { form, channels, width: channels, n_classes, n_taps: 1, n_layers: 0, query_grid: None }
    }

    /// Trainable numbers of a decoder layer: three norms, eight attention layers, a feed-forward network of four times the width.
    #[must_use]
    pub fn n_layer_parameters(&self) -> u64 {
        let width = self.width as u64;
        let (norms, attention, ffn) = (6 * width, 8 * (width * width + width), 8 * width * width + 5 * width);
        norms + attention + ffn
    }

    /// Trainable numbers, BatchNorm statistics not counted: 22,303,255 for the published head on ViT-B/16 and 150 classes.
    #[must_use]
    pub fn n_parameters(&self) -> u64 {
        let [channels, width, n_classes] = [self.channels, self.width, self.n_classes].map(|extent| extent as u64);
        let classes = n_classes * width + (n_classes + 1) * (width + 1);
        let layers = self.n_layers as u64 * self.n_layer_parameters();
        let stages = self.n_taps as u64 * (channels * width + 3 * width + layers);
        let query_map = self.query_grid.map_or(0, |[rows, cols]| (rows * cols) as u64 * width);
        match self.form {
            SegmentForm::Segvit => stages + classes,
            SegmentForm::Shrunk => query_map + stages + layers + classes,
            SegmentForm::Linear => 2 * channels + n_classes * (channels + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_those_of_the_published_heads() {
        let (base, large) = (SegmentShape::segvit(768, 150, 3), SegmentShape::segvit(1024, 150, 3));
        assert_eq!((base.n_layer_parameters(), large.n_layer_parameters()), (2_366_592, 4_204_032));
        assert_eq!((base.n_parameters(), large.n_parameters()), (22_303_255, 39_568_023));
        // 640 px, patches of 16.
        assert_eq!(SegmentShape::shrunk(1024, 150, [40, 40]).n_parameters(), 39_861_399);
        assert_eq!(SegmentShape::linear(384, 11).n_parameters(), 384 * 2 + 384 * 11 + 11);
    }
}
