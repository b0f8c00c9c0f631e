//! What the module refuses beyond, so that one request cannot take the memory of all.

use serde::{Deserialize, Serialize};

/// Bounds on what is made of one image's scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskLimits {
    /// Pixels of an output (rows x cols). Default 50 million, as many as an image may have.
    pub max_pixels: u64,
    /// Scores held at once: class probabilities of one answer, or the common score map of sliding windows (rows x cols x classes).
    /// Default 134,217,728 (256 MiB as f16).
    pub max_values: u64,
    /// Bit-packed masks of one answer, all classes together, in bytes. Default 256 MiB.
    pub max_mask_bytes: u64,
    /// Corners of the outlines of one answer, all classes together, before simplification. Default 1,048,576.
    pub max_points: u64,
    /// Sliding windows of one image. Default 256.
    pub max_windows: u64,
}

impl Default for MaskLimits {
    fn default() -> Self {
        Self { max_pixels: 50_000_000, max_values: 1 << 27, max_mask_bytes: 256 << 20, max_points: 1 << 20, max_windows: 256 }
    }
}
