//! The bidirectional call: many images in flight on one call.
//!
//! # Design
//! Each request becomes a task of its own, so that a slow reader of answers does not hold up work that has begun. At most
//! `max_in_flight_per_stream` requests are in flight; beyond that the call is not read, and HTTP/2 flow control slows the sender.
//! The client leaving ends the call: its tasks are aborted and their jobs leave the queue.

use std::{pin::Pin, sync::Arc};

use futures_util::{
    StreamExt as _,
    stream::{FuturesOrdered, FuturesUnordered},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, debug_span};

use crate::{
    engine::{Admitted, Clock, Engine, InferError},
    grpc::{sent::Held, status::status, tail::Tailed},
};

/// Longest id of a request, in bytes.
const MAX_ID_BYTES: usize = 256;

/// A message of the client, opened.
pub(super) struct Opened<T> {
    pub(super) id: String,
    pub(super) in_order: bool,
    pub(super) chunked: bool,
    pub(super) request: Option<T>,
}

/// What differs from one bidirectional call to another.
pub(super) trait Exchange: 'static {
    /// Message of the client.
    type Inbound: Send + 'static;
    /// Message of the server.
    type Outbound: Send + 'static;
    /// The request inside.
    type Request: Send + 'static;
    /// The engine's answer.
    type Done: Send + 'static;

    /// Opens a message.
    fn open(message: Self::Inbound) -> Opened<Self::Request>;

    /// Answers a request.
    fn answer(
        engine: Arc<Engine>,
        request: Self::Request,
        clock: Clock,
    ) -> impl Future<Output = Result<Self::Done, InferError>> + Send + 'static;

    /// Records what became of a request.
    fn observe(clock: Clock, outcome: &Result<Self::Done, InferError>);

    /// The places of an answer among the requests in flight.
    fn places(done: &mut Self::Done) -> Vec<Arc<Admitted>>;

    /// The messages of an answer: one, or with `chunked` its parts.
    fn messages(id: String, done: Self::Done, chunked: bool) -> Box<dyn Iterator<Item = Tailed<Self::Outbound>> + Send>;

    /// The message of a failure.
    fn failure(id: String, error: &InferError) -> Self::Outbound;
}

/// Outgoing half of a call: messages, and what they keep until they are sent.
pub(super) type Outbound<T> = mpsc::Sender<(Result<Tailed<T>, Status>, Held)>;

/// An answer with the id of its request.
type Answer<T> = (String, Result<T, InferError>);
type Task<T> = Pin<Box<dyn Future<Output = Answer<T>> + Send>>;

/// What the failure of one request means for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// It is answered, and the call goes on.
    Answer,
    /// Its status ends the call.
    End,
}

/// What the first message of a call says of the whole call.
#[derive(Clone, Copy, Debug, Default)]
struct CallOptions {
    in_order: bool,
    chunked: bool,
}

/// Requests in flight on a call.
enum InFlight<T> {
    Ordered(FuturesOrdered<Task<T>>),
    Unordered(FuturesUnordered<Task<T>>),
}

impl<T: Send + 'static> InFlight<T> {
    fn new(in_order: bool) -> Self {
        if in_order {
            return Self::Ordered(FuturesOrdered::new());
        }
        Self::Unordered(FuturesUnordered::new())
    }

    fn push(&mut self, task: Task<T>) {
        match self {
            Self::Ordered(tasks) => tasks.push_back(task),
            Self::Unordered(tasks) => tasks.push(task),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ordered(tasks) => tasks.len(),
            Self::Unordered(tasks) => tasks.len(),
        }
    }

    async fn next(&mut self) -> Option<Answer<T>> {
        match self {
            Self::Ordered(tasks) => tasks.next().await,
            Self::Unordered(tasks) => tasks.next().await,
        }
    }
}

/// Serves one call until the client has its last answer, leaves, or its deadline passes.
pub(super) async fn serve<X: Exchange>(
    engine: Arc<Engine>,
    mut inbound: Streaming<X::Inbound>,
    outbound: Outbound<X::Outbound>,
    clock: Clock,
    on_failure: OnFailure,
) {
    let window = engine.limits().max_in_flight_per_stream.max(1);
    let mut options = CallOptions::default();
    let mut in_flight: Option<InFlight<X::Done>> = None;
    let mut reading = true;
    loop {
        let n_in_flight = in_flight.as_ref().map_or(0, InFlight::len);
        if !reading && n_in_flight == 0 {
            return;
        }
        tokio::select! {
            () = outbound.closed() => return,
            message = inbound.message(), if reading && n_in_flight < window => match message {
                Ok(Some(message)) => {
                    let opened = X::open(message);
                    let tasks = in_flight.get_or_insert_with(|| {
                        options = CallOptions { in_order: opened.in_order, chunked: opened.chunked };
                        InFlight::new(options.in_order)
                    });
                    tasks.push(start::<X>(&engine, opened, clock));
                }
                Ok(None) => reading = false,
                Err(status) => {
                    // The client broke the call off or sent something that is no message.
                    let _gone = outbound.send((Err(status), Held::default())).await;
                    return;
                }
            },
            Some(answer) = next_answer(&mut in_flight), if n_in_flight > 0 => {
                if send::<X>(&outbound, answer, options.chunked, on_failure).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn next_answer<T: Send + 'static>(in_flight: &mut Option<InFlight<T>>) -> Option<Answer<T>> {
    in_flight.as_mut()?.next().await
}

fn start<X: Exchange>(engine: &Arc<Engine>, opened: Opened<X::Request>, call: Clock) -> Task<X::Done> {
    let engine = Arc::clone(engine);
    let clock = Clock { arrived: tokio::time::Instant::now(), ..call };
    let Opened { mut id, request, .. } = opened;
    // Of many on one call.
    let span = debug_span!("message");
    let too_long = (id.len() > MAX_ID_BYTES).then(|| format!("has {} bytes, the limit is {MAX_ID_BYTES}", id.len()));
    if too_long.is_some() {
        id = id.chars().take(MAX_ID_BYTES / 4).collect();
    }
    let work = async move {
        match too_long {
            Some(message) => Err(InferError::invalid("id", message)),
            None => answer_one::<X>(engine, request, clock).await,
        }
    };
    let task = AbortOnDropHandle::new(tokio::spawn(work.instrument(span)));
    // A request whose task panicked is answered too, by its id.
    Box::pin(async move { (id, task.await.unwrap_or_else(|error| Err(InferError::internal("answering a request", error)))) })
}

async fn answer_one<X: Exchange>(engine: Arc<Engine>, request: Option<X::Request>, clock: Clock) -> Result<X::Done, InferError> {
    let outcome = match request {
        None => Err(InferError::invalid("request", "is required")),
        Some(request) => X::answer(engine, request, clock).await,
    };
    X::observe(clock, &outcome);
    outcome
}

async fn send<X: Exchange>(
    outbound: &Outbound<X::Outbound>,
    (id, outcome): Answer<X::Done>,
    chunked: bool,
    on_failure: OnFailure,
) -> Result<(), mpsc::error::SendError<()>> {
    let gone = |_unsent| mpsc::error::SendError(());
    match outcome {
        Err(error) if on_failure == OnFailure::End => {
            outbound.send((Err(status(&error)), Held::default())).await.map_err(gone)?;
            Err(mpsc::error::SendError(()))
        }
        Err(error) => outbound.send((Ok(X::failure(id, &error).into()), Held::default())).await.map_err(gone),
        Ok(mut done) => {
            let held = Held::new(X::places(&mut done));
            for message in X::messages(id, done, chunked) {
                outbound.send((Ok(message), held.clone())).await.map_err(gone)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache::CacheConfig, engine::Limits};

    /// A call whose requests all panic.
    struct Panics;

    impl Exchange for Panics {
        type Inbound = ();
        type Outbound = ();
        type Request = ();
        type Done = ();

        fn open((): ()) -> Opened<()> {
            Opened { id: "7".into(), in_order: false, chunked: false, request: Some(()) }
        }

        async fn answer(_engine: Arc<Engine>, (): (), _clock: Clock) -> Result<(), InferError> {
            panic!("boom")
        }

        fn observe(_clock: Clock, _outcome: &Result<(), InferError>) {}

        fn places((): &mut ()) -> Vec<Arc<Admitted>> {
            Vec::new()
        }

        fn messages(_id: String, (): (), _chunked: bool) -> Box<dyn Iterator<Item = Tailed<()>> + Send> {
            Box::new(std::iter::empty())
        }

        fn failure(_id: String, _error: &InferError) {}
    }

    #[tokio::test]
    async fn a_request_that_panics_is_answered_by_its_id() {
        let engine = Arc::new(Engine::new(String::new(), Limits::default(), &CacheConfig::default(), 1));
        let (id, outcome) = start::<Panics>(&engine, Panics::open(()), Clock::unlimited()).await;
        assert!(id == "7" && matches!(outcome, Err(InferError::Internal { .. })), "{outcome:?}");
    }
}
