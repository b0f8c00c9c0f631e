//! The Open Inference Protocol (KServe v2, with Triton's extensions): a second door to the same engine, batcher and limits.
//!
//! In: `inference.GRPCInferenceService` calls. Out: calls of [`Engine::extract_group`](crate::engine::Engine::extract_group) and
//! [`Engine::segment_group`](crate::engine::Engine::segment_group), and their answers as named tensors. Called by the router.
//!
//! # Design
//! - A model is one KServe model: `image` (files) or `pixels` goes in, and any of its outputs come back. A request that names no output
//!   gets `features` alone, not all of them: masks cost a second head and a raster, and a caller who wants them knows.
//! - Images of FP32 are refused: normalisation is part of the model's graph, whose input is 8-bit RGB, so that nobody can get it wrong.
//! - Answers are always raw. The official clients read nothing else, and FP16 has no typed field.
//! - What is not understood is refused by name, a misspelt parameter above all; being ignored is how settings get lost.

mod answer;
mod datatype;
mod exchange;
mod inputs;
mod job;
mod metadata;
mod model_config;
mod outputs;
mod parameters;
mod paths;
mod service;
mod statistics;

pub(super) use exchange::Infer;
pub(super) use service::KserveService;
