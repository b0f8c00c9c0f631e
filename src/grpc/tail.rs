//! Tensors behind a message: the last fields of an answer go to the connection as they lie in memory.
//!
//! # Design
//! The encoder of a message can only copy into its own buffer, which for a map of 5 MB means fresh pages and one pass more than needed. So
//! a handler leaves its largest field out of the message and hangs it to the response as a [`Tail`]; the outermost layer corrects the
//! message's length and sends the field's key, its length and the tensors' own buffers after the rest. A reader cannot tell the difference:
//! fields of a protobuf message may come in any order, and these have the highest number anyhow. Parts of one value need not even be
//! put together. An encoder of our own was rejected, because it too is given a buffer to copy into.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::body::Frame;

/// Before each message: one byte for compression, four for the length, big-endian (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
/// Wire type of strings, bytes and messages (protobuf encoding, "Message structure").
const LENGTH_DELIMITED: u32 = 2;

/// Values of one repeated `bytes` field, to be sent after the message that the response holds.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    field: u32,
    chunks: VecDeque<Bytes>,
    n_bytes: usize,
}

impl Tail {
    /// No values yet of the field with this number.
    pub(super) fn new(field: u32) -> Self {
        Self { field, chunks: VecDeque::new(), n_bytes: 0 }
    }

    /// Adds a value, given in parts.
    pub(super) fn push(&mut self, parts: Vec<Bytes>) {
        let n_bytes = parts.iter().map(Bytes::len).sum::<usize>();
        let mut head = BytesMut::with_capacity(2 * 10);
        put_varint(&mut head, u64::from(self.field << 3 | LENGTH_DELIMITED));
        put_varint(&mut head, n_bytes as u64);
        self.n_bytes += head.len() + n_bytes;
        self.chunks.push_back(head.freeze());
        self.chunks.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    /// The answer that the values follow.
    pub(super) fn behind<T>(self, message: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(message);
        response.extensions_mut().insert(self);
        response
    }
}

/// Sends what a handler has hung to its response, if anything.
pub(super) fn append(mut response: Response) -> Response {
    match response.extensions_mut().remove::<Tail>() {
        None => response,
        Some(tail) => response.map(|inner| Body::new(WithTail { inner, tail, left: None })),
    }
}

/// A body of one message, with more of it behind.
struct WithTail {
    inner: Body,
    tail: Tail,
    /// Bytes of the inner message that are still to come; not known before its first frame.
    left: Option<usize>,
}

impl WithTail {
    /// A frame of the inner body; in the first one, the message's length is corrected.
    fn pass(&mut self, data: Bytes) -> io::Result<Bytes> {
        if let Some(left) = self.left {
            self.left = Some(left.saturating_sub(data.len()));
            return Ok(data);
        }
        let broken = || io::Error::other("an answer begins with no whole prefix, or is too long");
        let (prefix, rest) = data.split_first_chunk::<PREFIX_BYTES>().ok_or_else(broken)?;
        let [compressed, length @ ..] = *prefix;
        let n_bytes = u32::from_be_bytes(length) as usize;
        let corrected = n_bytes.checked_add(self.tail.n_bytes).and_then(|sum| u32::try_from(sum).ok()).ok_or_else(broken)?;
        self.left = Some(n_bytes.saturating_sub(rest.len()));
        let mut frame = BytesMut::with_capacity(data.len());
        frame.put_u8(compressed);
        frame.put_u32(corrected);
        frame.put_slice(rest);
        Ok(frame.freeze())
    }
}

impl HttpBody for WithTail {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.left == Some(0)
            && let Some(chunk) = this.tail.chunks.pop_front()
        {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            ended => return Poll::Ready(ended),
        };
        Poll::Ready(Some(match frame.into_data() {
            Ok(data) => this.pass(data).map(Frame::data).map_err(axum::Error::new),
            Err(trailers) => Ok(trailers),
        }))
    }
}

/// Seven bits a byte, lowest first (protobuf encoding, "Base 128 Varints").
fn put_varint(buffer: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    buffer.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http_body_util::{BodyExt as _, StreamBody};
    use prost::Message as _;

    use super::*;
    use crate::grpc::pb::inference::ModelInferResponse;

    /// A response as the encoder makes it, in frames of some size.
    fn response(message: &ModelInferResponse, frame_bytes: usize) -> Response {
        let encoded = message.encode_to_vec();
        let length = u32::try_from(encoded.len()).unwrap().to_be_bytes();
        let body = [&[0][..], &length, &encoded].concat();
        let frames: Vec<_> =
            body.chunks(frame_bytes).map(|chunk| Ok::<_, axum::Error>(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
        let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
        let all = frames.into_iter().chain([Ok(Frame::trailers(trailers))]);
        Response::new(Body::new(StreamBody::new(futures_util::stream::iter(all))))
    }

    async fn frames(response: Response) -> Vec<Frame<Bytes>> {
        let mut body = response.into_body();
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap());
        }
        frames
    }

    #[tokio::test]
    async fn a_reader_gets_the_message_whole_and_the_buffers_are_sent_as_they_are() {
        // 200 bytes and more take two bytes of length; the second value comes in two parts, the third is empty.
        let tensors = [vec![7u8; 300], (0..200).collect(), Vec::new()].map(Bytes::from);
        for frame_bytes in [5, 6, 8, 1000] {
            let message = ModelInferResponse { model_name: "tiny".into(), id: "7".into(), ..Default::default() };
            let mut plain = response(&message, frame_bytes);
            let mut tail = Tail::new(6);
            tail.push(vec![tensors[0].clone()]);
            tail.push(vec![tensors[1].slice(..50), tensors[1].slice(50..)]);
            tail.push(vec![tensors[2].clone()]);
            plain.extensions_mut().insert(tail);
            let mut sent = frames(append(plain)).await;
            assert!(sent.pop().unwrap().is_trailers(), "trailers come last");
            let sent: Vec<Bytes> = sent.into_iter().map(|frame| frame.into_data().unwrap()).collect();
            let own = |tensor: &Bytes| sent.iter().any(|frame| frame.as_ptr() == tensor.as_ptr() && frame.len() == tensor.len());
            assert!(own(&tensors[0]) && own(&tensors[1].slice(..50)), "no copy was made");
            let whole = sent.concat();
            assert_eq!(u32::from_be_bytes(whole[1..5].try_into().unwrap()) as usize, whole.len() - PREFIX_BYTES);
            let expected = ModelInferResponse { raw_output_contents: tensors.to_vec(), ..message };
            assert_eq!(ModelInferResponse::decode(&whole[PREFIX_BYTES..]).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_response_without_a_tail_is_left_alone() {
        let message = ModelInferResponse { id: "7".into(), ..Default::default() };
        let sent = frames(append(response(&message, 1000))).await;
        assert_eq!(sent.len(), 2);
    }
}
