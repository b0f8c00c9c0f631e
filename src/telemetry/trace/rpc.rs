//! The span of one call, as the conventions for RPC want it: whose child it is, what was called, and with which code it ended.

use opentelemetry::{
    propagation::{Extractor, TextMapPropagator as _},
    trace::{Status, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::is_on;

/// Codes that say that the server is at fault (OpenTelemetry semantic conventions for gRPC, "gRPC Status"): UNKNOWN, DEADLINE_EXCEEDED,
/// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];
/// Longest name of a service or method; a caller may ask for any.
const MAX_NAME_BYTES: usize = 128;

/// The code of calls that end without one: the caller has gone.
const CANCELLED: i32 = 1;

/// The span of a call that is traced; ends with the value.
#[derive(Debug)]
pub struct RpcSpan {
    span: Span,
    /// The gRPC code that it ended with.
    code: Option<i32>,
}

impl RpcSpan {
    /// Makes `span`, which nobody has entered yet, the span of a call of `path` (`/SERVICE/METHOD`); `header` finds headers of the caller,
    /// `traceparent` and `tracestate` (W3C Trace Context). Nothing, when traces are off.
    #[must_use]
    pub fn begin<'a>(span: &Span, path: &str, header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        if !is_on() || span.is_disabled() {
            return None;
        }
        let caller = TraceContextPropagator::new().extract(&Headers(header));
        span.record("otel.kind", "server");
        // Fails only where no layer for traces is, which has been asked already, or for a span that was entered.
        let _not_entered = span.set_parent(caller);
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/').unwrap_or((name, ""));
        span.set_attribute("rpc.system", "grpc");
        span.set_attribute("rpc.service", bounded(service));
        span.set_attribute("rpc.method", bounded(method));
        span.context().span().update_name(bounded(name));
        Some(Self { span: span.clone(), code: None })
    }

    /// Id of the trace, as text: the caller's, or a new one.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        let id = self.span.context().span().span_context().trace_id();
        (id != TraceId::INVALID).then(|| id.to_string())
    }

    /// Does `work` in the span.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// The call ended with a gRPC code, if there is one.
    pub fn ended_if(&mut self, code: Option<i32>) {
        self.code = code.or(self.code);
    }
}

impl Drop for RpcSpan {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(CANCELLED);
        self.span.set_attribute("rpc.grpc.status_code", i64::from(code));
        if FAULTS.contains(&code) {
            self.span.set_status(Status::error(""));
        }
        // A span ends where it was left for the last time.
        self.span.in_scope(|| ());
    }
}

/// The beginning of a name that may be too long.
fn bounded(name: &str) -> String {
    name.chars().take(MAX_NAME_BYTES).collect()
}

/// Headers as the propagator reads them.
struct Headers<'a, F: Fn(&str) -> Option<&'a str>>(F);

impl<'a, F: Fn(&str) -> Option<&'a str>> Extractor for Headers<'a, F> {
    fn get(&self, key: &str) -> Option<&str> {
        (self.0)(key)
    }

    /// Nobody asks: the propagator knows its headers.
    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}
