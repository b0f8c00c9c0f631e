//! Decides the size of the model's input from the size of the image, before there are pixels.

use thiserror::Error;

use crate::{
    manifest::{Interpolation, ResizePolicy},
    preprocess::geometry::Rect,
};

/// How an image becomes the model's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Size of the input.
    pub resize: ResizePolicy,
    /// Kernel of the resize.
    pub interpolation: Interpolation,
    /// Part of the upright image to use, in its pixels.
    pub crop: Option<Rect>,
    /// Both sides of the input are multiples of this, in pixels.
    pub patch: u32,
    /// Colour of what letterboxing leaves free.
    pub fill: [u8; 3],
    /// Limit on rows times columns of the input.
    pub max_input_pixels: u64,
}

/// Why an image cannot be prepared.
#[derive(Debug, Error, PartialEq)]
pub enum PrepareError {
    /// The crop does not touch the image.
    #[error("{crop} does not lie inside the image of {width} x {height} pixels")]
    Crop {
        /// The crop.
        crop: Rect,
        /// Rows of the image.
        height: u32,
        /// Columns of the image.
        width: u32,
    },
    /// A given side is no multiple of the patch size.
    #[error("{height} x {width} (height x width) are no positive multiples of the patch size, {patch}")]
    Multiple {
        /// Request field.
        field: &'static str,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Patch size.
        patch: u32,
    },
    /// The shorter side would be nothing.
    #[error("must be at least 1, not 0")]
    ZeroSide,
    /// The input would be too large.
    #[error("the model's input would have {height:.0} x {width:.0} pixels, the limit is {max} in all (limits.max_input_pixels)")]
    TooLarge {
        /// Request field.
        field: &'static str,
        /// Rows.
        height: f64,
        /// Columns.
        width: f64,
        /// The limit.
        max: u64,
    },
    /// The pixels cannot be resized.
    #[error("cannot resize: {0}")]
    Resize(String),
}

impl PrepareError {
    /// Path of the request field at fault.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Crop { .. } => "preprocess.crop",
            Self::Multiple { field, .. } | Self::TooLarge { field, .. } => field,
            Self::ZeroSide => "preprocess.short_side",
            Self::Resize(_) => "preprocess.resize",
        }
    }
}

/// Rows and columns of the input for an upright image of `height` x `width` pixels.
///
/// # Errors
/// [`PrepareError`] when the recipe does not fit the image or the limit.
pub fn plan_size(height: u32, width: u32, recipe: &Recipe) -> Result<(u32, u32), PrepareError> {
    let used = used_part(height, width, recipe)?;
    let patch = recipe.patch.max(1);
    let field = field(recipe.resize);
    let (rows, cols) = match recipe.resize {
        ResizePolicy::Exact { height, width } | ResizePolicy::Letterbox { height, width } => {
            let fits = |side: u32| side > 0 && side.is_multiple_of(patch);
            if !fits(height) || !fits(width) {
                return Err(PrepareError::Multiple { field, height, width, patch });
            }
            (f64::from(height), f64::from(width))
        }
        ResizePolicy::ShortSide { pixels: 0 } => return Err(PrepareError::ZeroSide),
        ResizePolicy::ShortSide { pixels } => {
            let scale = f64::from(pixels) / used.height.min(used.width);
            (snap(used.height * scale, patch), snap(used.width * scale, patch))
        }
        ResizePolicy::Native => (snap(used.height, patch), snap(used.width, patch)),
    };
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    if rows * cols > recipe.max_input_pixels as f64 || rows.max(cols) > f64::from(u32::MAX) {
        return Err(PrepareError::TooLarge { field, height: rows, width: cols, max: recipe.max_input_pixels });
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers up to u32::MAX")]
    Ok((rows as u32, cols as u32))
}

/// The part of the image that is used, in its pixels: the crop, cut at the borders, or all.
pub(super) fn used_part(height: u32, width: u32, recipe: &Recipe) -> Result<Rect, PrepareError> {
    let whole = Rect { x: 0.0, y: 0.0, width: f64::from(width), height: f64::from(height) };
    match recipe.crop {
        None => Ok(whole),
        Some(crop) => crop.intersection(&whole).ok_or(PrepareError::Crop { crop, height, width }),
    }
}

/// The nearest multiple of `patch`, at least one patch.
fn snap(side: f64, patch: u32) -> f64 {
    let patch = f64::from(patch);
    (side / patch).round().max(1.0) * patch
}

fn field(resize: ResizePolicy) -> &'static str {
    match resize {
        ResizePolicy::Exact { .. } => "preprocess.exact",
        ResizePolicy::ShortSide { .. } => "preprocess.short_side",
        ResizePolicy::Letterbox { .. } => "preprocess.letterbox",
        ResizePolicy::Native => "preprocess.native",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn recipe(resize: ResizePolicy) -> Recipe {
        let interpolation = Interpolation::Bicubic;
        Recipe { resize, interpolation, crop: None, patch: 14, fill: [0; 3], max_input_pixels: 1 << 20 }
    }

    #[test]
    fn sides_snap_to_the_nearest_patch_multiple() {
        let native = recipe(ResizePolicy::Native);
        assert_eq!(plan_size(238, 322, &native), Ok((238, 322)));
        assert_eq!(plan_size(244, 246, &native), Ok((238, 252)));
        assert_eq!(plan_size(3, 3, &native), Ok((14, 14)));
        // 300 x 451 with the shorter side at 448: 448 x 673.5, and 673.5 / 14 = 48.1.
        assert_eq!(plan_size(300, 451, &recipe(ResizePolicy::ShortSide { pixels: 448 })), Ok((448, 672)));
    }

    #[test]
    fn a_crop_is_cut_at_the_border_and_decides_the_size() {
        let crop = Some(Rect { x: 30.0, y: -5.0, width: 100.0, height: 33.0 });
        assert_eq!(plan_size(100, 100, &Recipe { crop, ..recipe(ResizePolicy::Native) }), Ok((28, 70)));
    }

    #[test]
    fn extreme_aspect_ratios_meet_the_limit_and_do_not_overflow() {
        let error = plan_size(1, u32::MAX, &recipe(ResizePolicy::ShortSide { pixels: u32::MAX })).unwrap_err();
        assert_eq!(error.field(), "preprocess.short_side");
        assert!(error.to_string().contains("limits.max_input_pixels"), "{error}");
    }

    proptest! {
        #[test]
        fn planned_sides_are_multiples_within_the_limit(height in 1u32..5000, width in 1u32..5000, side in 1u32..2000) {
            let recipe = recipe(ResizePolicy::ShortSide { pixels: side });
            if let Ok((rows, cols)) = plan_size(height, width, &recipe) {
                prop_assert!(rows >= 14 && cols >= 14 && rows % 14 == 0 && cols % 14 == 0);
                prop_assert!(u64::from(rows) * u64::from(cols) <= recipe.max_input_pixels);
            }
        }
    }
}
