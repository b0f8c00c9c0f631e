//! The body of an answer on its way to the client: in pieces, with its place among the requests in flight, watched for progress, and timed
//! until the connection has taken the last of it.
//!
//! # Design
//! Until its last piece is with the connection an answer is memory of this process, so it keeps its place: a client that reads slowly, or not
//! at all, cannot have more computed for it than the limits allow. Pieces are what the connection takes at once and holds without a place, so
//! they are small beside an answer, and large beside a frame.
//!
//! What a connection has taken may still wait in its buffer (`grpc.send_buffer_bytes`) and in the kernel's; a reader that is slow shows once
//! both are full. Bidirectional calls are not timed: their answers leave while others are made. Nor are calls that end early.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::{
    engine::Admitted,
    grpc::calls::Progress,
    telemetry::record::{self, CallInFlight},
};

/// Largest piece.
const MAX_PIECE_BYTES: usize = 256 << 10;
/// Calls of one request, whose answers are timed.
const TIMED: [&str; 7] = ["/Extract", "/ExtractChunked", "/Segment", "/SegmentChunked", "/Discover", "/Match", "/ModelInfer"];

/// Places that an answer keeps until it is sent; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    _places: Arc<Vec<Arc<Admitted>>>,
}

impl Held {
    /// Keeps these.
    pub(super) fn new(places: impl IntoIterator<Item = Arc<Admitted>>) -> Self {
        Self { _places: Arc::new(places.into_iter().collect()) }
    }

    /// A response that keeps them.
    pub(super) fn until_sent<T>(self, mut response: tonic::Response<T>) -> tonic::Response<T> {
        response.extensions_mut().insert(self);
        response
    }
}

/// Whether the answers to calls of this path are timed.
pub(super) fn is_timed(path: &str) -> bool {
    TIMED.iter().any(|method| path.ends_with(method))
}

/// Watches how an answer is sent; the call is in flight until then. Records when the last of it has left if it `is_timed` and no refusal.
pub(super) fn watch(mut response: Response, in_flight: CallInFlight, is_timed: bool) -> Response {
    // A refusal has its status in the headers and nothing else.
    let began = (is_timed && !response.headers().contains_key("grpc-status")).then(Instant::now);
    let held = response.extensions_mut().remove::<Held>();
    let progress = Progress::current();
    progress.iter().for_each(Progress::waits);
    response.map(|inner| Body::new(Sent { inner, rest: Bytes::new(), progress, began, _held: held, _in_flight: in_flight }))
}

struct Sent {
    inner: Body,
    /// Of the frame that is being sent.
    rest: Bytes,
    progress: Option<Progress>,
    /// When the answer was there; none once it is recorded, or not timed.
    began: Option<Instant>,
    _held: Option<Held>,
    _in_flight: CallInFlight,
}

impl Sent {
    fn piece(&mut self) -> Frame<Bytes> {
        self.progress.iter().for_each(Progress::waits);
        Frame::data(self.rest.split_to(self.rest.len().min(MAX_PIECE_BYTES)))
    }

    /// Trailers come last, and nobody asks for more after them.
    fn ended(&mut self) {
        self.began.take().iter().for_each(|began| record::sent(began.elapsed()));
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.progress.iter().for_each(Progress::goes_on);
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.piece())));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            None => {
                this.ended();
                return Poll::Ready(None);
            }
            failed => return Poll::Ready(failed),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                this.rest = data;
                this.piece()
            }
            Err(trailers) => {
                this.ended();
                trailers
            }
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test]
    async fn large_frames_are_sent_in_pieces_of_the_same_memory_and_trailers_last() {
        let data = Bytes::from(vec![7; 2 * MAX_PIECE_BYTES + 1]);
        let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
        let frames = [Frame::data(data.clone()), Frame::data(Bytes::new()), Frame::trailers(trailers)].map(Ok::<_, axum::Error>);
        let response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
        let mut body = watch(response, record::call_began(), false).into_body();
        let mut sent = Vec::new();
        while let Some(frame) = body.frame().await {
            sent.push(frame.unwrap());
        }
        assert!(sent.pop().unwrap().is_trailers());
        let sent: Vec<Bytes> = sent.into_iter().map(|frame| frame.into_data().unwrap()).collect();
        assert_eq!(sent.iter().map(Bytes::len).collect::<Vec<_>>(), [MAX_PIECE_BYTES, MAX_PIECE_BYTES, 1, 0]);
        assert!(sent[1].as_ptr() == data[MAX_PIECE_BYTES..].as_ptr(), "no copy was made");
    }
}
