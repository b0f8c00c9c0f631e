//! What a collector gets of requests to a server, and what becomes of requests without one.

use std::{io::Read as _, process::Stdio, time::Duration};

use bytes::Bytes;
use densevit::grpc::pb::v1::{self as pb, dense_vision_client::DenseVisionClient};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, transport::Endpoint};

use crate::{
    collector::{Collector, attribute},
    support::{Serving, densevit, models},
};

/// What happens in a request, in this order.
const STAGES: [&str; 5] = ["decode", "resize", "queue", "run", "encode"];
/// The span of the caller of every request.
const PARENT: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// Nanoseconds since 1970.
fn time(span: &Span) -> std::ops::Range<u64> {
    span.start_time_unix_nano..span.end_time_unix_nano
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request of a caller who traces it, or says that nobody shall, for a square of so many pixels.
fn request(trace: [u8; 16], is_sampled: bool, side: u32) -> Request<pb::ExtractRequest> {
    let data = Bytes::from(vec![7; (side * side * 3) as usize]);
    let source = pb::image::Source::Raw(pb::RawImage { height: side, width: side, data });
    let native = pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() };
    let image = Some(pb::Image { source: Some(source) });
    let mut request = Request::new(pb::ExtractRequest { image, preprocess: Some(native), ..Default::default() });
    let traceparent = format!("00-{}-{}-0{}", hex(&trace), hex(&PARENT), u8::from(is_sampled));
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request
}

async fn ask(address: String, request: Request<pb::ExtractRequest>) -> Result<(), Status> {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = DenseVisionClient::new(channel).max_decoding_message_size(usize::MAX);
    client.extract(request).await.map(drop)
}

fn assert_is_call(span: &Span, code: &str) {
    assert_eq!((span.name.as_str(), span.kind), ("densevit.v1.DenseVision/Extract", 2), "a span of a server");
    assert_eq!(span.parent_span_id, PARENT);
    for (key, value) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "densevit.v1.DenseVision"),
        ("rpc.method", "Extract"),
        ("rpc.grpc.status_code", code),
    ] {
        assert_eq!(attribute(span, key).as_deref(), Some(value), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_seen_from_its_caller_to_the_batch_that_it_shared() {
    let (collector, address) = Collector::start().await;
    let mut serving = {
        let mut command = densevit();
        command.args(["serve", "--listen", "127.0.0.1:0", "--no-admin", "--set", "trace.enabled=true"]);
        command.args(["--set", "trace.sample_ratio=0", "--models"]).arg(models());
        // Three share a run when they arrive within a minute.
        command.args(["--set", "batch.max_batch_size=3", "--set", "batch.max_queue_delay_ms=60000"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")).env("OTEL_SERVICE_NAME", "vision");
        // What arrives was sent at the end.
        command.env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
        Serving::start_as(command.stderr(Stdio::null()))
    };
    let traces = [1, 2, 3, 4].map(|n| [n; 16]);
    let [first, second, unwanted, refused] = traces;
    // Two share a run with one that nobody traces.
    let mut calls = JoinSet::new();
    for (trace, is_sampled) in [(first, true), (second, true), (unwanted, false)] {
        calls.spawn(ask(serving.address.clone(), request(trace, is_sampled, 64)));
    }
    calls.join_all().await.into_iter().for_each(|answer| answer.unwrap());
    let mut unknown = request(refused, true, 64);
    unknown.get_mut().model = Some(pb::ModelRef { name: "huge".into(), ..Default::default() });
    let status = ask(serving.address.clone(), unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    serving.signal("-TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));

    assert_eq!(collector.resource("service.name").as_deref(), Some("vision"));
    let mut calls = Vec::new();
    for trace in [first, second] {
        let spans = collector.trace(&trace);
        let call = spans.iter().find(|span| span.kind == 2).unwrap();
        assert_is_call(call, "0");
        let stages =
            STAGES.map(|name| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}")));
        assert!(stages.iter().all(|stage| stage.parent_span_id == call.span_id), "{spans:?}");
        assert_eq!(spans.len(), 1 + STAGES.len());
        let ends: Vec<u64> = [time(call).start].into_iter().chain(stages.iter().map(|stage| time(stage).end)).collect();
        let begins: Vec<u64> = stages.iter().map(|stage| time(stage).start).chain([time(call).end]).collect();
        assert!(ends.iter().zip(&begins).all(|(end, begin)| end <= begin), "one after the other, within the call: {spans:?}");
        calls.push((call.clone(), stages.map(Clone::clone)));
    }
    let batches: Vec<Span> =
        collector.named("batch").into_iter().filter(|batch| batch.links.iter().any(|link| link.trace_id == first)).collect();
    let [batch] = &batches[..] else { panic!("one batch: {batches:?}") };
    assert!(batch.parent_span_id.is_empty());
    assert_eq!(attribute(batch, "batch_size").as_deref(), Some("3"));
    assert!(attribute(batch, "bucket").unwrap().contains("height: 64, width: 64"));
    for (call, stages) in calls {
        assert!(batch.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&call.trace_id, &call.span_id)));
        let run = &stages[3];
        assert!(run.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&batch.trace_id, &batch.span_id)));
        assert!(time(batch).start <= time(run).start && time(run).end <= time(batch).end);
    }
    assert!(collector.trace(&unwanted).is_empty(), "its caller does not want it");
    let [call] = &collector.trace(&refused)[..] else { panic!("a refused request has no stages") };
    assert_is_call(call, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_costs_requests_nothing_and_is_told_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut serving = {
        let mut command = densevit();
        command.args(["serve", "--listen", "127.0.0.1:0", "--no-admin", "--set", "trace.enabled=true", "--set"]);
        command.arg(format!("trace.endpoint=http://{closed}")).arg("--models").arg(models());
        command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
        Serving::start_as(command.stderr(Stdio::piped()))
    };
    let mut log = serving.child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    // Longer than the exporter tries the first batch again.
    for n in 0..20 {
        ask(serving.address.clone(), request([n + 1; 16], true, 32)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    serving.signal("-TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    let log = reading.join().unwrap();
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
}
