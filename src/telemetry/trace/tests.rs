//! Sampling, the queue and the spans of calls, with an exporter that keeps what it is given. What a collector gets is in `tests/cli/traces.rs`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex, mpsc};

use opentelemetry::{
    Context, Value,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SamplingDecision, ShouldSample as _, SpanData},
};
use tracing::{field, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Keeps spans; waits before each batch while there is somebody to wait for.
#[derive(Debug)]
struct Kept {
    spans: Arc<Mutex<Vec<SpanData>>>,
    release: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Kept {
    fn new(release: Option<mpsc::Receiver<()>>) -> (Self, Arc<Mutex<Vec<SpanData>>>) {
        let spans = Arc::<Mutex<Vec<SpanData>>>::default();
        (Self { spans: Arc::clone(&spans), release: Mutex::new(release) }, spans)
    }
}

impl Export for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if let Some(release) = self.release.lock().unwrap().as_ref() {
            let _released_or_gone = release.recv();
        }
        self.spans.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn span_context(is_sampled: bool) -> SpanContext {
    let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(TraceId::from(7), SpanId::from(8), flags, true, TraceState::default())
}

#[test]
fn a_child_obeys_its_parent_a_batch_its_calls_and_the_rest_the_ratio() {
    let sampled = |ratio: f64, parent: Option<bool>, links: &[bool]| {
        let parent = parent.map(|is_sampled| Context::new().with_remote_span_context(span_context(is_sampled)));
        let links: Vec<Link> = links.iter().map(|is_sampled| Link::with_context(span_context(*is_sampled))).collect();
        let sampler = sampler::Sampler::new(ratio);
        let result = sampler.should_sample(parent.as_ref(), TraceId::from(9), "x", &SpanKind::Internal, &[], &links);
        result.decision == SamplingDecision::RecordAndSample
    };
    assert!(sampled(0.0, Some(true), &[]) && !sampled(1.0, Some(false), &[]));
    assert!(sampled(0.0, None, &[false, true]) && !sampled(1.0, None, &[false, false]));
    assert!(!sampled(1.0, Some(false), &[true]), "what a caller does not want is not sent for a link");
    assert!(sampled(1.0, None, &[]) && !sampled(0.0, None, &[]));
}

#[test]
fn a_collector_that_does_not_answer_costs_spans_and_no_time() {
    let (release, released) = mpsc::channel();
    let (exporter, kept) = Kept::new(Some(released));
    let provider = SdkTracerProvider::builder().with_span_processor(export::bounded(exporter, 4)).build();
    let tracer = provider.tracer("test");
    // Would not end if anything waited for the exporter.
    (0..20).for_each(|_| drop(tracer.start("span")));
    drop(release);
    provider.shutdown_with_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(kept.lock().unwrap().len(), 4, "as many as have room, the rest is dropped");
}

#[test]
fn values_out_of_range_are_refused_by_their_key() {
    let of = |config: TraceConfig| layer(&config).err().map(|error| error.to_string());
    assert_eq!(of(TraceConfig::default()), None);
    for sample_ratio in [-0.1, 1.1, f64::NAN] {
        let problem = of(TraceConfig { sample_ratio, ..TraceConfig::default() }).unwrap();
        assert!(problem.starts_with("trace.sample_ratio is"), "{problem}");
    }
    let problem = of(TraceConfig { max_queue_spans: 0, ..TraceConfig::default() }).unwrap();
    assert!(problem.starts_with("trace.max_queue_spans is 0"), "{problem}");
    let nowhere = TraceConfig { enabled: true, endpoint: "no address".into(), ..TraceConfig::default() };
    assert!(of(nowhere).unwrap().contains("trace.endpoint"));
}

/// The span of a call with these headers that ended with `code`, and what is said of its trace.
fn call(traceparent: Option<&str>, code: Option<i32>) -> (Vec<SpanData>, Option<String>) {
    let (exporter, kept) = Kept::new(None);
    let (layer, traces) = layer_to(exporter, &TraceConfig::default());
    IS_ON.store(true, Ordering::Relaxed);
    let trace_id = tracing::subscriber::with_default(Registry::default().with(layer), || {
        let span = info_span!("request", otel.kind = field::Empty);
        let header = |name: &str| traceparent.filter(|_| name == "traceparent");
        let mut rpc = RpcSpan::begin(&span, "/densevit.v1.DenseVision/Extract", header).unwrap();
        rpc.in_scope(|| drop(tracing::debug_span!("decode")));
        rpc.ended_if(code);
        rpc.ended_if(None);
        rpc.trace_id()
    });
    traces.flush(Duration::from_secs(60));
    let spans = kept.lock().unwrap().clone();
    (spans, trace_id)
}

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.clone())
}

#[test]
fn a_call_is_a_child_of_its_caller_and_says_what_it_was() {
    let (spans, trace_id) = call(Some(CALLER), Some(0));
    let [decode, request] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((request.span_context.trace_id().to_string(), request.parent_span_id.to_string()), (TRACE.into(), PARENT.into()));
    assert_eq!((trace_id.as_deref(), request.span_kind.clone()), (Some(TRACE), SpanKind::Server));
    assert_eq!(request.name, "densevit.v1.DenseVision/Extract");
    for (key, expected) in [
        ("rpc.system", Value::from("grpc")),
        ("rpc.service", "densevit.v1.DenseVision".into()),
        ("rpc.method", "Extract".into()),
        ("rpc.grpc.status_code", Value::I64(0)),
    ] {
        assert_eq!(attribute(request, key), Some(expected), "{key}");
    }
    assert_eq!((decode.name.as_ref(), decode.parent_span_id), ("decode", request.span_context.span_id()));
}

#[test]
fn faults_of_the_server_are_errors_and_calls_without_an_end_are_cancelled() {
    for (code, expected, is_error) in [(Some(3), 3, false), (Some(13), 13, true), (None, 1, false)] {
        let (spans, _) = call(None, code);
        let request = spans.last().unwrap();
        assert_eq!(attribute(request, "rpc.grpc.status_code"), Some(Value::I64(expected)));
        assert_eq!(matches!(request.status, Status::Error { .. }), is_error, "{code:?}");
    }
}

#[test]
fn a_call_that_its_caller_does_not_trace_is_not_sent() {
    let (spans, trace_id) = call(Some(&CALLER.replace("-01", "-00")), Some(0));
    assert!(spans.is_empty(), "{spans:?}");
    assert_eq!(trace_id.as_deref(), Some(TRACE), "but the log still knows it");
}
