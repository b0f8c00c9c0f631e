//! Clients that do not read what they asked for.

use std::time::Duration;

use densevit::grpc::pb::v1::{self as pb, dense_vision_client::DenseVisionClient};
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint},
};

use crate::support::{TestServer, client, encoded, features, png, request, server, server_with};

/// A map of 64 x 64 x 64 values in fp32.
const ANSWER_BYTES: usize = 1 << 20;
/// HTTP/2's own default: what a client takes of an answer before it reads.
const WINDOW_BYTES: u32 = 65_535;

/// A small file as an input of 512 x 512 pixels, with one LiFT pass: 1 MiB of map, 1.8 MB with everything.
fn large_answer(tenant: &str) -> Request<pb::ExtractRequest> {
    let mut message = request(encoded(png(64, 64)), features(1));
    let size = pb::Size { height: 512, width: 512 };
    message.preprocess = Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() });
    let mut request = Request::new(message);
    request.metadata_mut().insert("densevit-tenant", tenant.parse().unwrap());
    request
}

/// A connection whose windows are soon full.
async fn narrow(server: &TestServer) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
    endpoint.initial_stream_window_size(WINDOW_BYTES).connect().await.unwrap()
}

/// Asks for one message and does not read it.
async fn ask(channel: &Channel, tenant: &str) -> Result<Streaming<pb::ExtractResponse>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/densevit.v1.DenseVision/Extract");
    let codec = tonic_prost::ProstCodec::<pb::ExtractRequest, pb::ExtractResponse>::default();
    Ok(grpc.server_streaming(large_answer(tenant), path, codec).await?.into_inner())
}

#[tokio::test]
async fn readers_that_stop_hold_up_nobody_and_no_more_memory_than_their_share() {
    // Half of 8 MiB: two requests of 1.8 MB, which keep their places until their answers are read, and not a third.
    let server = server_with(&[("limits.max_in_flight_bytes", "8388608"), ("limits.max_tenant_percent", "50")]).await;
    let stuck = narrow(&server).await;
    let unread = [ask(&stuck, "stuck").await.unwrap(), ask(&stuck, "stuck").await.unwrap()];
    let refused = ask(&stuck, "stuck").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("limits.max_in_flight_bytes"), "{}", refused.message());

    let mut others = client(&server).await;
    for _ in 0..10 {
        let answer = others.extract(large_answer("other")).await.unwrap().into_inner();
        assert_eq!(answer.data.len(), ANSWER_BYTES);
    }
    // Even on the same connection.
    let same = ask(&stuck, "other").await.unwrap().message().await.unwrap().unwrap();
    assert_eq!(same.data.len(), ANSWER_BYTES);

    let [read, left] = unread;
    drop(left);
    let (mut read, mut n_bytes) = (read, 0);
    while let Some(message) = read.message().await.unwrap() {
        n_bytes += message.data.len();
    }
    assert_eq!(n_bytes, ANSWER_BYTES, "what was not read for long is still whole");
    let again = async {
        while ask(&stuck, "stuck").await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), again).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_chunked_answer_that_nobody_read_for_long_is_still_whole() {
    let server = server().await;
    let mut stuck = DenseVisionClient::new(narrow(&server).await);
    let mut chunks = stuck.extract_chunked(large_answer("stuck")).await.unwrap().into_inner();
    let mut others = client(&server).await;
    for _ in 0..3 {
        others.extract(large_answer("other")).await.unwrap();
    }
    let mut n_bytes = 0;
    while let Some(chunk) = chunks.message().await.unwrap() {
        if let Some(pb::extract_chunk::Part::Band(band)) = chunk.part {
            assert_eq!(crc32fast::hash(&band.data), band.crc32);
            n_bytes += band.data.len();
        }
    }
    assert_eq!(n_bytes, ANSWER_BYTES);
    server.stop().await;
}
