//! One request: checked against its model, run by the engine, answered.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    engine::{
        Admitted, Caller, Clock, Engine, ExtractRequest, FeatureRequest, ImageSource, InferError, InputRequest, LoadedModel,
        MaskFormat, MaskRequest, ModelSelector, SegmentRequest, Timing,
    },
    grpc::{
        kserve::{
            answer::{self, Tensors},
            inputs::Images,
            outputs::{self, Output},
            parameters::Parameters,
            paths::{translated, translated_field},
        },
        pb::inference as pb,
        tail::{Tail, Tailed},
    },
};

/// Longest id of a request, in bytes.
const MAX_ID_BYTES: usize = 256;
/// Number of `ModelInferResponse.raw_output_contents`.
const RAW_OUTPUT_CONTENTS: u32 = 6;

/// An answer, and where its time went.
#[derive(Debug)]
pub(in crate::grpc) struct Inferred {
    /// Without contents.
    pub(in crate::grpc) response: pb::ModelInferResponse,
    /// The contents of each output, one part an image.
    pub(in crate::grpc) contents: Vec<Vec<Bytes>>,
    pub(in crate::grpc) timing: Timing,
    /// Of its images among the requests in flight.
    pub(in crate::grpc) places: Vec<Arc<Admitted>>,
}

impl Inferred {
    /// The message, with the contents behind it: parts of one output are not put together.
    pub(super) fn message(self) -> Tailed<pb::ModelInferResponse> {
        let mut tail = Tail::default();
        self.contents.into_iter().for_each(|parts| tail.push(RAW_OUTPUT_CONTENTS, parts));
        tail.after(self.response)
    }
}

/// A request that fits its model.
struct Job {
    model: Arc<LoadedModel>,
    outputs: Vec<Output>,
    images: Images,
    parameters: Parameters,
    clock: Clock,
}

/// Answers a request.
///
/// # Errors
/// [`InferError`] with paths of this protocol's fields.
pub(super) async fn infer(engine: &Arc<Engine>, request: pb::ModelInferRequest, clock: Clock) -> Result<Inferred, InferError> {
    let id = request.id.clone();
    if id.len() > MAX_ID_BYTES {
        return Err(InferError::invalid("id", format!("has {} bytes, the limit is {MAX_ID_BYTES}", id.len())));
    }
    let job = Job::new(engine, request, clock)?;
    let (tensors, places) = if job.outputs.iter().any(|output| output.is_of_masks()) {
        job.segment(engine).await?
    } else {
        job.extract(engine).await?
    };
    let timing = tensors.timing;
    let (response, contents) = answer::response(id, &job.outputs, &tensors)?;
    Ok(Inferred { response, contents, timing, places })
}

impl Job {
    fn new(engine: &Engine, request: pb::ModelInferRequest, clock: Clock) -> Result<Self, InferError> {
        let pb::ModelInferRequest { model_name, model_version, id: _, parameters, inputs, outputs, raw_input_contents } = request;
        let model = engine.model(&ModelSelector { name: model_name, version: model_version }).map_err(translated_field)?;
        let outputs = outputs::requested(&outputs, model.manifest())?;
        let parameters = Parameters::parse(parameters)?;
        let images = Images::read(inputs, raw_input_contents, engine.limits().max_images_per_request)?;
        let clock = adjusted(clock, &parameters);
        Ok(Self { model, outputs, images, parameters, clock })
    }

    async fn extract(&self, engine: &Arc<Engine>) -> Result<(Tensors, Vec<Arc<Admitted>>), InferError> {
        let features = self.features();
        let request = |image: &ImageSource| ExtractRequest { input: self.input(image), features: features.clone() };
        let requests = self.images.sources.iter().map(request).collect();
        let done = engine.extract_group(&self.model, requests, self.clock).await;
        let mut done = done.map_err(|failed| translated(failed, &self.images))?;
        let places = done.iter_mut().filter_map(|done| done.place.take()).collect();
        Ok((Tensors::of_features(done)?, places))
    }

    async fn segment(&self, engine: &Arc<Engine>) -> Result<(Tensors, Vec<Arc<Admitted>>), InferError> {
        let wants_features = self.outputs.iter().any(|output| !output.is_of_masks());
        let masks = MaskRequest {
            format: MaskFormat::Labels,
            size: self.parameters.mask_size,
            min_score: self.parameters.min_score,
            with_scores: self.wants(Output::Scores),
            ..MaskRequest::default()
        };
        let request = |image: &ImageSource| SegmentRequest {
            input: self.input(image),
            masks: masks.clone(),
            features: wants_features.then(|| self.features()),
        };
        let requests = self.images.sources.iter().map(request).collect();
        let done = engine.segment_group(&self.model, requests, self.clock).await;
        let mut done = done.map_err(|failed| translated(failed, &self.images))?;
        let places = done.iter_mut().filter_map(|done| done.place.take()).collect();
        Ok((Tensors::of_masks(done)?, places))
    }

    fn input(&self, image: &ImageSource) -> InputRequest {
        let manifest = self.model.manifest();
        InputRequest {
            model: ModelSelector { name: manifest.name.clone(), version: manifest.version.to_string() },
            image: image.clone(),
            resize: self.parameters.resize,
            interpolation: self.parameters.interpolation,
            crop: None,
        }
    }

    /// Tokens come with the map; a map that nobody asked for need not be lifted.
    fn features(&self) -> FeatureRequest {
        let needs_map = self.wants(Output::Features) || self.wants(Output::GridToImage);
        let lift_passes = self.parameters.features.lift_passes.or((!needs_map).then_some(0));
        FeatureRequest {
            lift_passes,
            cls_token: self.wants(Output::ClsToken),
            register_tokens: self.wants(Output::RegisterTokens),
            ..self.parameters.features.clone()
        }
    }

    fn wants(&self, output: Output) -> bool {
        self.outputs.contains(&output)
    }
}

/// The deadline of the call, or the parameter `timeout`, whichever comes first; the parameter `priority`, or what the call says.
fn adjusted(clock: Clock, parameters: &Parameters) -> Clock {
    let of_parameter = parameters.timeout.and_then(|timeout| clock.arrived.checked_add(timeout));
    let deadline = [clock.deadline, of_parameter].into_iter().flatten().min();
    let priority = parameters.priority.unwrap_or(clock.caller.priority);
    Clock { deadline, caller: Caller { priority, ..clock.caller }, ..clock }
}
