//! Class scores into masks: labels, areas, probabilities, bits, run lengths, outlines, pictures.
//!
//! In: the [`Scores`] of a segmentation head, channels last, and how the model's input lies on the image
//! ([`Geometry`](crate::preprocess::Geometry)). Out: bytes and numbers of whichever kind the caller chose. Pure computation; called by
//! `engine` away from the async threads.
//!
//! ```text
//! windows ─► Mosaic ─┐
//!                    ▼                     ┌► probabilities          f16, whole or in bands of rows
//! FeatureMap ─► Scores ─► Sampler ─────────┼► masks_of_scores ─┐     overlapping
//! Geometry ──► Raster ───────┘             └► label ─► LabelMap ─┬► masks_of_labels ─► BitMask ─┬► Rle
//! ClassSet ──────────────────┘                               │   └► Rle::of_labels             └► polygons
//!                                                            └► label_png, overlay
//! ```
//!
//! # Design
//! Probabilities are brought to the size of the output, labels are chosen there: outlines are as smooth as the scores. Every output
//! takes a [`ClassSet`], and every size is held against [`MaskLimits`] before memory is taken.
//!
//! Innermost loops go through one slice and index the others, cut to its length before: as single steps, `zip` and `chunks_exact_mut` are
//! calls where the compiler does not optimise across its units of code, as in the release profile.

mod error;
mod limits;

// Scores, and where they are taken.
mod class_set;
mod scores;

mod axis;
mod raster;
mod sampler;

mod probabilities;

// One label a pixel.
mod label_map;
mod strip;
mod tally;

mod argmax;

// Masks.
mod bit_mask;
mod exclusive;
mod overlapping;

mod mean;

mod column_runs;
mod rle;

mod coco_string;

// Outlines.
mod outline;
mod simplify;

mod polygon;

// Pictures.
mod palette;

mod label_png;
mod overlay;

// Images larger than the model's training size.
mod window;

mod mosaic;

pub use argmax::{LabelOptions, Labelled, label};
pub use axis::Axis;
pub use bit_mask::BitMask;
pub use class_set::{ClassSet, MAX_CLASSES};
pub use error::MaskError;
pub use exclusive::{mask_of_class, masks_of_labels};
pub use label_map::{LabelMap, Labels, VOID_U8, VOID_U16};
pub use label_png::{LabelFile, label_png, stored_values};
pub use limits::MaskLimits;
pub use mean::mean_scores;
pub use mosaic::Mosaic;
pub use overlapping::masks_of_scores;
pub use overlay::{OverlayStyle, overlay};
pub use palette::{Palette, VOID_COLOR};
pub use polygon::{Polygon, polygons_of_labels, polygons_of_mask};
pub use probabilities::{probabilities, probability_rows};
pub use raster::{MAX_SIDE, Raster};
pub use rle::Rle;
pub use sampler::Sampler;
pub use scores::{MAX_SCORE, Scores};
pub use tally::ClassSummary;
pub use window::{SlidingWindow, Window};
