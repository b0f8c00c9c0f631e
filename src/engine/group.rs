//! Requests of several images whose answers become one tensor each.
//!
//! # Design
//! Each image is a job of its own, so that images of one request run with each other and with those of other requests, as the batcher
//! sees fit. What cannot become one tensor, because images differ in size, or would become too large a one, is refused from the
//! images' headers, before any of them is decoded. The first image that fails ends the request: the others leave the queue.

use std::sync::Arc;

use futures_util::future::try_join_all;

use crate::{
    engine::{
        Clock, Engine, ExtractRequest, Extracted, FeatureRequest, InferError, LoadedModel, MaskSize, Plan, SegmentRequest,
        Segmented, Timing, input::Sizes, plan::recipe, request::InputRequest, segment::mask_recipe,
    },
    manifest::Manifest,
    preprocess::Recipe,
};

/// Why a request of several images failed.
#[derive(Debug)]
pub struct GroupError {
    /// The image at fault, when the error is one of an image.
    pub idx: usize,
    /// What is wrong.
    pub error: InferError,
}

impl Engine {
    /// Extracts features of images whose requests differ in nothing else; the maps have one shape.
    ///
    /// # Errors
    /// [`GroupError`] of the first image that fails.
    pub async fn extract_group(
        self: &Arc<Self>,
        model: &Arc<LoadedModel>,
        requests: Vec<ExtractRequest>,
        clock: Clock,
    ) -> Result<Vec<Extracted>, GroupError> {
        let n_images = requests.len();
        let outcome = match self.check_maps(model, &requests) {
            Ok(()) => all(requests.into_iter().map(|request| self.answer(model, request, clock))).await,
            Err(error) => Err(error),
        };
        let slowest = outcome.as_ref().ok().and_then(|done| slowest(done.iter().map(|done| &done.timing)));
        model.statistics().request(n_images, clock.arrived.elapsed(), slowest);
        outcome
    }

    /// Segments images whose requests differ in nothing else; the rasters have one shape.
    ///
    /// # Errors
    /// [`GroupError`] of the first image that fails.
    pub async fn segment_group(
        self: &Arc<Self>,
        model: &Arc<LoadedModel>,
        requests: Vec<SegmentRequest>,
        clock: Clock,
    ) -> Result<Vec<Segmented>, GroupError> {
        let n_images = requests.len();
        let outcome = match self.check_rasters(model, &requests) {
            Ok(()) => all(requests.into_iter().map(|request| self.answer(model, request, clock))).await,
            Err(error) => Err(error),
        };
        let slowest = outcome.as_ref().ok().and_then(|done| slowest(done.iter().map(|done| &done.timing)));
        model.statistics().request(n_images, clock.arrived.elapsed(), slowest);
        outcome
    }

    fn check_maps(&self, model: &LoadedModel, requests: &[ExtractRequest]) -> Result<(), GroupError> {
        let [first, _, ..] = requests else { return Ok(()) };
        let manifest = model.manifest();
        let recipe = recipe(&first.input, manifest, manifest.preprocess.resize, self.limits());
        let sizes = self.equal_sizes(requests.iter().map(|request| &request.input), &recipe, false)?;
        self.check_features(&first.features, manifest, sizes, requests.len() as u64)
    }

    /// Maps of so many images must fit into one answer.
    fn check_features(
        &self,
        features: &FeatureRequest,
        manifest: &Manifest,
        sizes: Sizes,
        n_images: u64,
    ) -> Result<(), GroupError> {
        let plan = Plan::new(features, manifest, self.limits()).map_err(of_all)?;
        let n_values = plan.n_output_values(sizes.input.0, sizes.input.1, manifest).saturating_mul(n_images);
        check_values("features", "the maps", n_values, self.limits().max_output_values, "limits.max_output_values")
    }

    fn check_rasters(&self, model: &LoadedModel, requests: &[SegmentRequest]) -> Result<(), GroupError> {
        let [first, _, ..] = requests else { return Ok(()) };
        let manifest = model.manifest();
        let recipe = mask_recipe(&first.input, &first.masks, manifest, self.limits()).map_err(of_all)?;
        let of_image = first.masks.size == MaskSize::Image;
        let sizes = self.equal_sizes(requests.iter().map(|request| &request.input), &recipe, of_image)?;
        let [rows, cols, n_classes] = manifest.scores_shape([sizes.input.0, sizes.input.1]).unwrap_or_default();
        let n_pixels = if of_image { u64::from(sizes.image.0) * u64::from(sizes.image.1) } else { rows as u64 * cols as u64 };
        let n_values = if first.masks.with_scores { n_pixels.saturating_mul(n_classes as u64) } else { n_pixels };
        let (n_images, limit) = (requests.len() as u64, self.limits().masks.max_values);
        check_values("masks", "the masks", n_values.saturating_mul(n_images), limit, "limits.masks.max_values")?;
        let Some(features) = &first.features else { return Ok(()) };
        self.check_features(features, manifest, sizes, n_images)
    }

    /// The sizes of all images, which must agree: of the model's input, and with `of_image` of the image itself.
    fn equal_sizes<'a>(
        &self,
        inputs: impl Iterator<Item = &'a InputRequest>,
        recipe: &Recipe,
        of_image: bool,
    ) -> Result<Sizes, GroupError> {
        let mut first: Option<Sizes> = None;
        for (idx, input) in inputs.enumerate() {
            let sizes = self.sizes(input, recipe).map_err(|error| GroupError { idx, error })?;
            let expected = first.get_or_insert(sizes);
            if sizes.input != expected.input {
                return Err(differs(idx, "becomes an input", sizes.input, expected.input));
            }
            if of_image && sizes.image != expected.image {
                return Err(differs(idx, "is an image", sizes.image, expected.image));
            }
        }
        first.ok_or_else(|| of_all(InferError::invalid("image", "is required")))
    }
}

/// Waits for all images, or for the first that fails.
async fn all<T, F: Future<Output = Result<T, InferError>>>(jobs: impl Iterator<Item = F>) -> Result<Vec<T>, GroupError> {
    try_join_all(jobs.enumerate().map(|(idx, job)| async move { job.await.map_err(|error| GroupError { idx, error }) })).await
}

fn slowest<'a>(timings: impl Iterator<Item = &'a Timing>) -> Option<&'a Timing> {
    timings.max_by_key(|timing| timing.total)
}

fn of_all(error: InferError) -> GroupError {
    GroupError { idx: 0, error }
}

fn differs(idx: usize, what: &str, size: (u32, u32), first: (u32, u32)) -> GroupError {
    let message = format!(
        "{what} of {} x {} pixels (height x width), the first one of {} x {}: images of one request must give tensors of one shape; \
         ask for one size, or send them in requests of their own",
        size.0, size.1, first.0, first.1
    );
    GroupError { idx, error: InferError::invalid("image", message) }
}

fn check_values(field: &str, what: &str, n_values: u64, limit: u64, key: &str) -> Result<(), GroupError> {
    if n_values <= limit {
        return Ok(());
    }
    let message = format!("{what} of all images would have {n_values} values, the limit is {limit} ({key})");
    Err(of_all(InferError::invalid(field, message)))
}
