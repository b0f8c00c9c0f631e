//! Readiness, health, reflection, drain.

use std::time::Duration;

use densevit::{
    grpc::pb::v1::{self as pb, dense_vision_client::DenseVisionClient},
    server::Server,
};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{
    channel, channel_to, client, config, encoded, features, heavy, http_get, png, request, server, server_with,
};

#[tokio::test]
async fn health_knows_the_server_the_service_and_each_model() {
    let server = server().await;
    let mut health = HealthClient::new(channel(&server).await);
    for service in ["", "densevit.v1.DenseVision", "models/tiny", "models/registers"] {
        let status = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "models/huge".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test]
async fn until_the_models_are_warm_nothing_serves_and_calls_are_unavailable() {
    let mut server = Server::bind(config(&[("admin.enabled", "true"), ("admin.listen", "127.0.0.1:0")])).await.unwrap();
    let admin = server.admin_address().unwrap();
    let mut health = HealthClient::new(channel_to(server.address()).await);
    let mut client = DenseVisionClient::new(channel_to(server.address()).await);
    for (is_loaded, expected, probe) in [(false, ServingStatus::NotServing, 503), (true, ServingStatus::Serving, 200)] {
        if is_loaded {
            server.load().await.unwrap();
        }
        for service in ["", "densevit.v1.DenseVision", "models/tiny"] {
            let status = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner().status();
            assert_eq!(status, expected, "{service:?}");
        }
        assert!(http_get(admin, "/readyz").await.starts_with(&format!("HTTP/1.1 {probe}")));
        let answer = client.extract(request(encoded(png(32, 32)), features(0))).await;
        assert_eq!(answer.err().map(|status| status.code()), (!is_loaded).then_some(Code::Unavailable));
    }
    server.run(async {}).await;
}

#[tokio::test]
async fn the_admin_port_tells_probes_and_metrics() {
    let server = server_with(&[("admin.enabled", "true"), ("admin.listen", "127.0.0.1:0")]).await;
    client(&server).await.extract(request(encoded(png(32, 32)), features(1))).await.unwrap();
    let admin = server.admin();
    assert!(http_get(admin, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = http_get(admin, "/metrics").await;
    for name in [
        "densevit_request_duration_seconds_bucket",
        "densevit_stage_duration_seconds_sum{stage=\"assemble\"}",
        "densevit_stage_duration_seconds_count{stage=\"send\"}",
        "densevit_batch_size_images_count",
        "densevit_image_cost_seconds_count{model=\"tiny\",outputs=\"features\",cells=\"4\"}",
        "densevit_model_info{model=\"tiny\",version=\"1\",provider=\"cpu\"} 1",
        "densevit_queue_jobs{model=\"tiny\"}",
        "densevit_requests_in_flight_bytes",
        "densevit_connections_open",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    server.stop().await;
}

/// The value of a series.
fn value(metrics: &str, series: &str) -> f64 {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn what_is_refused_before_a_queue_is_counted_by_reason() {
    let settings = [
        ("admin.enabled", "true"),
        ("admin.listen", "127.0.0.1:0"),
        ("grpc.max_message_bytes", "100000"),
        ("limits.max_in_flight_bytes", "200000"),
    ];
    let server = server_with(&settings).await;
    let count = async |reason: &str| {
        value(&http_get(server.admin(), "/metrics").await, &format!("densevit_refusals_total{{reason=\"{reason}\"}}"))
    };
    let image = |n_bytes| encoded(bytes::Bytes::from(vec![0; n_bytes]));
    let mut with_bad_name = tonic::Request::new(request(image(10), features(0)));
    with_bad_name.metadata_mut().insert("densevit-tenant", "a b".parse().unwrap());
    let calls = [
        ("message_size", tonic::Request::new(request(image(200_000), features(0)))),
        ("metadata", with_bad_name),
        // 256 x 256 pixels, twice, of three bytes each.
        ("bytes", tonic::Request::new(request(encoded(png(256, 256)), features(0)))),
    ];
    for (reason, call) in calls {
        // Other tests of this process count as well, so that more may be there.
        let before = count(reason).await;
        client(&server).await.extract(call).await.unwrap_err();
        assert!(count(reason).await > before, "{reason}");
    }
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), format!("[a]\nsha256 = [\"{}\"]\n", "0".repeat(64))).unwrap();
    let locked = server_with(&[("grpc.auth.tokens", tokens.path().to_str().unwrap())]).await;
    let before = count("token").await;
    let status = client(&locked).await.extract(request(image(10), features(0))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(count("token").await > before);
    locked.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn shutdown_under_load_loses_nothing_that_was_accepted() {
    // A budget that the slowest machine does not need.
    let server = server_with(&[("shutdown.budget_s", "600")]).await;
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let mut client = client(&server).await;
        calls.spawn(async move { client.extract(heavy()).await });
    }
    server.in_flight(16).await;
    let address = server.address();
    let begun = std::time::Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(600), "the drain ends with the last call, not with the budget");
    while let Some(outcome) = calls.join_next().await {
        outcome.unwrap().expect("an accepted call was lost");
    }
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "a stopped server takes no connections");
}

#[tokio::test]
async fn a_stuck_client_does_not_hold_the_shutdown_beyond_its_budget() {
    let server = server_with(&[("shutdown.budget_s", "0.5")]).await;
    // The call is open and nothing is ever sent on it.
    let (_never_sent, requests) = tokio::sync::mpsc::channel::<pb::ExtractStreamRequest>(1);
    let outbound = tokio_stream::wrappers::ReceiverStream::new(requests);
    let answers = client(&server).await.extract_stream(outbound).await.unwrap();
    let begun = std::time::Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(answers);
}
