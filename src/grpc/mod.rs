//! The gRPC boundary, both sides of it: the only module that imports tonic.
//!
//! In: HTTP/2 connections. Out: calls of [`Engine::extract`] and their answers as messages. Called by `server`. The generated types
//! ([`pb`]) and the [`client`] live here too, for the commands that ask a server.

pub mod client;
pub mod pb;

mod answer;
mod arriving;
mod auth;
mod calls;
mod chunks;
mod connection;
mod converse;
mod convert;
mod discover_message;
mod edge;
mod exchange;
mod kserve;
mod listener;
mod map_message;
mod match_message;
mod model_answer;
mod names;
mod observe;
mod prefix;
mod propagate_call;
mod propagate_message;
mod reloaded;
mod segment_answer;
mod segment_chunks;
mod segment_convert;
mod sent;
mod service;
mod status;
mod stream;
pub mod tail;
mod tls;
mod traced;
mod watched;
mod web;

use std::sync::Arc;

use axum::{Router, middleware};
use tonic::{codec::CompressionEncoding, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::Builder as Reflection;

pub use auth::AuthConfig;
pub use chunks::MAX_BAND_BYTES;
pub use listener::{GrpcConfig, ListenError, Listener};
pub use reloaded::ReloadError;
pub use service::DenseVisionService;
pub use tls::TlsConfig;
pub use web::WebConfig;

use thiserror::Error;

use crate::{
    engine::Engine,
    grpc::{
        arriving::Arriving,
        auth::Auth,
        kserve::KserveService,
        pb::{
            FILE_DESCRIPTOR_SET, inference::grpc_inference_service_server::GrpcInferenceServiceServer,
            v1::dense_vision_server::DenseVisionServer,
        },
    },
};

/// Name of the service, as in health checks.
pub const SERVICE_NAME: &str = "densevit.v1.DenseVision";
/// Name of the service of the Open Inference Protocol.
pub const KSERVE_SERVICE_NAME: &str = "inference.GRPCInferenceService";

/// Health as the `grpc.health.v1` service tells it: the server as a whole (""), the service, and each model as `models/NAME`.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Health")
    }
}

impl Health {
    /// Tells whether `models` and the service answer requests.
    pub async fn set_serving(&self, models: &[String], is_serving: bool) {
        for model in models {
            self.set_model(model, is_serving).await;
        }
        let status = serving_status(is_serving);
        self.0.set_service_status(SERVICE_NAME, status).await;
        self.0.set_service_status(KSERVE_SERVICE_NAME, status).await;
        self.0.set_service_status("", status).await;
    }

    /// Tells whether one model answers requests.
    pub async fn set_model(&self, model: &str, is_serving: bool) {
        self.0.set_service_status(format!("models/{model}"), serving_status(is_serving)).await;
    }
}

fn serving_status(is_serving: bool) -> ServingStatus {
    if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

/// Why the services could not be set up.
#[derive(Debug, Error)]
pub enum GrpcError {
    /// The descriptor set of the build cannot be decoded.
    #[error("cannot set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The file of tokens cannot be used.
    #[error("cannot read the tokens")]
    Tokens(#[from] ReloadError),
    /// An origin is none.
    #[error("grpc.web.allow_origins names something that is no origin")]
    Origin(#[source] http::header::InvalidHeaderValue),
}

/// All services of the port: DenseVision, the Open Inference Protocol, health, reflection (v1 and v1alpha).
///
/// # Errors
/// When the descriptor set of the build cannot be decoded, the file of tokens cannot be used, or `grpc.web` names no origin.
pub fn router(engine: Arc<Engine>, config: &GrpcConfig) -> Result<(Router, Health), GrpcError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let kserve = KserveService::new(Arc::clone(&engine), Health(reporter.clone()));
    let kserve = GrpcInferenceServiceServer::new(kserve)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .max_decoding_message_size(config.max_message_bytes)
        .max_encoding_message_size(usize::MAX);
    let service = DenseVisionService::new(engine, config.max_message_bytes);
    let dense_vision =
        DenseVisionServer::new(service).max_decoding_message_size(config.max_message_bytes).max_encoding_message_size(usize::MAX);
    let reflection = || {
        Reflection::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(dense_vision)
        .add_service(kserve)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let mut router = routes.into_axum_router().layer(middleware::from_fn_with_state(Arriving::new(config), edge::edge));
    if let Some(auth) = Auth::open(&config.auth)? {
        // Outside the edge, which reads the tenant; inside CORS, whose preliminary questions carry no token.
        router = router.layer(middleware::from_fn_with_state(auth, auth::authenticated));
    }
    let router = web::with_web(router, &config.web).map_err(GrpcError::Origin)?;
    Ok((router, Health(reporter)))
}
