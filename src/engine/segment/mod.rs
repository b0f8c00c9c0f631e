//! One image to masks: decode, resize, cut into windows, batch, run, put together, encode.
//!
//! # Design
//! Windows of one image are jobs of the batcher like any others: they share runs with each other and with other requests of the same
//! size, and each is lost or kept with its request. Scores are averaged where windows overlap; labels are chosen after that, on the
//! raster that the caller asked for.

mod class_mask;
mod encode;
mod plan;
mod raster;
mod request;
mod tiles;

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug_span;

pub(super) use class_mask::MaskEncoder;
pub(super) use encode::label_data;
pub(super) use raster::{mask_failed, widened};
pub use request::{ClassArea, ClassMask, MaskData, MaskFormat, MaskRequest, MaskSize, SegmentRequest, Segmented, WindowRequest};

use crate::{
    engine::{
        Clock, Engine, InferError, InputRequest, Limits, LoadedModel, Timing,
        extract::{FeaturePart, foresee},
        input::Input,
        segment::{
            encode::{EncodedMasks, Material, encode},
            plan::SegmentPlan,
            raster::MaskRaster,
            tiles::Runs,
        },
    },
    manifest::Manifest,
    masks::{Scores, Window},
    preprocess::Recipe,
    runtime::{FeatureKey, RunKey},
};

/// How an image is prepared for masks.
pub(super) fn mask_recipe(
    input: &InputRequest,
    masks: &MaskRequest,
    manifest: &Manifest,
    limits: &Limits,
) -> Result<Recipe, InferError> {
    SegmentPlan::new(input, masks, manifest, limits).map(|plan| plan.recipe)
}

/// What is run for the first window; the others may be smaller, but not by much.
fn first_run(windows: &[Window], (height, width): (u32, u32), features: Option<FeatureKey>) -> RunKey {
    let [height, width] = windows.first().map_or([height, width], |window| [window.height, window.width]);
    RunKey { height, width, features, segment: true }
}

impl Engine {
    /// Segments one image.
    ///
    /// # Errors
    /// See [`InferError`]; nothing of a failed request stays behind, and no other request is affected.
    pub async fn segment(self: &Arc<Self>, request: SegmentRequest, clock: Clock) -> Result<Segmented, InferError> {
        let model = self.model(&request.input.model)?;
        let outcome = self.answer(&model, request, clock).await;
        model.statistics().request(1, clock.arrived.elapsed(), outcome.as_ref().ok().map(|done| &done.timing));
        outcome
    }

    /// Segments one image by a run of a model.
    pub(super) async fn run_segment(
        &self,
        model: &Arc<LoadedModel>,
        request: SegmentRequest,
        clock: Clock,
    ) -> Result<Segmented, InferError> {
        let SegmentRequest { input, masks: asked, features } = request;
        let manifest = model.manifest();
        let plan = SegmentPlan::new(&input, &asked, manifest, self.limits())?;
        let part = features.map(|features| FeaturePart::new(features, manifest, self.limits())).transpose()?;
        let sizes = self.sizes(&input, &plan.recipe)?;
        let windows = plan.windows([sizes.input.0, sizes.input.1], part.is_some(), self.limits())?;
        let of_masks = plan.n_bytes(sizes, &asked, manifest, self.limits())?;
        let of_features = part.as_ref().map(|part| part.n_bytes(sizes.input, manifest, self.limits())).transpose()?;
        if clock.is_expired() {
            return Err(InferError::DeadlineExceeded { stage: "before decoding" });
        }
        let n_bytes =
            [of_masks, of_features.unwrap_or_default()].into_iter().fold(sizes.n_bytes(&input.image), u64::saturating_add);
        let place_in_flight = Some(Arc::new(self.admit(model, clock, n_bytes)?));
        foresee(model, first_run(&windows, sizes.input, part.as_ref().map(FeaturePart::key)), clock)?;
        let (admitted, receive) = (Instant::now(), clock.arrived.elapsed());
        let Input { image, geometry, resize } = self.prepare_input(&input, &plan.recipe, clock).await?;
        let (prepared, decode) = (Instant::now(), admitted.elapsed().saturating_sub(resize));
        let raster = MaskRaster::new(&asked, &geometry, manifest, &self.limits().masks)?;
        let selected = part.as_ref().map(|part| part.select(&geometry, manifest)).transpose()?;

        let key = part.as_ref().map(FeaturePart::key);
        let Runs { scores, features, timing } = self.run_windows(model, key, image, &windows, clock).await?;
        let (ran, timing) = (Instant::now(), timing.with_run(prepared.elapsed()));
        let (size, raster_place) = (raster.pixels.size(), raster.place);
        let format = asked.format;
        let encoded = self.encode_masks(model, plan, raster, scores, asked, clock).await?;
        let mut extracted = match part.zip(selected) {
            None => None,
            Some(part) => Some(self.encode_features(model, part, features, geometry.clone(), clock).await?),
        };
        let (postprocess, total) = (ran.elapsed(), clock.arrived.elapsed());
        let timing = Timing { receive, decode, resize, postprocess, total, ..timing };
        extracted.iter_mut().for_each(|extracted| extracted.timing = timing);
        let EncodedMasks { classes, masks, data, scores, unit_bytes, label_bytes } = encoded;
        Ok(Segmented {
            model: Arc::clone(model),
            format,
            size,
            raster: raster_place,
            label_bytes,
            classes,
            data,
            scores,
            unit_bytes,
            masks,
            geometry,
            n_windows: windows.len(),
            features: extracted,
            palette: None,
            warnings: Vec::new(),
            timing,
            place: place_in_flight,
        })
    }

    async fn encode_masks(
        &self,
        model: &Arc<LoadedModel>,
        plan: SegmentPlan,
        raster: MaskRaster,
        scores: Scores,
        asked: MaskRequest,
        clock: Clock,
    ) -> Result<EncodedMasks, InferError> {
        let (model, limits) = (Arc::clone(model), self.limits().masks);
        let encoding = debug_span!("encode");
        let work = move || {
            let _encoding = encoding.entered();
            let specs = model.manifest().segmenter.as_ref().map(|head| head.classes.as_slice()).unwrap_or_default();
            let material = Material { scores: &scores, raster: &raster.pixels, classes: &plan.classes, specs, limits: &limits };
            encode(&material, &asked)
        };
        self.cpu().run("while encoding the masks", clock.deadline, work).await?.map_err(mask_failed)
    }
}
