//! Fits a segmentation request to a model. Everything that can be refused without decoding the image is refused here.

use crate::{
    engine::{
        InferError, Limits,
        input::Sizes,
        plan::recipe,
        request::InputRequest,
        segment::request::{MaskFormat, MaskRequest, MaskSize, WindowRequest},
    },
    manifest::{Manifest, ResizePolicy, SegmenterFile},
    masks::{ClassSet, SlidingWindow, Window},
    preprocess::Recipe,
};

/// Inputs of up to so many times the pixels of the training size are one window, unless the caller says otherwise.
const ONE_WINDOW: u64 = 4;

/// A request that fits its model.
#[derive(Clone, Debug)]
pub(super) struct SegmentPlan {
    /// The wanted classes.
    pub(super) classes: ClassSet,
    /// Image preparation.
    pub(super) recipe: Recipe,
    windows: WindowRequest,
    /// Rows and columns that the head was trained on.
    trained: Option<[u32; 2]>,
    patch: u32,
}

/// Size and distance of the windows on an input, `[rows, cols]` in pixels; equal to the input for one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    size: [u32; 2],
    stride: [u32; 2],
}

impl SegmentPlan {
    /// Fits `request` to the model described by `manifest`.
    pub(super) fn new(
        input: &InputRequest,
        masks: &MaskRequest,
        manifest: &Manifest,
        limits: &Limits,
    ) -> Result<Self, InferError> {
        let head = manifest
            .segmenter
            .as_ref()
            .ok_or_else(|| InferError::invalid("model.name", format!("{} has no segmentation head", manifest.name)))?;
        let trained = head.size;
        let default =
            trained.map_or(manifest.preprocess.resize, |[height, width]| ResizePolicy::ShortSide { pixels: height.min(width) });
        Ok(Self {
            classes: choose_classes(masks, head, &manifest.name)?,
            recipe: recipe(input, manifest, default, limits),
            windows: masks.windows,
            trained,
            patch: manifest.architecture.patch.max(1),
        })
    }

    /// The windows on an input of `[rows, cols]` pixels: only one when features are wanted of the same run.
    pub(super) fn windows(&self, input: [u32; 2], has_features: bool, limits: &Limits) -> Result<Vec<Window>, InferError> {
        let Tiling { size, stride } = self.tiling(input)?;
        let sliding = SlidingWindow { window: size, stride, patch: self.patch };
        let windows = sliding.windows(input, &limits.masks);
        let windows = windows.map_err(|error| InferError::invalid("masks.windows", error.to_string()))?;
        if has_features && windows.len() > 1 {
            let message = format!("cannot go with {} windows: set masks.windows.whole, or ask for features alone", windows.len());
            return Err(InferError::invalid("features", message));
        }
        Ok(windows)
    }

    /// Memory of scores and masks, in bytes.
    pub(super) fn n_bytes(
        &self,
        sizes: Sizes,
        masks: &MaskRequest,
        manifest: &Manifest,
        limits: &Limits,
    ) -> Result<u64, InferError> {
        let shape = manifest.scores_shape([sizes.input.0, sizes.input.1]).unwrap_or_default().map(|side| side as u64);
        let n_scores = shape.iter().product::<u64>();
        if n_scores > limits.max_output_values {
            let message =
                format!("there would be {n_scores} scores, the limit is {} (limits.max_output_values)", limits.max_output_values);
            return Err(InferError::invalid("preprocess", message));
        }
        let n_pixels = match masks.size {
            MaskSize::Image => u64::from(sizes.image.0) * u64::from(sizes.image.1),
            MaskSize::Scores => shape[0] * shape[1],
        };
        let n_classes = self.classes.classes().len() as u64;
        let of_a_pixel = |n_bits: u64| n_pixels.saturating_mul(n_bits).div_ceil(8);
        // Labels, and what they become: halves a class, bits a class, or about as much as the labels.
        let of_format = match masks.format {
            MaskFormat::Scores => of_a_pixel(16 * n_classes),
            MaskFormat::Bits | MaskFormat::Rle | MaskFormat::Polygons => of_a_pixel(n_classes),
            MaskFormat::Labels if masks.with_scores => of_a_pixel(8 + 16 * n_classes),
            MaskFormat::Labels | MaskFormat::Png | MaskFormat::Nothing => n_pixels,
        };
        Ok((8 * n_scores).saturating_add(2 * n_pixels).saturating_add(of_format))
    }

    /// Size and distance of windows on an input of `[rows, cols]` pixels.
    fn tiling(&self, input: [u32; 2]) -> Result<Tiling, InferError> {
        let whole = Tiling { size: input, stride: input };
        let n_pixels = |size: [u32; 2]| u64::from(size[0]) * u64::from(size[1]);
        let (size, stride) = match (self.windows, self.trained) {
            (WindowRequest::Whole, _) | (WindowRequest::Automatic, None) => return Ok(whole),
            (WindowRequest::Automatic, Some(trained)) if n_pixels(input) <= ONE_WINDOW * n_pixels(trained) => return Ok(whole),
            (WindowRequest::Automatic, trained) => (trained, None),
            (WindowRequest::Tiles { size, stride }, trained) => (size.or(trained), stride),
        };
        let Some(size) = size else {
            let message = "is required: the head does not say what size it was trained on";
            return Err(InferError::invalid("masks.windows.size", message));
        };
        self.check_multiple("masks.windows.size", size)?;
        let size = [0, 1].map(|axis| size[axis].min(input[axis]));
        let two_thirds = size.map(|side| (side * 2 / 3 / self.patch).max(1) * self.patch);
        let stride = stride.unwrap_or(two_thirds);
        self.check_multiple("masks.windows.stride", stride)?;
        let stride = [0, 1].map(|axis| stride[axis].min(size[axis]));
        Ok(Tiling { size, stride })
    }

    fn check_multiple(&self, field: &str, [rows, cols]: [u32; 2]) -> Result<(), InferError> {
        let is_whole = |side: u32| side > 0 && side.is_multiple_of(self.patch);
        if is_whole(rows) && is_whole(cols) {
            return Ok(());
        }
        let message = format!("{rows} x {cols} (height x width): both sides must be multiples of the patch size, {}", self.patch);
        Err(InferError::invalid(field, message))
    }
}

/// Named and numbered classes together, each once; all classes when none is asked for.
fn choose_classes(request: &MaskRequest, head: &SegmenterFile, model: &str) -> Result<ClassSet, InferError> {
    let failed = |error: crate::masks::MaskError| InferError::invalid("masks.class_indices", error.to_string());
    if request.classes.is_empty() && request.class_indices.is_empty() {
        return ClassSet::all(head.classes.len()).map_err(failed);
    }
    let mut wanted: Vec<usize> = Vec::with_capacity(request.classes.len() + request.class_indices.len());
    for (idx, name) in request.classes.iter().enumerate() {
        let found = head.classes.iter().position(|class| class.name == *name);
        wanted.push(found.ok_or_else(|| {
            InferError::invalid(
                format!("masks.classes[{idx}]"),
                format!("{model} knows no class \"{name}\": GetModel lists them"),
            )
        })?);
    }
    wanted.extend(request.class_indices.iter().map(|index| *index as usize));
    ClassSet::new(&wanted, head.classes.len()).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::manifest::Interpolation;

    fn plan(windows: WindowRequest, trained: Option<[u32; 2]>) -> SegmentPlan {
        let recipe = Recipe {
            resize: ResizePolicy::Native,
            interpolation: Interpolation::Bilinear,
            crop: None,
            patch: 14,
            fill: [0; 3],
            max_input_pixels: 1 << 20,
        };
        SegmentPlan { classes: ClassSet::all(3).unwrap(), recipe, windows, trained, patch: 14 }
    }

    #[test]
    fn windows_begin_where_an_input_has_more_than_four_times_the_training_pixels() {
        let plan = plan(WindowRequest::Automatic, Some([140, 280]));
        let whole = Tiling { size: [280, 560], stride: [280, 560] };
        assert_eq!(plan.tiling([280, 560]).unwrap(), whole);
        // Two thirds of 140 and 280, in whole patches.
        assert_eq!(plan.tiling([294, 560]).unwrap(), Tiling { size: [140, 280], stride: [84, 182] });
    }

    #[test]
    fn windows_never_exceed_the_input() {
        let tiles = WindowRequest::Tiles { size: Some([280, 280]), stride: Some([280, 140]) };
        assert_eq!(plan(tiles, None).tiling([140, 560]).unwrap(), Tiling { size: [140, 280], stride: [140, 140] });
    }

    #[test]
    fn sizes_between_patches_and_missing_sizes_are_named() {
        let field = |size, stride| {
            let tiles = WindowRequest::Tiles { size, stride };
            plan(tiles, None).tiling([140, 140]).unwrap_err().field().map(str::to_owned)
        };
        assert_eq!(field(None, None).as_deref(), Some("masks.windows.size"));
        assert_eq!(field(Some([100, 140]), None).as_deref(), Some("masks.windows.size"));
        assert_eq!(field(Some([140, 140]), Some([0, 14])).as_deref(), Some("masks.windows.stride"));
    }
}
