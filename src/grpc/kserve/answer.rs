//! The engine's answers as named tensors.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use crate::{
    engine::{Extracted, InferError, LoadedModel, Segmented, Source, Timing},
    grpc::{
        answer::{self as of_features, to_u32},
        kserve::{datatype::Datatype, outputs::Output},
        pb::{
            inference::{self as pb, InferParameter, infer_parameter::ParameterChoice, model_infer_response::InferOutputTensor},
            v1::Affine,
        },
        segment_answer as of_masks,
    },
    postprocess::DType,
};

/// Contents that a message of at most 2 GiB, the limit of protobuf's readers, holds beside everything else.
const MAX_CONTENT_BYTES: usize = (1 << 31) - (1 << 20);

/// What images of one request gave, in their order: maps, masks, or both.
#[derive(Debug)]
pub(super) struct Tensors {
    model: Arc<LoadedModel>,
    features: Vec<Extracted>,
    masks: Vec<Segmented>,
    /// Of the slowest image.
    pub(super) timing: Timing,
    /// Images that were answered without a run of their own.
    n_without_run: u32,
}

/// A tensor of all images, not yet put together.
struct Tensor {
    datatype: Datatype,
    /// Without the axis of images.
    dims: Vec<usize>,
    /// One an image.
    parts: Vec<Bytes>,
}

impl Tensors {
    /// Of features.
    ///
    /// # Errors
    /// Never, unless the engine gave nothing.
    pub(super) fn of_features(features: Vec<Extracted>) -> Result<Self, InferError> {
        let slowest = features.iter().max_by_key(|done| done.timing.total).ok_or_else(nothing)?;
        let (model, timing) = (Arc::clone(&slowest.model), slowest.timing);
        let n_without_run = n_without_run(features.iter().map(|done| &done.timing));
        Ok(Self { model, features, masks: Vec::new(), timing, n_without_run })
    }

    /// Of masks, with or without features.
    ///
    /// # Errors
    /// Never, unless the engine gave nothing.
    pub(super) fn of_masks(mut masks: Vec<Segmented>) -> Result<Self, InferError> {
        let slowest = masks.iter().max_by_key(|done| done.timing.total).ok_or_else(nothing)?;
        let (model, timing) = (Arc::clone(&slowest.model), slowest.timing);
        let features = masks.iter_mut().filter_map(|done| done.features.take()).collect();
        let n_without_run = n_without_run(masks.iter().map(|done| &done.timing));
        Ok(Self { model, features, masks, timing, n_without_run })
    }

    fn tensor(&self, output: Output) -> Result<Tensor, InferError> {
        let channels = self.model.manifest().architecture.width as usize;
        let registers = self.model.manifest().architecture.registers as usize;
        match output {
            Output::Features => {
                let first = self.features.first().ok_or_else(nothing)?;
                let datatype = if first.dtype == DType::F16 { Datatype::Fp16 } else { Datatype::Fp32 };
                let parts = self.features.iter().map(|done| done.tensor.data.clone()).collect();
                Ok(Tensor { datatype, dims: first.tensor.dims.clone(), parts })
            }
            Output::ClsToken => Ok(self.tokens(vec![channels], of_features::cls_token)),
            Output::RegisterTokens => Ok(self.tokens(vec![registers, channels], of_features::register_tokens)),
            Output::GridToImage => Ok(places(self.features.iter().map(of_features::affine))),
            Output::Labels => {
                let first = self.masks.first().ok_or_else(nothing)?;
                let datatype = if first.label_bytes == 1 { Datatype::Uint8 } else { Datatype::Uint16 };
                let parts = self.masks.iter().map(|done| done.data.clone()).collect();
                Ok(Tensor { datatype, dims: first.size.to_vec(), parts })
            }
            Output::Scores => {
                let first = self.masks.first().ok_or_else(nothing)?;
                let n_classes = self.model.manifest().segmenter.as_ref().map(|head| head.classes.len()).unwrap_or_default();
                let parts: Option<Vec<Bytes>> = self.masks.iter().map(|done| done.scores.clone()).collect();
                let dims = vec![first.size[0], first.size[1], n_classes];
                Ok(Tensor { datatype: Datatype::Fp16, dims, parts: parts.ok_or_else(nothing)? })
            }
            Output::RasterToImage => Ok(places(self.masks.iter().map(of_masks::affine))),
        }
    }

    fn tokens(&self, dims: Vec<usize>, of: impl Fn(&Extracted) -> Bytes) -> Tensor {
        Tensor { datatype: Datatype::Fp32, dims, parts: self.features.iter().map(of).collect() }
    }

    /// What the caller may want to know of the tensors.
    fn parameters(&self) -> HashMap<String, InferParameter> {
        let mut parameters = HashMap::from([("digest".to_owned(), text(self.model.digest()))]);
        if let Some(first) = self.features.first() {
            parameters.insert("facet".to_owned(), text(first.tap.facet.name()));
            parameters.insert("layer".to_owned(), count(first.tap.layer));
            parameters.insert("lift_passes".to_owned(), count(first.lift_passes));
            if !first.warnings.is_empty() {
                parameters.insert("warnings".to_owned(), text(&first.warnings.join("; ")));
            }
        }
        if self.n_without_run > 0 {
            parameters.insert("from_cache".to_owned(), count(self.n_without_run));
        }
        parameters
    }
}

/// Puts an answer together: the asked outputs, in their order, and for each the contents that belong to it, one part an image.
///
/// # Errors
/// [`InferError::InvalidArgument`] when no message can hold the answer.
pub(super) fn response(
    id: String,
    outputs: &[Output],
    tensors: &Tensors,
) -> Result<(pb::ModelInferResponse, Vec<Vec<Bytes>>), InferError> {
    let mut described = Vec::with_capacity(outputs.len());
    let mut raw = Vec::with_capacity(outputs.len());
    for output in outputs {
        let Tensor { datatype, dims, parts } = tensors.tensor(*output)?;
        described.push(InferOutputTensor {
            name: output.name().to_owned(),
            datatype: datatype.name().to_owned(),
            shape: std::iter::once(parts.len()).chain(dims).map(extent).collect(),
            ..InferOutputTensor::default()
        });
        raw.push(parts);
    }
    let n_bytes = raw.iter().flatten().map(Bytes::len).sum::<usize>();
    if n_bytes > MAX_CONTENT_BYTES {
        let message = format!("would have {n_bytes} bytes, the limit of a message is {MAX_CONTENT_BYTES}");
        return Err(InferError::invalid("outputs", message));
    }
    let manifest = tensors.model.manifest();
    let response = pb::ModelInferResponse {
        model_name: manifest.name.clone(),
        model_version: manifest.version.to_string(),
        id,
        parameters: tensors.parameters(),
        outputs: described,
        raw_output_contents: Vec::new(),
    };
    Ok((response, raw))
}

fn n_without_run<'a>(timings: impl Iterator<Item = &'a Timing>) -> u32 {
    to_u32(timings.filter(|timing| timing.source != Source::Run).count())
}

fn places(affines: impl Iterator<Item = Affine>) -> Tensor {
    let bytes = |Affine { x0, dx, y0, dy }: Affine| [x0, dx, y0, dy].iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { datatype: Datatype::Fp64, dims: vec![4], parts: affines.map(bytes).collect() }
}

/// A text parameter.
pub(super) fn text(value: &str) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::StringParam(value.to_owned())) }
}

fn count(value: u32) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(i64::from(value))) }
}

/// A switch.
pub(super) fn flag(value: bool) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) }
}

/// Extents of tensors are far below the limit: those on pixels and values see to that.
fn extent(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn nothing() -> InferError {
    InferError::internal("answering a request", "the engine left out what was asked for")
}
