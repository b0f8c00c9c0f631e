//! Deadlines, cancellation and overload.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::{client, encoded, features, heavy, patient_client, png, png_header, request, server, server_with};

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
async fn a_deadline_that_cannot_be_met_is_refused_at_once_or_exceeded_on_time() {
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
    match status.code() {
        // By the forecast, when it has come to the queue; else wherever it is when the time is over.
        Code::ResourceExhausted => assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO),
        Code::DeadlineExceeded => assert!(begun.elapsed() >= Duration::from_millis(30), "not before the deadline"),
        _ => panic!("{status}"),
    }
    while let Some(outcome) = blockers.join_next().await {
        outcome.unwrap().unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_queue_would_refuse_is_refused_before_its_image_is_decoded() {
    let server = server_with(&[("batch.max_queue_count", "1")]).await;
    let mut first = client(&server).await;
    let running = tokio::spawn(async move { first.extract(heavy()).await.map(|_| ()) });
    server.busy().await;
    let mut client = client(&server).await;
    let refused = loop {
        let status = client.extract(request(encoded(png_header(64, 64)), features(0))).await.unwrap_err();
        // The file has a header and no pixels, which is found out only while the other one is not yet in the queue.
        if status.code() != Code::InvalidArgument {
            break status;
        }
        assert!(!running.is_finished(), "the queue was never full");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    running.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_one_tenant_leaves_room_for_another() {
    let server = server_with(&[("limits.max_in_flight", "4"), ("limits.max_tenant_percent", "50")]).await;
    let of_tenant = |tenant: &str, message| {
        let mut request = Request::new(message);
        request.metadata_mut().insert("densevit-tenant", tenant.parse().unwrap());
        request
    };
    let mut flood = JoinSet::new();
    for _ in 0..2 {
        let (mut client, request) = (client(&server).await, of_tenant("flood", heavy()));
        flood.spawn(async move { client.extract(request).await.map(|_| ()) });
    }
    server.in_flight(2).await;
    let mut client = client(&server).await;
    let small = || request(encoded(png(32, 32)), features(0));
    let refused = client.extract(of_tenant("flood", small())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("limits.max_tenant_percent"), "{}", refused.message());
    client.extract(of_tenant("victim", small())).await.unwrap();
    while let Some(outcome) = flood.join_next().await {
        outcome.unwrap().unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn metadata_that_names_no_tenant_or_priority_is_refused_by_its_key() {
    let server = server().await;
    let mut client = client(&server).await;
    let with = |key: &'static str, value: &str| {
        let mut request = Request::new(request(encoded(png(32, 32)), features(0)));
        request.metadata_mut().insert(key, value.parse().unwrap());
        request
    };
    for (key, value) in [("densevit-tenant", "a b"), ("densevit-priority", "urgent")] {
        let status = client.extract(with(key, value)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, key);
    }
    client.extract(with("densevit-priority", "bulk")).await.unwrap();
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
