//! gRPC-Web: calls over HTTP/1.1, as a browser makes them, and the headers that let it.

use std::net::SocketAddr;

use densevit::grpc::pb::{
    inference::{ModelInferRequest, ModelInferResponse, ServerReadyResponse, model_infer_request::InferInputTensor},
    v1::ListModelsResponse,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{TestServer, config, png, server, server_from};

const ORIGIN: &str = "https://example.org";

async fn web_server() -> TestServer {
    let mut config = config(&[]);
    config.grpc.web.enabled = true;
    config.grpc.web.allow_origins = vec![ORIGIN.to_owned()];
    server_from(config).await
}

/// Head and body of an answer.
async fn ask(address: SocketAddr, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}Host: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    // What is no HTTP/1.1 server may also break the connection off.
    let _broken_off = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { unchunked(&answer[end..]) } else { answer[end..].to_vec() };
    (head, body)
}

/// Chunks of HTTP/1.1: length in hexadecimal, line end, bytes, line end.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 2 + length + 2..];
    }
    body
}

/// Calls an RPC as a browser does. Returns the head of the answer, its message, and its trailers.
async fn call<T: Message + Default>(server: &TestServer, path: &str, message: &impl Message) -> (String, T, String) {
    let encoded = message.encode_to_vec();
    let body = [&[0][..], &u32::try_from(encoded.len()).unwrap().to_be_bytes(), &encoded].concat();
    let head =
        format!("POST {path} HTTP/1.1\r\nContent-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\nOrigin: {ORIGIN}\r\n");
    let (head, body) = ask(server.address(), &head, &body).await;
    assert_eq!(body[0], 0, "{head}");
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    let (message, trailers) = body[5..].split_at(length);
    assert_eq!(trailers[0], 0x80, "the frame of trailers");
    (head, T::decode(message).unwrap(), String::from_utf8_lossy(&trailers[5..]).into_owned())
}

#[tokio::test]
async fn a_browser_can_ask_both_services() {
    let server = web_server().await;
    let empty = densevit::grpc::pb::v1::ListModelsRequest {};
    let (head, models, trailers) = call::<ListModelsResponse>(&server, "/densevit.v1.DenseVision/ListModels", &empty).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains(&format!("access-control-allow-origin: {ORIGIN}")), "{head}");
    assert!(head.contains("access-control-expose-headers: grpc-status"), "{head}");
    assert_eq!((models.models.len(), trailers.contains("grpc-status:0")), (2, true), "{trailers:?}");

    let path = "/inference.GRPCInferenceService/";
    let empty = densevit::grpc::pb::inference::ServerReadyRequest {};
    let (_, ready, _) = call::<ServerReadyResponse>(&server, &format!("{path}ServerReady"), &empty).await;
    assert!(ready.ready);
    let file = png(32, 48);
    let raw = [&u32::try_from(file.len()).unwrap().to_le_bytes()[..], &file].concat();
    let input = InferInputTensor { name: "image".into(), datatype: "BYTES".into(), shape: vec![1], ..Default::default() };
    let message = ModelInferRequest { inputs: vec![input], raw_input_contents: vec![raw.into()], ..Default::default() };
    let (_, answer, trailers) = call::<ModelInferResponse>(&server, &format!("{path}ModelInfer"), &message).await;
    let n_values = answer.outputs[0].shape.iter().product::<i64>();
    assert_eq!(answer.raw_output_contents[0].len(), usize::try_from(n_values * 4).unwrap(), "{trailers}");
    server.stop().await;
}

#[tokio::test]
async fn only_pages_of_allowed_origins_are_let_in() {
    let server = web_server().await;
    for (origin, is_allowed) in [(ORIGIN, true), ("https://elsewhere.org", false)] {
        let head = format!(
            "OPTIONS /densevit.v1.DenseVision/Extract HTTP/1.1\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type,x-grpc-web\r\n"
        );
        let (head, _body) = ask(server.address(), &head, &[]).await;
        assert_eq!(head.contains("access-control-allow-origin"), is_allowed, "{head}");
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    server.stop().await;
}

#[tokio::test]
async fn browsers_are_not_answered_unless_they_are_welcome() {
    let server = server().await;
    let head = "POST /densevit.v1.DenseVision/ListModels HTTP/1.1\r\nContent-Type: application/grpc-web+proto\r\n";
    let (head, _body) = ask(server.address(), head, &[0; 5]).await;
    assert!(!head.contains("200 ok"), "{head}");
    server.stop().await;
}
