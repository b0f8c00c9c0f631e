//! gRPC-Web: what browsers speak, translated for the services of the port, and the CORS headers that let them.
//!
//! In: requests of `application/grpc-web` over HTTP/1.1 or 2. Out: calls like all others. Off unless configured: a browser is a caller that
//! any page can send.

use std::time::Duration;

use axum::Router;
use http::{HeaderName, HeaderValue, Method, header::InvalidHeaderValue};
use serde::{Deserialize, Serialize};
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// Every origin.
const ANY: &str = "*";
/// Headers of answers that scripts may read: how a call ended, when it has no body.
const EXPOSED: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// gRPC-Web on the gRPC port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// Whether browsers are answered, and with them HTTP/1.1. Default false.
    pub enabled: bool,
    /// Origins whose pages may ask, as `https://example.org`; `*` stands for all. Empty, the default: pages of the port's own origin, as
    /// behind a proxy.
    pub allow_origins: Vec<String>,
    /// Seconds that a browser may remember the answer to its preliminary question. Default 600.
    pub max_age_s: u64,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self { enabled: false, allow_origins: Vec::new(), max_age_s: 600 }
    }
}

/// Lets browsers in, if they are welcome.
///
/// # Errors
/// When an origin cannot stand in a header.
pub(super) fn with_web(router: Router, config: &WebConfig) -> Result<Router, InvalidHeaderValue> {
    if !config.enabled {
        return Ok(router);
    }
    Ok(router.layer(GrpcWebLayer::new()).layer(cors(config)?))
}

fn cors(config: &WebConfig) -> Result<CorsLayer, InvalidHeaderValue> {
    let origins = if config.allow_origins.iter().any(|origin| origin == ANY) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(config.allow_origins.iter().map(|origin| HeaderValue::from_str(origin)).collect::<Result<Vec<_>, _>>()?)
    };
    Ok(CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(Duration::from_secs(config.max_age_s)))
}
