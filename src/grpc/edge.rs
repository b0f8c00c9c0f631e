//! The outermost layer of every call: starts the clock, reads whose call it is, opens the span, which lasts until the answer is sent, words
//! the refusal of oversized messages, sends what answers carry behind their messages, and has both bodies watched.

use std::{fmt::Display, str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field, info_span};

use crate::{
    engine::{Caller, Clock, InferError},
    grpc::{
        arriving::Arriving,
        names::{PRIORITY, TENANT},
        prefix, sent,
        status::status,
        tail, traced,
    },
    telemetry::{RpcSpan, record},
};

/// Longest deadline that is honoured; a larger one counts as none.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// gRPC codes as they stand in headers.
const OUT_OF_RANGE: &str = "11";
const INTERNAL: &str = "13";
const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");
const INVALID_ARGUMENT: HeaderValue = HeaderValue::from_static("3");
/// How the codec's refusal of bytes that are no message begins, percent-encoded.
const UNREADABLE: &str = "failed%20to%20decode%20Protobuf%20message";

/// Runs one call.
pub(super) async fn edge(State(arriving): State<Arc<Arriving>>, request: Request, next: Next) -> Response {
    let span = span(&request);
    let rpc = traced::begin(&span, &request);
    if let Some((trace_id, parent_id)) = traceparent(request.headers()) {
        span.record("trace_id", trace_id).record("parent_id", parent_id);
    } else if let Some(trace_id) = rpc.as_ref().and_then(RpcSpan::trace_id) {
        span.record("trace_id", trace_id);
    }
    let response = answer(arriving.watch(request), next).instrument(span).await;
    traced::until_sent(response, rpc)
}

/// The span of a call, in the log and in traces.
fn span(request: &Request) -> Span {
    let rpc = request.uri().path();
    info_span!("request", rpc, trace_id = field::Empty, parent_id = field::Empty, otel.kind = field::Empty)
}

async fn answer(mut request: Request, next: Next) -> Response {
    let arrived = Instant::now();
    let deadline = timeout(request.headers()).filter(|timeout| *timeout < MAX_TIMEOUT).map(|timeout| arrived + timeout);
    let caller = match caller(request.headers()) {
        Ok(caller) => caller,
        Err(error) => {
            record::refused("metadata");
            return status(&error).into_http();
        }
    };
    request.extensions_mut().insert(Clock { arrived, deadline, caller });
    let in_flight = record::call_began();
    let is_timed = sent::is_timed(request.uri().path());
    let mut response = next.run(request.map(prefix::alone)).await;
    explain_codec(response.headers_mut());
    sent::watch(tail::append(response), in_flight, is_timed)
}

/// Tenant and priority of a call.
fn caller(headers: &HeaderMap) -> Result<Caller, InferError> {
    Ok(Caller { tenant: metadata(headers, TENANT)?, priority: metadata(headers, PRIORITY)? })
}

/// A value of the metadata, or the default where there is none.
fn metadata<T: FromStr<Err: Display> + Default>(headers: &HeaderMap, name: &'static str) -> Result<T, InferError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(T::default()) };
    if values.next().is_some() {
        return Err(InferError::invalid(name, "is given more than once"));
    }
    // What is no text is no name either.
    value.to_str().unwrap_or_default().parse().map_err(|error: T::Err| InferError::invalid(name, error.to_string()))
}

/// Trace and parent ids of a W3C `traceparent` header (version 00: `00-<32 hex>-<16 hex>-<2 hex>`).
fn traceparent(headers: &HeaderMap) -> Option<(&str, &str)> {
    let parts: Vec<&str> = headers.get("traceparent")?.to_str().ok()?.split('-').collect();
    let [_version, trace_id, parent_id, _flags] = parts[..] else { return None };
    let is_id = |id: &str, len: usize| {
        id.len() == len && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.bytes().any(|byte| byte != b'0')
    };
    (is_id(trace_id, 32) && is_id(parent_id, 16)).then_some((trace_id, parent_id))
}

/// The caller's `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout"). A malformed one counts as none.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// What the codec refuses gets the code that says whose fault it is. A message over the limit is OUT_OF_RANGE there; other gRPC servers say
/// RESOURCE_EXHAUSTED, and clients know that code. One that is no protobuf is INTERNAL there; INVALID_ARGUMENT is what it is, and INTERNAL
/// is kept for faults of the server. Nothing else in this service answers OUT_OF_RANGE, or INTERNAL with these words.
fn explain_codec(headers: &mut HeaderMap) {
    let is =
        |name: &str, expected: &str| headers.get(name).is_some_and(|value| value.as_bytes().starts_with(expected.as_bytes()));
    if is("grpc-status", OUT_OF_RANGE) {
        record::refused("message_size");
        headers.insert("grpc-status", RESOURCE_EXHAUSTED);
    } else if is("grpc-status", INTERNAL) && is("grpc-message", UNREADABLE) {
        record::refused("message_form");
        headers.insert("grpc-status", INVALID_ARGUMENT);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::engine::Priority;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_malformed_ones_ignored() {
        let cases = [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("5S", Some(Duration::from_secs(5))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("5", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("5s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timeout(&headers("grpc-timeout", text)), expected, "{text:?}");
        }
    }

    #[test]
    fn callers_are_named_by_metadata_and_bad_values_by_their_key() {
        assert_eq!(caller(&HeaderMap::new()).unwrap(), Caller::default());
        let mut both = headers(TENANT, "maps-eu");
        both.insert(PRIORITY, "bulk".parse().unwrap());
        assert_eq!(caller(&both).unwrap(), Caller { tenant: "maps-eu".parse().unwrap(), priority: Priority::Bulk });
        let long = "x".repeat(64);
        for (name, bad) in [(TENANT, ""), (TENANT, "a b"), (TENANT, &long), (PRIORITY, "urgent"), (PRIORITY, "1")] {
            let error = caller(&headers(name, bad)).unwrap_err();
            assert_eq!(error.field(), Some(name), "{error}");
            assert!(error.to_string().contains("letters") || error.to_string().contains("interactive, normal, bulk"), "{error}");
        }
        both.append(TENANT, "other".parse().unwrap());
        assert!(caller(&both).unwrap_err().to_string().contains("more than once"));
    }

    #[test]
    fn trace_ids_come_from_a_valid_traceparent_only() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = headers("traceparent", valid);
        assert_eq!(traceparent(&parsed), Some(("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")));
        for bad in ["", "00-xyz-00f067aa0ba902b7-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(traceparent(&headers("traceparent", bad)), None, "{bad:?}");
        }
    }
}
