//! Deadlines, cancellation and overload.

use std::time::Duration;

use densevit::pb::v1 as pb;
use tokio::task::JoinSet;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::{client, encoded, features, png, request, server, server_with};

/// A request that keeps the tiny model busy for a while: 1,024 x 1,024 pixels are 4,096 tokens.
fn heavy() -> pb::ExtractRequest {
    let mut message = request(encoded(png(64, 64)), features(0));
    let size = pb::Size { height: 1024, width: 1024 };
    message.preprocess = Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() });
    message
}

#[tokio::test]
async fn a_full_server_refuses_at_once_and_says_when_to_retry() {
    let server = server_with(&[("limits.max_in_flight", "2")]).await;
    let mut calls = JoinSet::new();
    for _ in 0..12 {
        let mut client = client(&server).await;
        calls.spawn(async move { client.extract(heavy()).await });
    }
    let (mut n_ok, mut n_refused) = (0, 0);
    while let Some(outcome) = calls.join_next().await {
        match outcome.unwrap() {
            Ok(_) => n_ok += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().contains("limits.max_in_flight"), "{}", status.message());
                assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
                n_refused += 1;
            }
        }
    }
    assert!(n_ok >= 2, "what was accepted is answered");
    assert_eq!(n_ok + n_refused, 12);
    assert!(n_refused > 0, "twelve heavy calls at once exceed two in flight");
    client(&server).await.extract(request(encoded(png(32, 32)), features(0))).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_is_deadline_exceeded() {
    let server = server().await;
    let mut blockers = JoinSet::new();
    for _ in 0..4 {
        let mut client = client(&server).await;
        blockers.spawn(async move { client.extract(heavy()).await.map(|_| ()) });
    }
    server.busy().await;
    let mut late = Request::new(heavy());
    late.metadata_mut().insert("grpc-timeout", "30m".parse().unwrap());
    let status = client(&server).await.extract(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    while let Some(outcome) = blockers.join_next().await {
        outcome.unwrap().unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn calls_that_are_cancelled_leave_the_server() {
    let server = server().await;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let mut client = client(&server).await;
        calls.spawn(async move { client.extract(heavy()).await.map(|_| ()) });
    }
    server.busy().await;
    calls.shutdown().await;
    tokio::time::timeout(Duration::from_secs(20), server.idle()).await.expect("cancelled calls stay in flight");
    server.stop().await;
}
