//! The first bytes of a request, by themselves.
//!
//! # Design
//! When the decoder of messages (tonic 0.14, `codec/decode.rs`) has read a message's prefix, it makes room for the whole message beside what it
//! already holds. Where the message has come in one frame with its prefix, it is already held, and the room is a second buffer of twice the
//! size and a copy. Given the prefix alone first, the decoder makes room once, of the right size, and every byte is moved there once.
//! Later messages of a stream begin wherever frames end, so that this is done for the first message only.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::Frame;

use crate::grpc::tail::PREFIX_BYTES;

/// A body of the same bytes, whose first frame is the prefix of its first message.
pub(super) fn alone(inner: Body) -> Body {
    Body::new(PrefixAlone { inner, is_first: true, rest: None })
}

struct PrefixAlone {
    inner: Body,
    is_first: bool,
    /// What came in one frame with the prefix.
    rest: Option<Bytes>,
}

impl HttpBody for PrefixAlone {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Some(rest) = this.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) if std::mem::take(&mut this.is_first) => frame,
            other => return Poll::Ready(other),
        };
        let split = |mut data: Bytes| {
            let prefix = data.split_to(PREFIX_BYTES.min(data.len()));
            this.rest = Some(data).filter(|rest| !rest.is_empty());
            Frame::data(prefix)
        };
        Poll::Ready(Some(Ok(frame.into_data().map_or_else(|trailers| trailers, split))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test]
    async fn the_prefix_comes_first_and_no_byte_is_lost() {
        for (frames, expected) in [
            (vec!["abcdefgh", "ij"], vec!["abcde", "fgh", "ij"]),
            (vec!["abcde", "fghij"], vec!["abcde", "fghij"]),
            (vec!["abc", "defghij"], vec!["abc", "defghij"]),
            (vec![], vec![]),
        ] {
            let frames = frames.into_iter().map(|frame| Ok::<_, axum::Error>(Frame::data(Bytes::from_static(frame.as_bytes()))));
            let mut body = alone(Body::new(StreamBody::new(futures_util::stream::iter(frames))));
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                got.push(frame.unwrap().into_data().unwrap());
            }
            assert_eq!(got, expected);
        }
    }
}
