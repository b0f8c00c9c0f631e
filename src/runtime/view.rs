//! What a run is asked for, and which outputs of the graphs that needs.

use std::time::Duration;

use crate::{
    manifest::{Manifest, SegmentInput, SegmenterFile, Tap, io_names},
    tensor::{F32View, FeatureMap},
};

/// Images that can run together: equal size, equal outputs. One run of the backbone gives both features and scores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// Rows of the images, in pixels.
    pub height: u32,
    /// Columns of the images, in pixels.
    pub width: u32,
    /// Which features, if any.
    pub features: Option<FeatureKey>,
    /// Whether the scores of the segmentation head are wanted.
    pub segment: bool,
}

/// Features that are wanted of every image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FeatureKey {
    /// Which activations.
    pub tap: Tap,
    /// How often the map is doubled by the LiFT head.
    pub lift_passes: u32,
    /// Whether the CLS token is wanted too.
    pub cls: bool,
    /// Whether the register tokens are wanted too.
    pub registers: bool,
}

impl RunKey {
    /// The map of `tap` alone, for images of so many rows and columns of pixels.
    #[must_use]
    pub fn features([height, width]: [u32; 2], tap: Tap, lift_passes: u32) -> Self {
        let features = FeatureKey { tap, lift_passes, cls: false, registers: false };
        Self { height, width, features: Some(features), segment: false }
    }

    /// Scores alone, for images of so many rows and columns of pixels.
    #[must_use]
    pub fn segment([height, width]: [u32; 2]) -> Self {
        Self { height, width, features: None, segment: true }
    }

    /// How often the LiFT head doubles the features that were asked for.
    pub(super) fn feature_passes(&self) -> u32 {
        self.features.as_ref().map_or(0, |features| features.lift_passes)
    }

    /// How often the LiFT head runs: the segmentation head may read features after one pass.
    pub(super) fn lift_passes(&self, manifest: &Manifest) -> u32 {
        let reads_lift = self.segmenter(manifest).is_some_and(|segmenter| segmenter.input == SegmentInput::Lift);
        self.feature_passes().max(u32::from(reads_lift))
    }

    /// The segmentation head, if its scores are wanted.
    pub(super) fn segmenter<'a>(&self, manifest: &'a Manifest) -> Option<&'a SegmenterFile> {
        manifest.segmenter.as_ref().filter(|_| self.segment)
    }
}

/// What one image gives.
#[derive(Clone, Debug)]
pub struct RunOutput {
    /// Features, when asked for.
    pub features: Option<Features>,
    /// Scores of the segmentation head, `[u * h, u * w, K]` in \[0, 1\], when asked for; see
    /// [`Manifest::scores_shape`](crate::manifest::Manifest::scores_shape).
    pub scores: Option<FeatureMap>,
    /// Time of the backbone, for the whole batch.
    pub backbone: Duration,
    /// Time of all LiFT passes, for the whole batch.
    pub lift: Duration,
    /// Time of the segmentation head, for the whole batch.
    pub segment: Duration,
}

/// Features of one image.
#[derive(Clone, Debug)]
pub struct Features {
    /// The feature map, `[h * 2^passes, w * 2^passes, C]`.
    pub map: FeatureMap,
    /// The CLS token, `[C]`, when asked for and there is one.
    pub cls: Option<F32View>,
    /// The register tokens, `[R, C]`, when asked for and there are any.
    pub registers: Option<F32View>,
}

/// A part of a graph that computes some outputs: what a session is created for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Of `backbone.onnx`.
    Backbone { outputs: Vec<String> },
    /// Of `lift.onnx`; the image for a next pass is computed only when there is one.
    Lift { is_last: bool },
    /// Of `segment.onnx`.
    Segment,
}

impl View {
    /// The backbone's part for a key: the activations of the features and of the segmentation head, each once.
    pub(super) fn backbone(key: &RunKey, manifest: &Manifest) -> Self {
        let mut outputs = Vec::new();
        if let Some(features) = &key.features {
            outputs.push(io_names::patches(features.tap));
            let has_cls = features.cls && manifest.architecture.has_cls();
            outputs.extend(has_cls.then(|| io_names::cls(features.tap)));
            let has_registers = features.registers && manifest.architecture.registers > 0;
            outputs.extend(has_registers.then(|| io_names::registers(features.tap)));
        }
        for tap in key.segmenter(manifest).iter().flat_map(|segmenter| &segmenter.taps) {
            let name = io_names::patches(*tap);
            if !outputs.contains(&name) {
                outputs.push(name);
            }
        }
        outputs.extend((key.lift_passes(manifest) > 0).then(|| io_names::PIXELS.to_owned()));
        Self::Backbone { outputs }
    }

    /// Names of its outputs.
    pub(super) fn outputs(&self) -> Vec<String> {
        match self {
            Self::Backbone { outputs } => outputs.clone(),
            Self::Lift { is_last } => {
                let mut names = vec![io_names::UPSAMPLED.to_owned()];
                names.extend((!is_last).then(|| io_names::PIXELS_2X.to_owned()));
                names
            }
            Self::Segment => vec![io_names::PROBABILITIES.to_owned()],
        }
    }
}
