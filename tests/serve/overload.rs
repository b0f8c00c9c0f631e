//! Deadlines, cancellation and overload.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::{client, encoded, features, heavy, patient_client, png, request, server, server_with};

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
    let begun = Instant::now();
    let status = patient_client(&server).extract(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(begun.elapsed() >= Duration::from_millis(30), "not before the deadline");
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
    server.idle().await;
    server.stop().await;
}
