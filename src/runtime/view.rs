//! What a run is asked for, and which outputs of the graphs that needs.

use std::time::Duration;

use crate::{
    manifest::{Tap, io_names},
    tensor::{F32View, FeatureMap},
};

/// Images that can run together: equal size, equal outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// Rows of the images, in pixels.
    pub height: u32,
    /// Columns of the images, in pixels.
    pub width: u32,
    /// Which activations.
    pub tap: Tap,
    /// How often the map is doubled by the LiFT head.
    pub lift_passes: u32,
    /// Whether the CLS token is wanted too.
    pub cls: bool,
    /// Whether the register tokens are wanted too.
    pub registers: bool,
}

/// What one image gives.
#[derive(Clone, Debug)]
pub struct RunOutput {
    /// The feature map, `[h * 2^passes, w * 2^passes, C]`.
    pub map: FeatureMap,
    /// The CLS token, `[C]`, when asked for.
    pub cls: Option<F32View>,
    /// The register tokens, `[R, C]`, when asked for and there are any.
    pub registers: Option<F32View>,
    /// Time of the backbone, for the whole batch.
    pub backbone: Duration,
    /// Time of all LiFT passes, for the whole batch.
    pub lift: Duration,
}

/// A part of a graph that computes some outputs: what a session is created for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Of `backbone.onnx`.
    Backbone { tap: Tap, cls: bool, registers: bool, pixels: bool },
    /// Of `lift.onnx`; the image for a next pass is computed only when there is one.
    Lift { is_last: bool },
}

impl View {
    /// The backbone's part for a key; `has_registers` says whether the graph has any.
    pub(super) fn backbone(key: &RunKey, has_registers: bool) -> Self {
        let (cls, registers, pixels) = (key.cls, key.registers && has_registers, key.lift_passes > 0);
        Self::Backbone { tap: key.tap, cls, registers, pixels }
    }

    /// Names of its outputs, the map first.
    pub(super) fn outputs(self) -> Vec<String> {
        match self {
            Self::Backbone { tap, cls, registers, pixels } => {
                let mut names = vec![io_names::patches(tap)];
                names.extend(cls.then(|| io_names::cls(tap)));
                names.extend(registers.then(|| io_names::registers(tap)));
                names.extend(pixels.then(|| io_names::PIXELS.to_owned()));
                names
            }
            Self::Lift { is_last } => {
                let mut names = vec![io_names::UPSAMPLED.to_owned()];
                names.extend((!is_last).then(|| io_names::PIXELS_2X.to_owned()));
                names
            }
        }
    }
}
