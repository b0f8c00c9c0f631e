//! `ExtractStream`: many images in flight on one call.

use std::collections::HashMap;

use bytes::Bytes;
use densevit::grpc::pb::v1::{self as pb, extract_chunk, extract_stream_response::Result as Answer};
use tokio_stream::{StreamExt as _, iter};
use tonic::Code;

use crate::support::{client, encoded, features, png, request, server};

fn message(id: usize, height: u32, width: u32) -> pb::ExtractStreamRequest {
    let request = Some(request(encoded(png(height, width)), features(1)));
    pb::ExtractStreamRequest { id: id.to_string(), request, ..Default::default() }
}

/// 64 images of eight sizes.
fn mixed() -> Vec<pb::ExtractStreamRequest> {
    let side = |idx: usize| 16 * (1 + u32::try_from(idx % 4).unwrap());
    (0..64).map(|idx| message(idx, side(idx), side(idx / 4))).collect()
}

#[tokio::test]
async fn sixty_four_images_of_mixed_sizes_are_all_answered_once_under_their_ids() {
    let server = server().await;
    let sent = mixed();
    let expected: HashMap<String, (u32, u32)> =
        (0..64).map(|idx| (idx.to_string(), (2 * (1 + idx % 4), 2 * (1 + (idx / 4) % 4)))).collect();
    let mut answers = client(&server).await.extract_stream(iter(sent)).await.unwrap().into_inner();
    let mut seen = HashMap::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        let Some(Answer::Response(response)) = answer.result else { panic!("{answer:?}") };
        let header = response.header.unwrap();
        assert!(seen.insert(answer.id, (header.rows, header.cols)).is_none(), "answered twice");
    }
    assert_eq!(seen, expected);
    server.stop().await;
}

#[tokio::test]
async fn answers_keep_the_order_of_the_requests_when_asked_to() {
    let server = server().await;
    let mut sent = mixed();
    sent[0].in_order = true;
    let answers = client(&server).await.extract_stream(iter(sent)).await.unwrap().into_inner();
    let ids: Vec<String> = answers.map(|answer| answer.unwrap().id).collect().await;
    assert_eq!(ids, (0..64).map(|idx: usize| idx.to_string()).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn a_bad_image_fails_its_own_request_and_the_call_goes_on() {
    let server = server().await;
    let mut bad = message(1, 16, 16);
    bad.request.as_mut().unwrap().image = Some(encoded(Bytes::from_static(b"not an image")));
    let empty = pb::ExtractStreamRequest { id: "2".into(), ..Default::default() };
    let sent = vec![message(0, 32, 32), bad, empty, message(3, 32, 32)];
    let mut answers = client(&server).await.extract_stream(iter(sent)).await.unwrap().into_inner();
    let mut outcomes = HashMap::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        let outcome = match answer.result.unwrap() {
            Answer::Error(error) => Some((Code::from(error.code), error.field)),
            _ => None,
        };
        outcomes.insert(answer.id, outcome);
    }
    assert_eq!(outcomes["0"], None);
    assert_eq!(outcomes["1"], Some((Code::InvalidArgument, "image.encoded".to_owned())));
    assert_eq!(outcomes["2"], Some((Code::InvalidArgument, "request".to_owned())));
    assert_eq!(outcomes["3"], None);
    server.stop().await;
}

#[tokio::test]
async fn chunked_answers_on_a_call_come_in_parts_with_their_ids() {
    let server = server().await;
    let mut first = message(7, 64, 64);
    (first.chunked, first.in_order) = (true, true);
    let mut answers = client(&server).await.extract_stream(iter(vec![first, message(8, 32, 32)])).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        let Some(Answer::Chunk(chunk)) = answer.result else { panic!("expected chunks") };
        let name = if matches!(chunk.part, Some(extract_chunk::Part::Header(_))) { "header" } else { "band" };
        parts.push(format!("{} {name}", answer.id));
    }
    assert_eq!(parts, ["7 header", "7 band", "8 header", "8 band"]);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_requests_along() {
    let server = server().await;
    let mut answers = client(&server).await.extract_stream(iter(mixed())).await.unwrap().into_inner();
    let _first = answers.next().await.unwrap().unwrap();
    drop(answers);
    // What was in flight leaves; the server answers others at once, and its count of requests in flight falls to zero.
    client(&server).await.extract(request(encoded(png(32, 32)), features(0))).await.unwrap();
    server.idle().await;
    server.stop().await;
}
