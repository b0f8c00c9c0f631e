//! What every service of the port does with its calls: finds their clock, and starts the bidirectional ones.

use std::sync::Arc;

use futures_util::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Streaming};
use tracing::{Instrument as _, Span};

use crate::{
    engine::{Clock, Engine},
    grpc::{
        sent::Held,
        stream::{self as bidirectional, Exchange, OnFailure, Outbound},
        tail::{Answers, behind_each},
    },
};

/// Messages of a bidirectional call that wait for the client to read them.
const OUTBOUND_MESSAGES: usize = 2;

/// When the request came, as the outermost layer saw it.
pub(super) fn clock<T>(request: &Request<T>) -> Clock {
    request.extensions().get::<Clock>().copied().unwrap_or_else(Clock::unlimited)
}

/// Starts a bidirectional call of independent requests.
pub(super) fn converse<X: Exchange>(
    engine: &Arc<Engine>,
    request: Request<Streaming<X::Inbound>>,
    on_failure: OnFailure,
) -> Response<Answers<X::Outbound>> {
    let (clock, engine) = (clock(&request), Arc::clone(engine));
    answered_by(|outbound| bidirectional::serve::<X>(engine, request.into_inner(), outbound, clock, on_failure))
}

/// Starts a bidirectional call. It lives as long as the stream of answers: a client that leaves takes its requests along.
pub(super) fn answered_by<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(Outbound<T>) -> F,
) -> Response<Answers<T>> {
    let (outbound, answers) = mpsc::channel(OUTBOUND_MESSAGES);
    let task = AbortOnDropHandle::new(tokio::spawn(serve(outbound).instrument(Span::current())));
    behind_each(stream::unfold((ReceiverStream::new(answers), task, Held::default()), |(mut answers, task, sent)| async move {
        // Asked for the next message, so the one before is with the connection.
        drop(sent);
        let (answer, held) = futures_util::StreamExt::next(&mut answers).await?;
        Some((answer, (answers, task, held)))
    }))
}
