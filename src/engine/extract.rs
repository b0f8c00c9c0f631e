//! One image to features: decode, resize, batch, run, encode.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Span, debug_span};

use crate::{
    batch::{BatchError, Completed, Submit},
    engine::{
        Admitted, Engine, InferError, Limits, LoadedModel,
        input::{Input, Sizes},
        plan::{Plan, recipe},
        request::{Clock, ExtractRequest, Extracted, FeatureRequest, InputRequest},
        select::Selected,
        timing::Timing,
    },
    manifest::Manifest,
    postprocess::{EncodeOptions, encode},
    preprocess::Geometry,
    runtime::{FeatureKey, Features, RunKey, RunOutput},
    tensor::RgbImage,
};

/// Features that were asked for and that the model can give.
#[derive(Debug)]
pub(super) struct FeaturePart {
    request: FeatureRequest,
    plan: Plan,
}

impl FeaturePart {
    /// Fits a request to the model described by `manifest`.
    pub(super) fn new(request: FeatureRequest, manifest: &Manifest, limits: &Limits) -> Result<Self, InferError> {
        let plan = Plan::new(&request, manifest, limits)?;
        Ok(Self { request, plan })
    }

    /// Memory of the map of an input of so many rows and columns of pixels, in bytes.
    pub(super) fn n_bytes(&self, input: (u32, u32), manifest: &Manifest, limits: &Limits) -> Result<u64, InferError> {
        let n_values = self.plan.n_output_values(input.0, input.1, manifest);
        let limit = limits.max_output_values;
        if n_values > limit {
            let message = format!("the map would have {n_values} values, the limit is {limit} (limits.max_output_values)");
            return Err(InferError::invalid("features.lift_passes", message));
        }
        Ok(n_values.saturating_mul(4))
    }

    /// What of the map goes back. Checked against the image before a run is spent on it.
    pub(super) fn select(&self, geometry: &Geometry, manifest: &Manifest) -> Result<Selected, InferError> {
        Selected::new(&self.request.part, geometry, &self.plan, manifest)
    }

    /// What the features are, and what the caller should know of them.
    pub(super) fn into_plan(self) -> Plan {
        self.plan
    }

    /// What the model must be asked for.
    pub(super) fn key(&self) -> FeatureKey {
        let FeatureRequest { cls_token: cls, register_tokens: registers, .. } = self.request;
        FeatureKey { tap: self.plan.tap, lift_passes: self.plan.lift_passes, cls, registers }
    }
}

/// An image that is ready for a run that gives features.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) part: FeaturePart,
    pub(super) geometry: Geometry,
    key: RunKey,
    image: RgbImage,
    timing: Timing,
    prepared: Instant,
    place: Arc<Admitted>,
}

/// The features of a run.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) part: FeaturePart,
    pub(super) features: Features,
    pub(super) geometry: Geometry,
    /// Up to the end of the run.
    pub(super) timing: Timing,
    pub(super) ended: Instant,
    pub(super) place: Arc<Admitted>,
}

impl Ready {
    /// Waits for the run.
    pub(super) async fn run(self, model: &Arc<LoadedModel>, clock: Clock) -> Result<Ran, InferError> {
        let Self { part, geometry, key, image, timing, prepared, place } = self;
        let Completed { output, queue_time: queue, batch_size, .. } = run(model, key, image, clock).await?;
        let RunOutput { backbone, lift, segment, features, .. } = output;
        let timing = Timing { queue, backbone, lift, segment, batch_size, ..timing };
        let (ended, timing) = (Instant::now(), timing.with_run(prepared.elapsed()));
        Ok(Ran { part, features: features.ok_or_else(no_features)?, geometry, timing, ended, place })
    }
}

impl Engine {
    /// Extracts dense features of one image.
    ///
    /// # Errors
    /// See [`InferError`]; nothing of a failed request stays behind, and no other request is affected.
    pub async fn extract(self: &Arc<Self>, request: ExtractRequest, clock: Clock) -> Result<Extracted, InferError> {
        let model = self.model(&request.input.model)?;
        let outcome = self.answer(&model, request, clock).await;
        model.statistics().request(1, clock.arrived.elapsed(), outcome.as_ref().ok().map(|done| &done.timing));
        outcome
    }

    /// Extracts dense features of one image by a run of a model.
    pub(super) async fn run_extract(
        &self,
        model: &Arc<LoadedModel>,
        request: ExtractRequest,
        clock: Clock,
    ) -> Result<Extracted, InferError> {
        let ExtractRequest { input, features } = request;
        let ready = self.ready(model, (&input, features), |_sizes, _grid| Ok(0), clock).await?;
        let selected = ready.part.select(&ready.geometry, model.manifest())?;
        let Ran { part, features, geometry, timing, ended, place } = ready.run(model, clock).await?;
        let extracted = self.encode_features(model, (part, selected), Some(features), geometry, clock).await?;
        let timing = Timing { postprocess: ended.elapsed(), total: clock.arrived.elapsed(), ..timing };
        Ok(Extracted { timing, place: Some(place), ..extracted })
    }

    /// Decodes and resizes an image for a run that gives features. `more` tells how many bytes the work behind the run will need, for the
    /// image's sizes and the rows and columns of its map, or refuses it.
    pub(super) async fn ready(
        &self,
        model: &Arc<LoadedModel>,
        (input, features): (&InputRequest, FeatureRequest),
        more: impl FnOnce(Sizes, [usize; 2]) -> Result<u64, InferError>,
        clock: Clock,
    ) -> Result<Ready, InferError> {
        let manifest = model.manifest();
        let part = FeaturePart::new(features, manifest, self.limits())?;
        let recipe = recipe(input, manifest, manifest.preprocess.resize, self.limits());
        let sizes = self.sizes(input, &recipe)?;
        let of_map = part.n_bytes(sizes.input, manifest, self.limits())?;
        let of_more = more(sizes, part.plan.grid([sizes.input.0, sizes.input.1], manifest))?;
        let n_bytes = sizes.n_bytes(&input.image).saturating_add(of_map).saturating_add(of_more);
        if clock.is_expired() {
            return Err(InferError::DeadlineExceeded { stage: "before decoding" });
        }
        let place = Arc::new(self.admit(model, clock, n_bytes)?);
        let key = RunKey { height: sizes.input.0, width: sizes.input.1, features: Some(part.key()), segment: false };
        foresee(model, key.clone(), clock)?;
        let (admitted, receive) = (Instant::now(), clock.arrived.elapsed());
        let Input { image, geometry, resize } = self.prepare_input(input, &recipe, clock).await?;
        let (prepared, decode) = (Instant::now(), admitted.elapsed().saturating_sub(resize));
        let timing = Timing { receive, decode, resize, ..Timing::default() };
        Ok(Ready { part, geometry, key, image, timing, prepared, place })
    }

    /// The features of a run as they go over the wire, without times.
    pub(super) async fn encode_features(
        &self,
        model: &Arc<LoadedModel>,
        (part, selected): (FeaturePart, Selected),
        features: Option<Features>,
        geometry: Geometry,
        clock: Clock,
    ) -> Result<Extracted, InferError> {
        let Features { map, cls, registers } = features.ok_or_else(no_features)?;
        let FeaturePart { request, plan } = part;
        let FeatureRequest { dtype, layout, l2_normalize, .. } = request;
        let options = EncodeOptions { selection: selected.selection, dtype, layout, l2_normalize };
        let encoding = debug_span!("encode");
        let work = move || encoding.in_scope(|| encode(&map, &options));
        let encoded = self.cpu().run("while encoding the answer", clock.deadline, work).await?;
        let tensor = encoded.map_err(|error| InferError::internal("encoding the answer", error))?;
        Ok(Extracted {
            model: Arc::clone(model),
            tap: plan.tap,
            lift_passes: plan.lift_passes,
            dtype,
            layout,
            tensor,
            grid: selected.grid,
            extent: selected.extent,
            stride: selected.stride,
            geometry,
            cls_token: cls,
            register_tokens: registers,
            l2_normalize,
            warnings: plan.warnings,
            timing: Timing::default(),
            place: None,
        })
    }
}

/// Refuses what the queue would refuse now, before its image is decoded: the key of its run is known from the header. Under overload most
/// requests end here, and decoding them would take the time of those that are answered.
///
/// # Errors
/// Those of [`run`].
pub(super) fn foresee(model: &LoadedModel, key: RunKey, clock: Clock) -> Result<(), InferError> {
    let n_bytes = key.height as usize * key.width as usize * 3;
    model.batcher().foresee(key, n_bytes, clock.caller, clock.deadline).map_err(refused)
}

/// Waits for a run of one image.
pub(super) async fn run(
    model: &Arc<LoadedModel>,
    key: RunKey,
    input: RgbImage,
    clock: Clock,
) -> Result<Completed<RunOutput>, InferError> {
    let n_bytes = input.data().len();
    let Clock { deadline, caller, .. } = clock;
    let job = Submit { key, input, n_bytes, caller, deadline, span: Span::current() };
    model.batcher().submit(job).await.map_err(refused)
}

fn no_features() -> InferError {
    InferError::internal("running the model", "it gave no features")
}

fn refused(error: BatchError) -> InferError {
    match error {
        BatchError::Full { retry_after, .. } | BatchError::TooLate { retry_after, .. } => {
            InferError::Overloaded { message: error.to_string(), retry_after }
        }
        BatchError::TooLarge { .. } => InferError::invalid("image", error.to_string()),
        BatchError::DeadlineExceeded => InferError::DeadlineExceeded { stage: "in the queue" },
        BatchError::Closed => InferError::Unavailable { message: "the server is shutting down".into() },
        BatchError::Failed(_) | BatchError::Lost => InferError::internal("running the model", error),
    }
}
