//! Traces over OTLP: spans of `tracing` go to a collector of OpenTelemetry. In: spans of this program, and what callers say of the traces
//! that they belong to. Out: batches of spans over gRPC. Called by the command that serves, and by `grpc` for the spans of calls.
//!
//! ```text
//! POST /densevit.v1.DenseVision/Extract          the call: a child of the caller's span, until its last byte is sent
//! ├── decode, resize                             on a thread for such work
//! ├── queue                                      from submission to launch
//! ├── run ──────────── link ──► batch            from launch to answer; the batch links back to the calls of all its members
//! └── encode
//! ```
//!
//! # Design
//! - A batch has several parents and a span has one, so the batch is a trace of its own, and links lead both ways. Making it the child of one
//!   member was rejected: in the traces of the others the time would be missing.
//! - Nothing waits for a collector: ended spans enter a bounded queue or are counted as dropped, and a thread sends them. See [`export`].
//! - Off by default, and then the spans of stages are not even made: they are of level `debug`, which nobody listens to.

mod export;
mod rpc;
mod sampler;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracerProvider, SpanExporter as Export},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{Level, Metadata, level_filters::LevelFilter, warn};
use tracing_subscriber::{Layer, Registry, filter::FilterFn};

pub use rpc::RpcSpan;

/// Name of the service where `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` give none.
const SERVICE: &str = "densevit";
/// How the attribute begins that the library fills in then.
const UNNAMED: &str = "unknown_service";
/// Whether spans go to a collector.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// Whether and where traces go. `OTEL_EXPORTER_OTLP_*` (endpoint, headers, timeout, compression), `OTEL_SERVICE_NAME`,
/// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_BSP_SCHEDULE_DELAY` are honoured where no key here says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Whether to send traces. Default false.
    pub enabled: bool,
    /// The collector's gRPC port, `http://HOST:PORT` or `https://`. Empty, the default: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, else `http://localhost:4317`.
    pub endpoint: String,
    /// Part of the calls without a sampled caller that are traced, 0 to 1; a caller's own decision is obeyed. Default 1.
    pub sample_ratio: f64,
    /// Ended spans that wait for the collector at most; further ones are dropped and counted. Default 2048.
    pub max_queue_spans: usize,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { enabled: false, endpoint: String::new(), sample_ratio: 1.0, max_queue_spans: 2048 }
    }
}

/// Why no traces can be sent.
#[derive(Debug, Error)]
pub enum TraceError {
    /// A value of the configuration lies outside its range.
    #[error("{field} is {value}, it must be {expected}")]
    OutOfRange {
        /// Name of the value.
        field: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The exporter cannot be made, of the configuration or of the environment.
    #[error("cannot set up the export of traces (trace.endpoint, OTEL_EXPORTER_OTLP_*)")]
    Exporter(#[source] ExporterBuildError),
}

/// The traces of this process. Keep it until everything has ended, then [`flush`](Self::flush).
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what is left, for at most `budget`; no spans are taken afterwards.
    pub fn flush(self, budget: Duration) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(budget)
        {
            warn!(error = &error as &dyn std::error::Error, "the last traces could not be sent");
        }
    }
}

/// Whether spans go to a collector.
fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// A layer of the subscriber that sends spans as `config` says, or none.
pub(super) type SpanLayer = Option<Box<dyn Layer<Registry> + Send + Sync>>;

/// Connects to the collector at its first use, not here: one that is not there yet may come later. Needs a tokio runtime around it.
///
/// # Errors
/// [`TraceError`].
pub(super) fn layer(config: &TraceConfig) -> Result<(SpanLayer, Traces), TraceError> {
    check(config)?;
    if !config.enabled {
        return Ok((None, Traces::default()));
    }
    let builder = SpanExporter::builder().with_tonic();
    let builder = if config.endpoint.is_empty() { builder } else { builder.with_endpoint(config.endpoint.as_str()) };
    let (layer, traces) = layer_to(builder.build().map_err(TraceError::Exporter)?, config);
    IS_ON.store(true, Ordering::Relaxed);
    Ok((Some(layer), traces))
}

fn check(config: &TraceConfig) -> Result<(), TraceError> {
    let ratio = config.sample_ratio;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(TraceError::OutOfRange { field: "trace.sample_ratio", value: ratio, expected: "between 0 and 1" });
    }
    if config.max_queue_spans == 0 {
        return Err(TraceError::OutOfRange { field: "trace.max_queue_spans", value: 0.0, expected: "at least 1" });
    }
    Ok(())
}

fn layer_to(exporter: impl Export + 'static, config: &TraceConfig) -> (Box<dyn Layer<Registry> + Send + Sync>, Traces) {
    let provider = SdkTracerProvider::builder()
        .with_span_processor(export::bounded(exporter, config.max_queue_spans))
        .with_sampler(sampler::Sampler::new(config.sample_ratio))
        .with_resource(resource())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        // Parents come from the spans of `tracing`, also across threads; nothing here asks for a current context.
        .with_context_activation(false)
        .with_error_events_to_status(false)
        .with_filter(FilterFn::new(is_traced).with_max_level_hint(LevelFilter::DEBUG));
    (Box::new(layer), Traces(Some(provider)))
}

/// Spans of this program, and in them what its log says of warnings and errors. The transport's own spans would be sent by that transport.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(SERVICE) && (metadata.is_span() || *metadata.level() <= Level::WARN)
}

/// What every span says of this process.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let found = Resource::builder().with_attribute(version.clone()).build();
    let named = found.get(&"service.name".into()).is_some_and(|name| !name.as_str().starts_with(UNNAMED));
    if named { found } else { Resource::builder().with_attribute(version).with_service_name(SERVICE).build() }
}

#[cfg(test)]
mod tests;
