//! Fits a request to a model: which activations, how many passes, which resize. Everything that can be refused without
//! looking at the image is refused here.

use crate::{
    engine::{
        InferError,
        limits::{Limits, MAX_LIFT_PASSES},
        request::{FeatureRequest, InputRequest, Part},
    },
    manifest::{Manifest, ResizePolicy, Tap},
    preprocess::Recipe,
};

/// Features that their model can give.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Facet and block.
    pub tap: Tap,
    /// LiFT passes.
    pub lift_passes: u32,
    /// Things the caller should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Fits `request` to the model described by `manifest`.
    ///
    /// # Errors
    /// [`InferError::InvalidArgument`] with the field that does not fit.
    pub fn new(request: &FeatureRequest, manifest: &Manifest, limits: &Limits) -> Result<Self, InferError> {
        let tap = choose_tap(request, manifest)?;
        let lift_passes = choose_lift_passes(request, manifest, tap)?;
        check_tokens(request, manifest)?;
        check_points(request, limits)?;
        let warnings = warnings(lift_passes, manifest.backbone.is_halved(tap));
        Ok(Self { tap, lift_passes, warnings })
    }

    /// Rows and columns of the map for an input of `[height, width]` pixels.
    #[must_use]
    pub fn grid(&self, input: [u32; 2], manifest: &Manifest) -> [usize; 2] {
        manifest.grid(self.tap, input).map(|cells| cells << self.lift_passes)
    }

    /// Values of the map for an input of `height` x `width` pixels, before any part is selected.
    #[must_use]
    pub fn n_output_values(&self, height: u32, width: u32, manifest: &Manifest) -> u64 {
        let [rows, cols] = self.grid([height, width], manifest).map(|cells| cells as u64);
        rows * cols * u64::from(manifest.architecture.width)
    }
}

fn choose_tap(request: &FeatureRequest, manifest: &Manifest) -> Result<Tap, InferError> {
    let backbone = &manifest.backbone;
    let tap =
        Tap { facet: request.facet.unwrap_or(backbone.default.facet), layer: request.layer.unwrap_or(backbone.default.layer) };
    if !backbone.facets.contains(&tap.facet) {
        let offered = list(backbone.facets.iter().map(|facet| facet.name()));
        return Err(InferError::invalid(
            "features.facet",
            format!("{} is not offered by {}: it has {offered}", tap.facet, manifest.name),
        ));
    }
    if !backbone.layers.contains(&tap.layer) {
        let offered = list(backbone.layers.iter());
        return Err(InferError::invalid(
            "features.layer",
            format!("block {} is not offered by {}: it has {offered} (0-based)", tap.layer, manifest.name),
        ));
    }
    Ok(tap)
}

fn choose_lift_passes(request: &FeatureRequest, manifest: &Manifest, tap: Tap) -> Result<u32, InferError> {
    const FIELD: &str = "features.lift_passes";
    let fits = manifest.lift.as_ref().is_some_and(|lift| lift.tap == tap);
    let n_passes = request.lift_passes.unwrap_or(u32::from(fits));
    if n_passes > MAX_LIFT_PASSES {
        return Err(InferError::invalid(FIELD, format!("{n_passes} passes asked for, the limit is {MAX_LIFT_PASSES}")));
    }
    if n_passes > 0 && !fits {
        return Err(InferError::invalid(
            FIELD,
            match &manifest.lift {
                None => format!("{} has no LiFT head: only 0 passes are possible", manifest.name),
                Some(lift) => format!("the LiFT head of {} takes the {} only, not the {tap}", manifest.name, lift.tap),
            },
        ));
    }
    Ok(n_passes)
}

fn check_tokens(request: &FeatureRequest, manifest: &Manifest) -> Result<(), InferError> {
    if request.cls_token && !manifest.architecture.has_cls() {
        return Err(InferError::invalid("features.cls_token", format!("{} has no CLS token", manifest.name)));
    }
    if request.register_tokens && manifest.architecture.registers == 0 {
        return Err(InferError::invalid("features.register_tokens", format!("{} has no register tokens", manifest.name)));
    }
    Ok(())
}

fn check_points(request: &FeatureRequest, limits: &Limits) -> Result<(), InferError> {
    let Part::Points(points) = &request.part else { return Ok(()) };
    if points.len() > limits.max_points as usize {
        return Err(InferError::invalid(
            "features.points",
            format!("{} points asked for, the limit is {} (limits.max_points)", points.len(), limits.max_points),
        ));
    }
    Ok(())
}

/// How the image of a request becomes the model's input; `default` is the policy for requests that name none.
pub(super) fn recipe(request: &InputRequest, manifest: &Manifest, default: ResizePolicy, limits: &Limits) -> Recipe {
    let resize = match manifest.backbone.baked_size {
        // A graph with one baked size takes nothing else; an explicit request for another size is refused by its own check.
        Some([height, width]) if request.resize.is_none() => ResizePolicy::Exact { height, width },
        _ => request.resize.unwrap_or(default),
    };
    Recipe {
        resize,
        interpolation: request.interpolation.unwrap_or(manifest.preprocess.interpolation),
        crop: request.crop,
        patch: manifest.architecture.patch,
        fill: manifest.preprocess.mean.map(mean_colour),
        max_input_pixels: limits.max_input_pixels,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u8")]
fn mean_colour(mean: f32) -> u8 {
    (mean * 255.0).round().clamp(0.0, 255.0) as u8
}

fn warnings(lift_passes: u32, is_halved: bool) -> Vec<String> {
    let beyond = (lift_passes > 2)
        .then(|| format!("{lift_passes} LiFT passes: the head was trained for one; detail beyond two passes is extrapolated"));
    let halved = is_halved.then(|| {
        "the model halves its grid before this block: a cell stands for the patch in the upper left quarter of its area"
            .to_owned()
    });
    beyond.into_iter().chain(halved).collect()
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
