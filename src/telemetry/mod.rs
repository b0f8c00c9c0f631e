//! Logs, metrics and traces. A leaf: knows nothing of requests beyond the numbers it is given.

pub mod record;
mod trace;

use std::io::{self, IsTerminal as _};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, fmt::format::FmtSpan, layer::SubscriberExt as _};
use tracing_subscriber::{filter::ParseError, util::SubscriberInitExt as _, util::TryInitError};

pub use trace::{RpcSpan, TraceConfig, TraceError, Traces};

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Form of the log. Default `text`.
    pub format: LogFormat,
    /// Filter in the syntax of tracing's `EnvFilter`; `densevit=debug` shows the stages of each request. Default `info,ort=warn,h2=error`:
    /// the HTTP/2 library warns of each frame of a kind that any peer can send at will.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info,ort=warn,h2=error".into() }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("invalid log.filter \"{filter}\"")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// A subscriber is there already.
    #[error("cannot install the log subscriber")]
    Install(#[source] TryInitError),
    /// Traces cannot be sent as configured.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The metrics registry could not be built.
    #[error("cannot set up metrics")]
    Metrics(#[source] BuildError),
}

/// Sends logs to standard error from now on, and traces to a collector, if that is configured: then a tokio runtime must be around this.
///
/// # Errors
/// For a filter that does not parse, traces that cannot be sent as configured, and when called twice.
pub fn init(log: &LogConfig, trace: &TraceConfig) -> Result<Traces, TelemetryError> {
    let (spans, traces) = trace::layer(trace)?;
    let filter =
        EnvFilter::try_new(&log.filter).map_err(|source| TelemetryError::Filter { filter: log.filter.clone(), source })?;
    // Closing a span says how long its stage took (`busy` and `idle`), at debug level and above only.
    let timed = log.filter.contains("debug") || log.filter.contains("trace");
    let events = if timed { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let lines = fmt::layer().with_writer(io::stderr).with_span_events(events);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Each layer has its own filter: what is traced does not depend on what is logged.
    Registry::default().with(spans).with(lines.with_filter(filter)).try_init().map_err(TelemetryError::Install)?;
    Ok(traces)
}

/// Collects metrics from now on; the handle renders them in Prometheus' text format. Later calls return the first handle.
///
/// # Errors
/// When the registry cannot be built.
pub fn init_metrics() -> Result<PrometheusHandle, TelemetryError> {
    use std::sync::{Mutex, PoisonError};
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &record::SECONDS_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_images".into()), &record::IMAGES_BUCKETS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_ratio".into()), &record::RATIO_BUCKETS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(TelemetryError::Metrics)?;
    record::describe();
    *installed = Some(handle.clone());
    Ok(handle)
}
