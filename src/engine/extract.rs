//! One image through one model: decode, resize, batch, run, encode.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    batch::{BatchError, Completed, Submit},
    engine::{
        Engine, InferError, LoadedModel,
        plan::Plan,
        request::{Clock, ExtractRequest, Extracted, ImageSource, Timing},
        select::Selected,
    },
    manifest::Manifest,
    postprocess::{EncodeOptions, Encoded, encode},
    preprocess::{DecodeError, Geometry, decode, plan_size, prepare, probe, raw},
    runtime::{FeatureKey, RunKey, RunOutput},
    tensor::{FeatureMap, RgbImage},
};

/// A decoded and resized image.
struct Input {
    image: RgbImage,
    geometry: Geometry,
    decode: Duration,
    resize: Duration,
}

impl Engine {
    /// Extracts dense features of one image.
    ///
    /// # Errors
    /// See [`InferError`]; nothing of a failed request stays behind, and no other request is affected.
    pub async fn extract(&self, request: ExtractRequest, clock: Clock) -> Result<Extracted, InferError> {
        let model = self.model(&request.model)?;
        let plan = Plan::new(&request, model.manifest(), self.limits())?;
        let n_bytes = self.price(&request, &plan, model.manifest())?;
        if clock.is_expired() {
            return Err(InferError::DeadlineExceeded { stage: "before decoding" });
        }
        let _place = self.admit(n_bytes)?;
        let Input { image, geometry, decode, resize } = self.prepare_input(&request, &plan, clock).await?;
        // Regions and points are checked against the image before a run is spent on them.
        let selected = Selected::new(&request.part, &geometry, &plan, model.manifest())?;
        let key = RunKey {
            height: image.height(),
            width: image.width(),
            features: Some(FeatureKey {
                tap: plan.tap,
                lift_passes: plan.lift_passes,
                cls: request.cls_token,
                registers: request.register_tokens,
            }),
            segment: false,
        };
        let done = run(&model, key, image, clock).await?;
        let features = done.output.features.ok_or_else(|| InferError::internal("running the model", "it gave no features"))?;
        let encoding = Instant::now();
        let options = EncodeOptions {
            selection: selected.selection,
            dtype: request.dtype,
            layout: request.layout,
            l2_normalize: request.l2_normalize,
        };
        let tensor = self.encode(features.map, options, clock).await?;
        let timing = Timing {
            decode,
            resize,
            queue: done.queue_time,
            backbone: done.output.backbone,
            lift: done.output.lift,
            postprocess: encoding.elapsed(),
            total: clock.arrived.elapsed(),
            batch_size: done.batch_size,
        };
        Ok(Extracted {
            model,
            tap: plan.tap,
            lift_passes: plan.lift_passes,
            dtype: request.dtype,
            layout: request.layout,
            tensor,
            grid: selected.grid,
            extent: selected.extent,
            stride: selected.stride,
            geometry,
            cls_token: features.cls,
            register_tokens: features.registers,
            l2_normalize: request.l2_normalize,
            warnings: plan.warnings,
            timing,
        })
    }

    /// Memory that the request will hold: the image as it came, its pixels, the model's input and the map, in bytes.
    fn price(&self, request: &ExtractRequest, plan: &Plan, manifest: &Manifest) -> Result<u64, InferError> {
        let limits = self.limits();
        let n_image_bytes = request.image.n_bytes();
        let (height, width) = match &request.image {
            ImageSource::Encoded(bytes) => probe(bytes, &limits.decode()).map_err(|error| decode_failed(&error, false))?,
            ImageSource::Raw { height, width, .. } => (*height, *width),
        };
        let input =
            plan_size(height, width, &plan.recipe).map_err(|error| InferError::invalid(error.field(), error.to_string()))?;
        let n_values = plan.n_output_values(input.0, input.1, manifest);
        if n_values > limits.max_output_values {
            let limit = limits.max_output_values;
            let message = format!("the map would have {n_values} values, the limit is {limit} (limits.max_output_values)");
            return Err(InferError::invalid("features.lift_passes", message));
        }
        let n_pixels = u64::from(height) * u64::from(width) + u64::from(input.0) * u64::from(input.1);
        Ok(n_image_bytes.saturating_add(n_pixels.saturating_mul(3)).saturating_add(n_values.saturating_mul(4)))
    }

    async fn prepare_input(&self, request: &ExtractRequest, plan: &Plan, clock: Clock) -> Result<Input, InferError> {
        let source = request.image.clone();
        let limits = self.limits().decode();
        let recipe = plan.recipe.clone();
        let asked = Instant::now();
        let work = move || {
            let pixels = match &source {
                ImageSource::Encoded(bytes) => decode(bytes, &limits),
                ImageSource::Raw { height, width, data } => raw(*height, *width, data, &limits),
            }
            .map_err(|error| decode_failed(&error, matches!(source, ImageSource::Raw { .. })))?;
            let decoded = Instant::now();
            let prepared = prepare(pixels, &recipe).map_err(|error| InferError::invalid(error.field(), error.to_string()))?;
            Ok(Input { image: prepared.image, geometry: prepared.geometry, decode: decoded - asked, resize: decoded.elapsed() })
        };
        self.cpu().run("while decoding the image", clock.deadline, work).await?
    }

    async fn encode(&self, map: FeatureMap, options: EncodeOptions, clock: Clock) -> Result<Encoded, InferError> {
        let work = move || encode(&map, &options);
        let encoded = self.cpu().run("while encoding the answer", clock.deadline, work).await?;
        encoded.map_err(|error| InferError::internal("encoding the answer", error))
    }
}

fn decode_failed(error: &DecodeError, is_raw: bool) -> InferError {
    InferError::invalid(error.field(is_raw), error.to_string())
}

async fn run(model: &Arc<LoadedModel>, key: RunKey, input: RgbImage, clock: Clock) -> Result<Completed<RunOutput>, InferError> {
    let n_bytes = input.data().len();
    let job = Submit { key, input, n_bytes, deadline: clock.deadline, span: tracing::Span::current() };
    model.batcher().submit(job).await.map_err(|error| match error {
        BatchError::Full { .. } | BatchError::TooLarge { .. } => {
            InferError::Overloaded { message: error.to_string(), retry_after: Duration::from_millis(250) }
        }
        BatchError::DeadlineExceeded => InferError::DeadlineExceeded { stage: "in the queue" },
        BatchError::Closed => InferError::Unavailable { message: "the server is shutting down".into() },
        BatchError::Failed(_) | BatchError::Lost => InferError::internal("running the model", error),
    })
}
