//! The beginning of a video in the engine's own terms, and what may be asked of it.

use bytes::Bytes;

use crate::{
    correspond::{PropagateOptions, Propagator, Shares},
    engine::{
        ClassMask, FeatureRequest, InferError, InputRequest, Limits, MapInfo, MaskFormat, MaskSize, Segmented, map::ImageMap,
        propagate::labels::MAX_LABELS,
    },
};

/// Most of each option.
const MAX_CONTEXT_FRAMES: usize = 32;
const MAX_RADIUS: usize = 128;
const MAX_TOP_K: usize = 64;
/// Least and largest temperature: below, only the best cell counts in single precision.
const TEMPERATURES: std::ops::RangeInclusive<f32> = 0.001..=10.0;
/// Most pairs of cells that are compared for one frame: some seconds of one core at 384 channels.
const MAX_PAIRS: usize = 1 << 27;

/// The first frame of a video, and its labels.
#[derive(Clone, Debug)]
pub struct PropagateRequest {
    /// The first frame, and how all are prepared.
    pub input: InputRequest,
    /// The maps; without LiFT where it says nothing of it.
    pub features: FeatureRequest,
    /// Labels of the first frame.
    pub labels: FirstLabels,
    /// How labels are carried on.
    pub options: PropagateOptions,
    /// What the label of a pixel is chosen by.
    pub shares: Shares,
    /// What the answers look like; all but [`MaskFormat::Scores`].
    pub format: MaskFormat,
    /// Their raster; [`MaskSize::Scores`] are the cells of the map.
    pub size: MaskSize,
}

/// Labels of a frame, one a pixel of the upright image.
#[derive(Clone, Debug)]
pub enum FirstLabels {
    /// `[height, width]` u8.
    Raw(Bytes),
    /// A PNG file of palette or grey.
    Png(Bytes),
    /// Bits or run lengths, whose indices are the labels; the last one counts, and where there is none the label is 0.
    Masks(Vec<ClassMask>),
}

/// The first frame as its map resolves it.
#[derive(Debug)]
pub struct FirstFrame {
    /// Its labels.
    pub masks: Segmented,
    /// Its map.
    pub map: MapInfo,
}

/// The map of a frame whose turn has not come.
#[derive(Debug)]
pub struct FrameMap(pub(super) ImageMap);

impl PropagateRequest {
    /// Refuses numbers out of range.
    pub(super) fn check(&self) -> Result<(), InferError> {
        let PropagateOptions { n_frames, radius, top_k, temperature } = self.options;
        let within = |field, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InferError::invalid(field, format!("{value} lies outside {low} to {high}")))
        };
        within("options.context_frames", n_frames, 0, MAX_CONTEXT_FRAMES)?;
        within("options.radius", radius, 1, MAX_RADIUS)?;
        within("options.top_k", top_k, 1, MAX_TOP_K)?;
        if !TEMPERATURES.contains(&temperature) {
            let (low, high) = (TEMPERATURES.start(), TEMPERATURES.end());
            return Err(InferError::invalid("options.temperature", format!("{temperature} lies outside [{low}, {high}]")));
        }
        if self.format == MaskFormat::Scores {
            return Err(InferError::invalid("format", "must be LABELS, PNG, BITS, RLE, POLYGONS or NONE"));
        }
        Ok(())
    }
}

/// Refuses videos whose frames would take too long or too much memory.
pub(super) fn check_work(
    options: &PropagateOptions,
    [rows, cols]: [usize; 2],
    n_channels: usize,
    limits: &Limits,
) -> Result<(), InferError> {
    let n_pairs = options.n_pairs([rows, cols]);
    if n_pairs > MAX_PAIRS {
        let message = format!(
            "on maps of {rows} x {cols} cells, {} frames and a radius of {} make {n_pairs} pairs of cells a frame, the limit is {MAX_PAIRS}: ask for a \
             smaller input, radius or context",
            options.n_frames, options.radius
        );
        return Err(InferError::invalid("options", message));
    }
    let n_values = Propagator::n_values(options, rows * cols, n_channels, MAX_LABELS);
    if n_values as u64 > limits.max_output_values {
        let message = format!(
            "{} maps of {rows} x {cols} cells would be kept, {n_values} values in all, the limit is {} (limits.max_output_values)",
            options.n_frames, limits.max_output_values
        );
        return Err(InferError::invalid("options.context_frames", message));
    }
    Ok(())
}
