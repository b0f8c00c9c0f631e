//! What becomes of requests when something under them ends: they are told, and leave nothing behind.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::{
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, call, frame, grpc},
    support::{client, encoded, features, heavy, png, request, server},
};

/// Setting of the window of new streams (RFC 9113, section 6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_executors_end_are_unavailable_and_none_waits_for_ever() {
    let server = server().await;
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let mut client = client(&server).await;
        calls.spawn(async move { client.extract(heavy()).await.map(drop) });
    }
    server.in_flight(6).await;
    server.end_executors().await;
    let outcomes = timeout(SOON, calls.join_all()).await.expect("nobody waits for ever");
    for status in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    let mut later = client(&server).await;
    let later = timeout(SOON, later.extract(request(encoded(png(32, 32)), features(0))));
    assert_eq!(later.await.unwrap().unwrap_err().code(), Code::Unavailable);
    server.idle().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_its_answer_is_sent_gives_its_place_back() {
    let server = server().await;
    let mut peer = Peer::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let body = grpc(&request(encoded(png(32, 32)), features(0)));
    peer.writer.send(&frame(HEADERS, END_HEADERS, 1, &call())).await.unwrap();
    peer.writer.send(&frame(DATA, END_STREAM, 1, &body)).await.unwrap();
    assert!(peer.reader.find(|frame| frame.stream == 1 && frame.kind == HEADERS).await.is_some(), "it is answered");
    server.in_flight(1).await;
    drop(peer);
    server.idle().await;
    server.stop().await;
}
