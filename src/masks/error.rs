//! Why scores do not become masks.

use std::io;

use thiserror::Error;

use crate::{
    masks::{class_set::MAX_CLASSES, raster::MAX_SIDE, scores::MAX_SCORE},
    preprocess::Rect,
};

/// A step between scores and bytes that failed.
#[derive(Debug, Error)]
pub enum MaskError {
    /// The model answered with something that is no score.
    #[error("the score of class {class} at cell ({row}, {col}) is {value}, no number between -{MAX_SCORE:e} and {MAX_SCORE:e}")]
    Score {
        /// Row of the score map.
        row: usize,
        /// Column of the score map.
        col: usize,
        /// Class.
        class: usize,
        /// The value.
        value: f32,
    },
    /// No class, or more than labels can tell apart.
    #[error("there must be 1 to {MAX_CLASSES} classes, not {n_classes}")]
    ClassCount {
        /// Classes.
        n_classes: usize,
    },
    /// A class that the model does not know.
    #[error("class {class} does not exist: the model has classes 0 to {}", .n_classes.saturating_sub(1))]
    UnknownClass {
        /// The class.
        class: usize,
        /// Classes of the model.
        n_classes: usize,
    },
    /// A class twice in a set.
    #[error("class {class} is named twice")]
    RepeatedClass {
        /// The class.
        class: usize,
    },
    /// A set of classes for another number of classes than the data has.
    #[error("the set was made for {expected} classes, there are {n_classes}")]
    ForeignClasses {
        /// Classes that the set was made for.
        expected: usize,
        /// Classes of the scores, labels or colours.
        n_classes: usize,
    },
    /// Positions that are no numbers.
    #[error("positions of offset {offset} and step {step} are not finite")]
    Axis {
        /// Position of the first output.
        offset: f64,
        /// Distance of two outputs.
        step: f64,
    },
    /// A part of an image that has no area, or whose corners are no numbers.
    #[error("{part} is no part of an image")]
    Part {
        /// The part.
        part: Rect,
    },
    /// An output, or a mask, without pixels.
    #[error("{rows} x {cols} (height x width) holds no pixels")]
    Empty {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// An output of too long a side.
    #[error("an output of {rows} x {cols} pixels (height x width) is too long, the limit is {MAX_SIDE} on either side")]
    TooLong {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// An output of too many pixels.
    #[error(
        "an output of {rows} x {cols} pixels (height x width) is too large, the limit is {max} in all (limits.masks.max_pixels)"
    )]
    TooManyPixels {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// The limit.
        max: u64,
    },
    /// Too many scores at once.
    #[error(
        "{rows} x {cols} pixels of {n_classes} classes are too many values, the limit is {max} in all (limits.masks.max_values)"
    )]
    TooManyValues {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Classes.
        n_classes: usize,
        /// The limit.
        max: u64,
    },
    /// Too many masks at once.
    #[error(
        "{n_masks} masks of {rows} x {cols} pixels are too large, the limit is {max} bytes in all (limits.masks.max_mask_bytes)"
    )]
    TooManyMasks {
        /// Masks.
        n_masks: usize,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// The limit.
        max: u64,
    },
    /// Outlines of too many corners.
    #[error("the outlines have too many corners, the limit is {max} (limits.masks.max_points)")]
    TooManyPoints {
        /// The limit.
        max: u64,
    },
    /// Too many windows.
    #[error("the image needs {n_windows} windows, the limit is {max} (limits.masks.max_windows)")]
    TooManyWindows {
        /// Windows.
        n_windows: u64,
        /// The limit.
        max: u64,
    },
    /// Rows that the output does not have.
    #[error("rows {begin} to {end} do not lie inside an output of {rows} rows")]
    Rows {
        /// First.
        begin: usize,
        /// Behind the last.
        end: usize,
        /// Rows of the output.
        rows: usize,
    },
    /// A threshold that is no number.
    #[error("a threshold must be a number")]
    Threshold,
    /// A tolerance that is no distance.
    #[error("a tolerance must be a number of pixels from 0, not {tolerance_px}")]
    Tolerance {
        /// The tolerance.
        tolerance_px: f64,
    },
    /// An opacity that is no share.
    #[error("an opacity must lie between 0 and 1, not be {opacity}")]
    Opacity {
        /// The opacity.
        opacity: f32,
    },
    /// Data whose length does not fit its size.
    #[error("{what} of {rows} x {cols} (height x width) cannot have {len} entries")]
    Length {
        /// What the data should be.
        what: &'static str,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Entries that there are.
        len: usize,
    },
    /// A label that is neither a class nor void.
    #[error("label {label} is neither one of {n_classes} classes nor void")]
    Label {
        /// The label.
        label: u16,
        /// Classes of the map.
        n_classes: usize,
    },
    /// Run lengths that do not describe a mask.
    #[error("the run lengths do not describe a mask of {rows} x {cols} (height x width): {reason}")]
    Rle {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Two things of one image that have different sizes.
    #[error("{what} has {rows} x {cols} pixels (height x width), the labels have {label_rows} x {label_cols}")]
    SizeMismatch {
        /// What is not as large as the labels.
        what: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
        /// Rows of the labels.
        label_rows: usize,
        /// Columns of the labels.
        label_cols: usize,
    },
    /// A size of a sliding window that does not fit patches.
    #[error(
        "the {what} of a sliding window, {height} x {width} (height x width), is no positive multiple of the patch size, {patch}"
    )]
    Multiple {
        /// Image, window or stride.
        what: &'static str,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Patch size.
        patch: u32,
    },
    /// A stride that leaves gaps between windows.
    #[error("a stride of {stride} pixels leaves gaps between windows of {window}")]
    Stride {
        /// Distance of two windows.
        stride: u32,
        /// Side of a window.
        window: u32,
    },
    /// A window whose borders do not lie between cells of the common score map.
    #[error("a window of {height} x {width} pixels at ({x}, {y}) does not cover whole cells of the score map")]
    Window {
        /// Left.
        x: u32,
        /// Top.
        y: u32,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
    /// A part of the image that no window covered.
    #[error("no window covered cell ({row}, {col})")]
    Uncovered {
        /// Row of the score map.
        row: usize,
        /// Column of the score map.
        col: usize,
    },
    /// A thread that the system did not give.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Labels that are no PNG, or a damaged one.
    #[error("the labels are no readable PNG file: {0}")]
    Unreadable(png::DecodingError),
    /// A PNG of colours.
    #[error("the PNG file holds colours, not one label a pixel: save it as palette or grey")]
    Colours,
    /// A PNG that was not written.
    #[error("cannot encode the labels as PNG")]
    Png(#[source] png::EncodingError),
}

impl MaskError {
    /// Whether a size was above its limit: the caller asked for too much.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TooLong { .. }
                | Self::TooManyPixels { .. }
                | Self::TooManyValues { .. }
                | Self::TooManyMasks { .. }
                | Self::TooManyPoints { .. }
        )
    }
}
