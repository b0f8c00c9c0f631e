//! The span of a call in traces: from its headers to the last byte of its answer, with the code that it ended with.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use tracing::Span;

use crate::{grpc::names::HEALTH, telemetry::RpcSpan};

/// Makes the span of a request one of traces; not of probes, which would be most of all calls and tell nothing.
pub(super) fn begin(span: &Span, request: &Request) -> Option<RpcSpan> {
    let path = request.uri().path();
    if path.starts_with(HEALTH) {
        return None;
    }
    RpcSpan::begin(span, path, |name| request.headers().get(name)?.to_str().ok())
}

/// Keeps the span until the answer is sent, or nobody wants it any more.
pub(super) fn until_sent(response: Response, rpc: Option<RpcSpan>) -> Response {
    let Some(mut rpc) = rpc else { return response };
    rpc.ended_if(code(response.headers()));
    response.map(|inner| Body::new(Traced { inner, rpc }))
}

/// The code that headers or trailers tell.
fn code(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A body in the span of its call.
struct Traced {
    inner: Body,
    rpc: RpcSpan,
}

impl HttpBody for Traced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = this.rpc.in_scope(|| Pin::new(&mut this.inner).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.rpc.ended_if(frame.trailers_ref().and_then(code));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
