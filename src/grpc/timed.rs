//! How long an answer takes to leave: from the answer to the moment the connection has taken the last of it.
//!
//! # Design
//! What a connection has taken may still wait in its buffer (`grpc.send_buffer_bytes`) and in the kernel's; a reader that is slow shows once
//! both are full. Bidirectional calls are left out: their answers leave while others are made. So are calls that end early.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::telemetry::record;

/// Calls of one request.
const TIMED: [&str; 5] = ["/Extract", "/ExtractChunked", "/Segment", "/SegmentChunked", "/ModelInfer"];

/// Whether the answers to calls of this path are timed.
pub(super) fn is_timed(path: &str) -> bool {
    TIMED.iter().any(|method| path.ends_with(method))
}

/// Records when the last of an answer has left, if it is one.
pub(super) fn timed(response: Response) -> Response {
    // A refusal has its status in the headers and nothing else.
    if response.headers().contains_key("grpc-status") {
        return response;
    }
    response.map(|inner| Body::new(Sent { inner, began: Some(Instant::now()) }))
}

struct Sent {
    inner: Body,
    /// None once recorded.
    began: Option<Instant>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        // Trailers come last, and nobody asks for more after them.
        let is_last = frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        if is_last && let Some(began) = this.began.take() {
            record::sent(began.elapsed());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
