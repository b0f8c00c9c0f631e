//! Peers that break the rules of HTTP/2, or keep them and mean no good: each is bounded, and others are served meanwhile.

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, Peer, RST_STREAM, SETTINGS, Writer,
        call, frame, grpc, header,
    },
    support::{TestServer, client, encoded, features, png, request, server, server_with},
};

/// Setting of the window of new streams (RFC 9113, section 6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;
/// "431", Request Header Fields Too Large, in the code of RFC 7541, appendix B.
const STATUS_431: [u8; 3] = [0x69, 0x90, 0xFF];
/// Far more than sockets of both sides buffer, and than any honest peer sends of what is sent here.
const FLOOD_BYTES: usize = 64 << 20;
/// A write that has not gone on for so long has been stopped by the other side.
const STUCK: Duration = Duration::from_secs(2);

/// Another client, on a connection of its own, gets an answer.
async fn assert_others_are_served(server: &TestServer) {
    let answer = async { client(server).await.extract(request(encoded(png(32, 32)), features(0))).await };
    timeout(Duration::from_secs(60), answer).await.expect("others are served").unwrap();
}

/// Sends `part` again and again, until the server ends the connection, or takes nothing more; says how many bytes it took. The connection is
/// not closed from here.
fn flood(mut writer: Writer, part: Vec<u8>) -> JoinHandle<(Writer, usize)> {
    let parts = part.repeat((64 << 10) / part.len());
    tokio::spawn(async move {
        let mut n_sent = 0;
        while n_sent < FLOOD_BYTES {
            match timeout(STUCK, writer.send(&parts)).await {
                Ok(Ok(())) => n_sent += parts.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        (writer, n_sent)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_fast_as_they_are_opened_end_the_connection() {
    let server = server().await;
    let mut peer = Peer::connect(server.address(), &[]).await;
    let streams: Vec<u8> = (0..5000u32)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            [frame(HEADERS, END_HEADERS, stream, &call()), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
        })
        .collect();
    let writing = tokio::spawn(async move { peer.writer.send(&streams).await });
    assert_others_are_served(&server).await;
    assert_eq!(peer.reader.farewell().await, ENHANCE_YOUR_CALM);
    let _cut_off = writing.await.unwrap();
    server.idle().await;
    assert_others_are_served(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_whose_answers_nobody_reads_stop_by_themselves_and_the_connection_is_dropped() {
    let server = server_with(&[("grpc.idle_timeout_s", "3"), ("grpc.keepalive_s", "0")]).await;
    for part in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let Peer { mut reader, writer } = Peer::connect(server.address(), &[]).await;
        let flooding = flood(writer, part);
        assert_others_are_served(&server).await;
        let (_open, n_sent) = flooding.await.unwrap();
        assert!(n_sent < FLOOD_BYTES, "more than sockets hold is not taken");
        sleep(STUCK * 3).await;
        // What waited in the sockets comes first, then the end: the server has not waited for this reader.
        while reader.next().await.is_some() {}
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_is_answered_ping_by_ping_while_others_are_served() {
    let server = server().await;
    let Peer { mut reader, mut writer } = Peer::connect(server.address(), &[]).await;
    let n_pings = 200_000;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(n_pings);
    let writing = tokio::spawn(async move {
        writer.send(&pings).await.unwrap();
        writer
    });
    let reading = tokio::spawn(async move {
        for _ in 0..n_pings {
            reader.find(|frame| frame.kind == PING && frame.flags == ACK).await.unwrap();
        }
    });
    for _ in 0..5 {
        assert_others_are_served(&server).await;
    }
    reading.await.unwrap();
    writing.await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_end_the_connection() {
    let server = server().await;
    let mut peer = Peer::connect(server.address(), &[]).await;
    peer.writer.send(&frame(HEADERS, 0, 1, &call())).await.unwrap();
    let flooding = flood(peer.writer, frame(CONTINUATION, 0, 1, &header("x", "y")));
    assert_others_are_served(&server).await;
    assert_eq!(peer.reader.farewell().await, ENHANCE_YOUR_CALM);
    assert!(flooding.await.unwrap().1 < FLOOD_BYTES);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_the_limit_refuse_the_call_and_no_other_of_the_connection() {
    let server = server_with(&[("grpc.max_header_bytes", "4096")]).await;
    let mut peer = Peer::connect(server.address(), &[]).await;
    let long = [call(), header("x-long", &"y".repeat(6000))].concat();
    peer.writer.send(&frame(HEADERS, END_HEADERS, 1, &long)).await.unwrap();
    let answer = peer.reader.find(|frame| frame.stream == 1).await.unwrap();
    assert!(answer.kind == HEADERS && answer.payload.ends_with(&STATUS_431), "{answer:?}");
    let body = grpc(&request(encoded(png(32, 32)), features(0)));
    peer.writer.send(&frame(HEADERS, END_HEADERS, 3, &call())).await.unwrap();
    peer.writer.send(&frame(DATA, END_STREAM, 3, &body)).await.unwrap();
    assert!(peer.reader.find(|frame| frame.stream == 3 && frame.kind == DATA).await.is_some());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_keep_their_place_and_are_dropped_in_time() {
    let server =
        server_with(&[("grpc.send_timeout_s", "2"), ("limits.max_in_flight", "4"), ("limits.max_tenant_percent", "50")]).await;
    // No byte of an answer may be sent, and the connection is alive.
    let mut peer = Peer::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let body = grpc(&request(encoded(png(32, 32)), features(0)));
    for stream in [1, 3] {
        peer.writer.send(&frame(HEADERS, END_HEADERS, stream, &call())).await.unwrap();
        peer.writer.send(&frame(DATA, END_STREAM, stream, &body)).await.unwrap();
    }
    for _ in 0..2 {
        assert!(peer.reader.find(|frame| frame.kind == HEADERS).await.is_some(), "both are answered");
    }
    server.in_flight(2).await;
    let refused = client(&server).await.extract(request(encoded(png(32, 32)), features(0))).await.unwrap_err();
    assert!(refused.message().contains("limits.max_tenant_percent"), "unread answers are in flight: {refused}");
    for _ in 0..2 {
        assert!(peer.reader.find(|frame| frame.kind == RST_STREAM).await.is_some(), "given up");
    }
    server.idle().await;
    assert_others_are_served(&server).await;
    // The connection is not at fault.
    peer.writer.send(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
    assert!(peer.reader.find(|frame| frame.kind == PING && frame.flags == ACK).await.is_some());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_are_refused_in_time() {
    let server = server_with(&[("grpc.receive_timeout_s", "1")]).await;
    let mut peer = Peer::connect(server.address(), &[]).await;
    let body = grpc(&request(encoded(png(64, 64)), features(0)));
    peer.writer.send(&frame(HEADERS, END_HEADERS, 1, &call())).await.unwrap();
    peer.writer.send(&frame(DATA, 0, 1, &body[..body.len() / 2])).await.unwrap();
    assert_others_are_served(&server).await;
    let answer = peer.reader.find(|frame| frame.stream == 1 && frame.kind == HEADERS).await.unwrap();
    // DEADLINE_EXCEEDED, in headers that end the stream.
    assert!(answer.flags & END_STREAM != 0, "{answer:?}");
    server.idle().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_cannot_hold_all_the_room_for_requests_that_have_not_arrived() {
    let settings = [("grpc.max_arriving_bytes", "8000000"), ("grpc.max_message_bytes", "1000000")];
    let server = server_with(&settings).await;
    let mut peer = Peer::connect(server.address(), &[]).await;
    // A message of 900,000 bytes of which 800,000 come: two of them fit a quarter of the room.
    let begun = [&[0][..], &900_000u32.to_be_bytes(), &vec![7; 800_000]].concat();
    for stream in [1, 3, 5] {
        peer.writer.send(&frame(HEADERS, END_HEADERS, stream, &call())).await.unwrap();
        for part in begun.chunks(200_000) {
            peer.writer.send(&frame(DATA, 0, stream, part)).await.unwrap();
        }
    }
    let refused = peer.reader.find(|frame| frame.kind == HEADERS).await.unwrap();
    // The one that comes last, whichever it is.
    assert!(refused.flags & END_STREAM != 0, "{refused:?}");
    assert_others_are_served(&server).await;
    drop(peer);
    server.stop().await;
}
