//! The response cache: what is answered without a run, what is not, and what leaves.

use std::time::Duration;

use densevit::grpc::pb::{
    inference::{self as kserve, grpc_inference_service_client::GrpcInferenceServiceClient},
    v1 as pb,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Code, Request};

use crate::support::{TestServer, channel, client, encoded, features, heavy, patient_client, png, request, server_with};

/// A server that keeps answers.
async fn caching(settings: &[(&str, &str)]) -> TestServer {
    let settings = [&[("cache.max_bytes", "8000000"), ("models.control", "true")][..], settings].concat();
    server_with(&settings).await
}

async fn statistics(server: &TestServer, model: &str) -> kserve::ModelStatistics {
    let mut client = GrpcInferenceServiceClient::new(channel(server).await);
    let asked = kserve::ModelStatisticsRequest { name: model.into(), version: String::new() };
    client.model_statistics(asked).await.unwrap().into_inner().model_stats.remove(0)
}

/// Images that were run.
async fn n_run(server: &TestServer) -> u64 {
    statistics(server, "tiny").await.batch_stats.iter().map(|runs| runs.batch_size * runs.compute_infer.unwrap().count).sum()
}

async fn extract(server: &TestServer, message: pb::ExtractRequest) -> (pb::FeatureHeader, bytes::Bytes) {
    let answer = client(server).await.extract(message).await.unwrap().into_inner();
    (answer.header.unwrap(), answer.data)
}

fn source(header: &pb::FeatureHeader) -> pb::Source {
    header.timing.as_ref().unwrap().source()
}

/// All of a header but its times.
fn untimed(header: pb::FeatureHeader) -> pb::FeatureHeader {
    pb::FeatureHeader { timing: None, ..header }
}

fn small() -> pb::ExtractRequest {
    request(encoded(png(32, 48)), pb::FeatureOptions { cls_token: true, ..features(1) })
}

#[tokio::test]
async fn an_equal_request_is_answered_without_a_run_by_the_same_bytes() {
    let server = caching(&[]).await;
    let (first, first_data) = extract(&server, small()).await;
    let (second, second_data) = extract(&server, small()).await;
    assert_eq!((source(&first), source(&second)), (pb::Source::Run, pb::Source::Cache));
    assert_eq!((untimed(first), first_data), (untimed(second.clone()), second_data));
    let timing = second.timing.unwrap();
    assert!(timing.cache_ms > 0.0 && timing.backbone_ms == 0.0 && timing.batch_size == 0, "{timing:?}");
    assert_eq!(n_run(&server).await, 1);
    let counts = statistics(&server, "tiny").await.inference_stats.unwrap();
    assert_eq!((counts.cache_hit.unwrap().count, counts.cache_miss.unwrap().count), (1, 1));
    assert_eq!((counts.success.unwrap().count, counts.queue.unwrap().count), (2, 1));
    server.stop().await;
}

#[tokio::test]
async fn all_calls_share_what_is_kept() {
    let server = caching(&[]).await;
    let (_, data) = extract(&server, request(encoded(png(32, 48)), features(0))).await;
    let message = request(encoded(png(32, 48)), features(0));
    let mut chunks = client(&server).await.extract_chunked(message.clone()).await.unwrap().into_inner();
    let Some(pb::extract_chunk::Part::Header(header)) = chunks.message().await.unwrap().unwrap().part else { panic!() };
    assert_eq!(source(&header.header.unwrap()), pb::Source::Cache);
    let asked = pb::ExtractStreamRequest { id: "1".into(), request: Some(message), ..Default::default() };
    let mut answers = client(&server).await.extract_stream(tokio_stream::iter([asked])).await.unwrap().into_inner();
    let Some(pb::extract_stream_response::Result::Response(response)) = answers.message().await.unwrap().unwrap().result else {
        panic!()
    };
    assert_eq!((source(&response.header.unwrap()), response.data), (pb::Source::Cache, data.clone()));

    // The Open Inference Protocol asks the same in other words, image by image.
    let file = png(32, 48);
    let mut kserve = GrpcInferenceServiceClient::new(channel(&server).await);
    for (n_cached, files) in [(1, vec![&file]), (2, vec![&file, &file])] {
        let answer = kserve.model_infer(crate::kserve::infer_files(&files)).await.unwrap().into_inner();
        let cached = answer.parameters.get("from_cache").and_then(|parameter| parameter.parameter_choice.clone());
        assert_eq!(cached, Some(kserve::infer_parameter::ParameterChoice::Int64Param(n_cached)));
        assert_eq!(answer.raw_output_contents[0], vec![data.clone(); files.len()].concat());
    }
    server.stop().await;
}

#[tokio::test]
async fn masks_are_kept_with_the_features_beside_them() {
    let server = caching(&[]).await;
    let message = |format| pb::SegmentRequest {
        image: Some(encoded(png(32, 48))),
        masks: Some(pb::SegmentOptions { format: format as i32, ..Default::default() }),
        features: Some(features(0)),
        ..Default::default()
    };
    for format in [pb::MaskFormat::Labels, pb::MaskFormat::Bits, pb::MaskFormat::Rle, pb::MaskFormat::Polygons] {
        let mut answers = Vec::new();
        for expected in [pb::Source::Run, pb::Source::Cache] {
            let mut answer = client(&server).await.segment(message(format)).await.unwrap().into_inner();
            let mut header = answer.header.take().unwrap();
            assert_eq!(header.timing.take().unwrap().source(), expected);
            let mut features = answer.features.take().unwrap();
            features.header.as_mut().unwrap().timing = None;
            answers.push((header, answer, features));
        }
        assert_eq!(answers[0], answers[1], "{format:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn another_option_image_or_model_is_another_request() {
    let server = caching(&[]).await;
    extract(&server, small()).await;
    let others = [
        request(encoded(png(32, 48)), features(1)),
        request(encoded(png(48, 32)), pb::FeatureOptions { cls_token: true, ..features(1) }),
        pb::ExtractRequest { preprocess: None, ..small() },
    ];
    for message in others {
        assert_eq!(source(&extract(&server, message).await.0), pb::Source::Run);
    }
    let named = pb::ModelRef { name: "tiny".into(), version: "1".into() };
    let (header, _) = extract(&server, pb::ExtractRequest { model: Some(named), ..small() }).await;
    assert_eq!(source(&header), pb::Source::Cache, "the model was only named");
    server.stop().await;
}

#[tokio::test]
async fn ten_equal_requests_at_once_run_once_and_whoever_leaves_takes_nothing_from_the_others() {
    let server = caching(&[]).await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let mut client = client(&server).await;
        calls.spawn(async move { client.extract(heavy()).await.unwrap().into_inner().header.unwrap() });
    }
    server.in_flight(10).await;
    // One goes, perhaps the first.
    let mut leaving = patient_client(&server);
    assert!(timeout(Duration::from_millis(5), leaving.extract(heavy())).await.is_err());
    let sources: Vec<pb::Source> = calls.join_all().await.iter().map(source).collect();
    assert!(sources.iter().filter(|source| **source == pb::Source::Run).count() <= 1, "{sources:?}");
    assert_eq!(n_run(&server).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn the_run_goes_on_when_who_began_it_hangs_up() {
    let server = caching(&[]).await;
    let mut leader = client(&server).await;
    let leading = tokio::spawn(async move { leader.extract(heavy()).await });
    server.in_flight(1).await;
    let mut follower = client(&server).await;
    let following = tokio::spawn(async move { follower.extract(heavy()).await });
    server.in_flight(2).await;
    leading.abort();
    let header = following.await.unwrap().unwrap().into_inner().header.unwrap();
    assert_eq!((source(&header), n_run(&server).await), (pb::Source::Shared, 1));
    server.stop().await;
}

#[tokio::test]
async fn who_waited_for_a_request_that_ran_out_of_time_runs_it() {
    let server = caching(&[]).await;
    let hurried = {
        let mut message = Request::new(heavy());
        message.metadata_mut().insert("grpc-timeout", "40m".parse().unwrap());
        let mut client = patient_client(&server);
        tokio::spawn(async move { client.extract(message).await })
    };
    // Long enough to be the first, or else it is alone because it is more urgent: the outcome is one.
    sleep(Duration::from_millis(10)).await;
    let header = client(&server).await.extract(heavy()).await.unwrap().into_inner().header.unwrap();
    assert_eq!(source(&header), pb::Source::Run);
    assert_eq!(hurried.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    server.stop().await;
}

#[tokio::test]
async fn who_waits_for_the_run_of_another_counts_and_keeps_a_deadline_of_its_own() {
    let server = caching(&[("limits.max_in_flight", "2"), ("limits.max_tenant_percent", "100")]).await;
    let mut leader = client(&server).await;
    let leading = tokio::spawn(async move { leader.extract(heavy()).await });
    server.in_flight(1).await;
    let mut hurried = Request::new(heavy());
    // More than half of what the first has left by the horizon, so that it waits, and less than the test has patience for.
    hurried.metadata_mut().insert("grpc-timeout", "4S".parse().unwrap());
    let mut patient = patient_client(&server);
    let following = tokio::spawn(async move { patient.extract(hurried).await });
    server.in_flight(2).await;
    let refused = client(&server).await.extract(heavy()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    leading.await.unwrap().unwrap();
    // On a machine that is too slow for four seconds it is told so.
    assert!(following.await.unwrap().map_or_else(|status| status.code() == Code::DeadlineExceeded, |_answer| true));
    server.idle().await;
    server.stop().await;
}

#[tokio::test]
async fn a_bad_image_is_everybodys_error_and_nobodys_later() {
    let server = caching(&[]).await;
    let bad = || request(encoded(bytes::Bytes::from_static(b"no image")), features(0));
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let mut client = client(&server).await;
        calls.spawn(async move { client.extract(bad()).await.unwrap_err() });
    }
    for status in calls.join_all().await {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("image.encoded"), "{}", status.message());
    }
    let counts = statistics(&server, "tiny").await.inference_stats.unwrap();
    assert_eq!((counts.cache_hit.unwrap().count, counts.fail.unwrap().count), (0, 5));
    server.stop().await;
}

#[tokio::test]
async fn answers_leave_with_their_model() {
    let server = caching(&[]).await;
    let of_registers = || {
        let model = pb::ModelRef { name: "registers".into(), version: String::new() };
        pb::ExtractRequest { model: Some(model), ..request(encoded(png(28, 42)), features(0)) }
    };
    extract(&server, of_registers()).await;
    extract(&server, small()).await;
    assert_eq!(server.n_kept(), 2);
    let mut control = GrpcInferenceServiceClient::new(channel(&server).await);
    let unload = kserve::RepositoryModelUnloadRequest { model_name: "registers".into(), ..Default::default() };
    control.repository_model_unload(unload).await.unwrap();
    assert_eq!(server.n_kept(), 1);
    let load = kserve::RepositoryModelLoadRequest { model_name: "registers".into(), ..Default::default() };
    control.repository_model_load(load).await.unwrap();
    assert_eq!(source(&extract(&server, of_registers()).await.0), pb::Source::Run);
    assert_eq!(source(&extract(&server, small()).await.0), pb::Source::Cache);
    server.stop().await;
}

#[tokio::test]
async fn tenants_have_answers_of_their_own_where_the_configuration_says_so() {
    for (per_tenant, expected) in [("false", pb::Source::Cache), ("true", pb::Source::Run)] {
        let server = caching(&[("cache.per_tenant", per_tenant)]).await;
        let mut sources = Vec::new();
        for tenant in ["a", "b", "a"] {
            let mut message = Request::new(small());
            message.metadata_mut().insert("densevit-tenant", tenant.parse().unwrap());
            sources.push(source(&client(&server).await.extract(message).await.unwrap().into_inner().header.unwrap()));
        }
        assert_eq!(sources, [pb::Source::Run, expected, pb::Source::Cache]);
        server.stop().await;
    }
}

#[tokio::test]
async fn many_different_requests_stay_within_the_bytes_and_large_answers_are_not_kept() {
    // A map of 4 x 6 cells and 64 channels has 6,144 bytes, one of 6 x 6, the last, 9,216.
    let server = caching(&[("cache.max_bytes", "60000")]).await;
    for side in 0..40 {
        let message = request(encoded(png(64 + side, 96)), features(0));
        extract(&server, message.clone()).await;
        assert_eq!(source(&extract(&server, message).await.0), pb::Source::Cache);
        assert!(server.n_kept_bytes() <= 60_000);
    }
    let n_kept = server.n_kept();
    assert!((5..=6).contains(&n_kept), "{n_kept} answers of 9,216 bytes and what stands around them in 60 kB");
    // More than a quarter.
    let large = request(encoded(png(64, 96)), features(1));
    extract(&server, large.clone()).await;
    assert_eq!(source(&extract(&server, large).await.0), pb::Source::Run);
    assert_eq!(server.n_kept(), n_kept);
    server.stop().await;
}

#[tokio::test]
async fn without_a_cache_equal_requests_run_each() {
    let server = server_with(&[]).await;
    for _ in 0..2 {
        assert_eq!(source(&extract(&server, small()).await.0), pb::Source::Run);
    }
    assert_eq!((n_run(&server).await, server.n_kept()), (2, 0));
    server.stop().await;
}

#[tokio::test]
async fn the_stages_of_a_request_add_up_to_its_total() {
    let server = caching(&[]).await;
    for expected in [pb::Source::Run, pb::Source::Cache] {
        let timing = extract(&server, heavy()).await.0.timing.unwrap();
        let pb::Timing { decode_ms, resize_ms, queue_ms, backbone_ms, lift_ms, segment_ms, postprocess_ms, .. } = timing;
        let of_run = decode_ms + resize_ms + queue_ms + backbone_ms + lift_ms + segment_ms + timing.assemble_ms + postprocess_ms;
        let sum = of_run + timing.receive_ms + timing.cache_ms;
        // The clock is read twice between stages: 2 % is what the documentation promises, and some 20,000 instructions here.
        assert!((sum - timing.total_ms).abs() <= 0.02 * timing.total_ms + 0.01, "{sum} of {timing:?}");
        assert_eq!(timing.source(), expected);
    }
    server.stop().await;
}
