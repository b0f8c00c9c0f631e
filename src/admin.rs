//! The admin port: Prometheus metrics and the probes of orchestrators, over HTTP/1.
//!
//! `/metrics`, `/livez` (200 while the process runs), `/readyz` (200 once every model is warm, 503 while loading or draining).

use std::{fmt, io, net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};

/// Settings of the admin port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Whether there is an admin port. Default true.
    pub enabled: bool,
    /// Address and port; port 0 takes a free one. Default `0.0.0.0:9090`.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from(([0, 0, 0, 0], 9090)) }
    }
}

/// Records what is only known when it is asked for; called before metrics are read.
#[derive(Clone)]
pub struct Refresh(Arc<dyn Fn() + Send + Sync>);

impl Refresh {
    /// Calls `record`, which must return at once.
    pub fn new(record: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(record))
    }
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refresh")
    }
}

/// Serves the admin port until the sender of `ready` is gone.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    (metrics, refresh): (PrometheusHandle, Refresh),
    ready: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut alive = ready.clone();
    let until_gone = async move { while alive.changed().await.is_ok() {} };
    axum::serve(listener, router(metrics, refresh, ready)).with_graceful_shutdown(until_gone).await
}

fn router(metrics: PrometheusHandle, refresh: Refresh, ready: watch::Receiver<bool>) -> Router {
    let render = move || async move {
        (refresh.0)();
        metrics.run_upkeep();
        metrics.render()
    };
    let readyz = move || async move {
        if *ready.borrow() {
            return (StatusCode::OK, "ready\n");
        }
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    };
    Router::new().route("/metrics", get(render)).route("/livez", get(async || "alive\n")).route("/readyz", get(readyz))
}
