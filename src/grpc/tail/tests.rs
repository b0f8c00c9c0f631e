//! What a reader of the wire gets.
#![expect(clippy::unwrap_used, reason = "tests")]

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};

use super::*;
use crate::grpc::pb::inference::{ModelInferResponse, ModelStreamInferResponse};

/// Numbers of `ModelInferResponse.raw_output_contents` and `ModelStreamInferResponse.infer_response`.
const RAW: u32 = 6;
const INFER_RESPONSE: u32 = 2;

/// A message as the encoder makes it.
fn encoded(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat()
}

/// Sends a body of these frames, and tells what comes out of it before the trailers.
async fn sent(frames: Vec<Vec<u8>>, tails: Tails) -> Vec<Bytes> {
    let frames: Vec<_> = frames.into_iter().map(|frame| Ok::<_, axum::Error>(Frame::data(Bytes::from(frame)))).collect();
    let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
    let all = frames.into_iter().chain([Ok(Frame::trailers(trailers))]);
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(all))));
    response.extensions_mut().insert(tails);
    let mut body = append(response).into_body();
    let mut sent = Vec::new();
    while let Some(frame) = body.frame().await {
        sent.push(frame.unwrap());
    }
    assert!(sent.pop().unwrap().is_trailers(), "trailers come last");
    sent.into_iter().map(|frame| frame.into_data().unwrap()).collect()
}

/// The messages that a reader finds.
fn decoded<T: Message + Default>(sent: &[Bytes]) -> Vec<T> {
    let whole = sent.concat();
    let (mut rest, mut messages) = (&whole[..], Vec::new());
    while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
        let n_bytes = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        messages.push(T::decode(&after[..n_bytes]).unwrap());
        rest = &after[n_bytes..];
    }
    messages
}

fn is_among(buffer: &Bytes, sent: &[Bytes]) -> bool {
    sent.iter().any(|frame| frame.as_ptr() == buffer.as_ptr() && frame.len() == buffer.len())
}

#[tokio::test]
async fn a_reader_gets_the_message_whole_and_the_buffers_are_sent_as_they_are() {
    // 200 bytes and more take two bytes of length; the second value comes in two parts, the third is empty.
    let tensors = [vec![7u8; 300], (0..200).collect(), Vec::new()].map(Bytes::from);
    let message = ModelInferResponse { model_name: "tiny".into(), id: "7".into(), ..Default::default() };
    for frame_bytes in [5, 6, 8, 1000] {
        let mut tail = Tail::default();
        tail.push(RAW, [tensors[0].clone()]);
        tail.push(RAW, [tensors[1].slice(..50), tensors[1].slice(50..)]);
        tail.push(RAW, [tensors[2].clone()]);
        let tails = tail.after(()).respond().extensions_mut().remove::<Tails>().unwrap();
        let sent = sent(encoded(&message).chunks(frame_bytes).map(<[u8]>::to_vec).collect(), tails).await;
        assert!(is_among(&tensors[0], &sent) && is_among(&tensors[1].slice(..50), &sent), "no copy was made");
        let expected = ModelInferResponse { raw_output_contents: tensors.to_vec(), ..message.clone() };
        assert_eq!(decoded::<ModelInferResponse>(&sent), [expected]);
    }
}

#[tokio::test]
async fn messages_of_a_stream_get_their_own_tails_also_within_inner_messages_and_however_they_are_framed() {
    let tensors: Vec<Bytes> = (0..3u8).map(|idx| vec![idx; 300].into()).collect();
    let whole = |idx: usize| ModelInferResponse {
        id: idx.to_string(),
        raw_output_contents: vec![tensors[idx].clone()],
        ..Default::default()
    };
    let failed = || ModelStreamInferResponse { error_message: "failed".into(), infer_response: None };
    let with_tail = |idx: usize| {
        let mut tail = Tail::default();
        tail.push(RAW, whole(idx).raw_output_contents);
        let inner = tail.after(ModelInferResponse { raw_output_contents: Vec::new(), ..whole(idx) });
        inner.inside(INFER_RESPONSE, |inner| ModelStreamInferResponse { error_message: String::new(), infer_response: inner })
    };
    let messages = [with_tail(0), failed().into(), with_tail(1), with_tail(2), failed().into()];
    let mut response = behind_each(stream::iter(messages.map(Ok)));
    let tails = response.extensions_mut().remove::<Tails>().unwrap();
    let encoded: Vec<Vec<u8>> = response.into_inner().map(|message| encoded(&message.unwrap())).collect().await;
    for n_together in [1, 2, 5] {
        let copy = Tails::default();
        tails.0.lock().unwrap().iter().for_each(|tail| {
            copy.push(tail.as_ref().map(|tail| Tail { chunks: tail.chunks.clone(), n_bytes: tail.n_bytes }));
        });
        let sent = sent(encoded.chunks(n_together).map(<[Vec<u8>]>::concat).collect(), copy).await;
        assert!(tensors.iter().all(|tensor| is_among(tensor, &sent)), "no copy was made");
        let ok = |idx| ModelStreamInferResponse { error_message: String::new(), infer_response: Some(whole(idx)) };
        assert_eq!(decoded::<ModelStreamInferResponse>(&sent), [ok(0), failed(), ok(1), ok(2), failed()]);
    }
}

#[tokio::test]
async fn the_encoder_may_send_each_message_with_a_tail_before_the_next_is_made() {
    let messages = [1, 2].map(|idx: u8| Ok(Tail::default().after(idx))).into_iter().chain([Ok(3.into()), Ok(4.into())]);
    let mut answers = behind_each(stream::iter(messages)).into_inner();
    let mut polled = Vec::new();
    for _ in 0..6 {
        let next = std::future::poll_fn(|cx| Poll::Ready(answers.as_mut().poll_next(cx))).await;
        polled.push(next.map(|message| message.map(Result::unwrap)));
    }
    let message = |idx: u8| Poll::Ready(Some(idx));
    assert_eq!(polled, [message(1), Poll::Pending, message(2), Poll::Pending, message(3), message(4)]);
}

#[tokio::test]
async fn a_response_without_a_tail_is_left_alone() {
    let message = ModelInferResponse { id: "7".into(), ..Default::default() };
    let body = Body::from(encoded(&message));
    let sent = append(Response::new(body)).into_body().collect().await.unwrap().to_bytes();
    assert_eq!(sent, encoded(&message));
}
