//! The bidirectional call: many images in flight on one call.
//!
//! # Design
//! Each request becomes a task of its own, so that a slow reader of answers does not hold up work that has begun. At most
//! `max_in_flight_per_stream` requests are in flight; beyond that the call is not read, and HTTP/2 flow control slows the sender.
//! The client leaving ends the call: its tasks are aborted and their jobs leave the queue.

use std::sync::Arc;

use futures_util::{
    StreamExt as _,
    stream::{FuturesOrdered, FuturesUnordered},
};
use tokio::{sync::mpsc, task::JoinError};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, Span};

use crate::{
    engine::{Clock, Engine, Extracted, InferError},
    grpc::pb::v1 as pb,
    grpc::{answer, chunks::Chunks, convert, observe::observe, status::stream_error},
};

/// Longest id of a request, in bytes.
const MAX_ID_BYTES: usize = 256;

/// Outgoing half of a call.
pub type Outbound = mpsc::Sender<Result<pb::ExtractStreamResponse, Status>>;

/// An answer with the id of its request.
type Answer = (String, Result<Extracted, InferError>);
type Task = AbortOnDropHandle<Answer>;

/// What the first message of a call says of the whole call.
#[derive(Clone, Copy, Debug, Default)]
struct CallOptions {
    in_order: bool,
    chunked: bool,
}

/// Requests in flight on a call.
enum InFlight {
    Ordered(FuturesOrdered<Task>),
    Unordered(FuturesUnordered<Task>),
}

impl InFlight {
    fn new(in_order: bool) -> Self {
        if in_order {
            return Self::Ordered(FuturesOrdered::new());
        }
        Self::Unordered(FuturesUnordered::new())
    }

    fn push(&mut self, task: Task) {
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

    async fn next(&mut self) -> Option<Result<Answer, JoinError>> {
        match self {
            Self::Ordered(tasks) => tasks.next().await,
            Self::Unordered(tasks) => tasks.next().await,
        }
    }
}

/// Serves one call until the client has its last answer, leaves, or its deadline passes.
pub async fn serve(engine: Arc<Engine>, mut inbound: Streaming<pb::ExtractStreamRequest>, outbound: Outbound, clock: Clock) {
    let window = engine.limits().max_in_flight_per_stream.max(1);
    let mut options = CallOptions::default();
    let mut in_flight: Option<InFlight> = None;
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
                    let tasks = in_flight.get_or_insert_with(|| {
                        options = CallOptions { in_order: message.in_order, chunked: message.chunked };
                        InFlight::new(options.in_order)
                    });
                    tasks.push(start(&engine, message, clock));
                }
                Ok(None) => reading = false,
                Err(status) => {
                    // The client broke the call off or sent something that is no message.
                    let _gone = outbound.send(Err(status)).await;
                    return;
                }
            },
            Some(answer) = next_answer(&mut in_flight), if n_in_flight > 0 => {
                let answer = answer.unwrap_or_else(|error| (String::new(), Err(InferError::internal("answering a request", error))));
                if send(&outbound, answer, options.chunked).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn next_answer(in_flight: &mut Option<InFlight>) -> Option<Result<Answer, JoinError>> {
    in_flight.as_mut()?.next().await
}

fn start(engine: &Arc<Engine>, message: pb::ExtractStreamRequest, call: Clock) -> Task {
    let engine = Arc::clone(engine);
    let clock = Clock { arrived: tokio::time::Instant::now(), ..call };
    let work = async move {
        let pb::ExtractStreamRequest { mut id, request, .. } = message;
        let outcome = if id.len() > MAX_ID_BYTES {
            let message = format!("has {} bytes, the limit is {MAX_ID_BYTES}", id.len());
            id = id.chars().take(MAX_ID_BYTES / 4).collect();
            Err(InferError::invalid("id", message))
        } else {
            answer_one(&engine, request, clock).await
        };
        (id, outcome)
    };
    AbortOnDropHandle::new(tokio::spawn(work.instrument(Span::current())))
}

async fn answer_one(engine: &Engine, request: Option<pb::ExtractRequest>, clock: Clock) -> Result<Extracted, InferError> {
    let outcome = async {
        let request = request.ok_or_else(|| InferError::invalid("request", "is required"))?;
        engine.extract(convert::extract_request(request)?, clock).await
    }
    .await;
    observe("ExtractStream", clock, &outcome);
    outcome
}

async fn send(outbound: &Outbound, (id, outcome): Answer, chunked: bool) -> Result<(), mpsc::error::SendError<()>> {
    use pb::extract_stream_response::Result as Part;
    let gone = |_unsent| mpsc::error::SendError(());
    let message = |part: Part| Ok(pb::ExtractStreamResponse { id: id.clone(), result: Some(part) });
    match outcome {
        Err(error) => outbound.send(message(Part::Error(stream_error(&error)))).await.map_err(gone),
        Ok(extracted) if chunked => {
            for chunk in Chunks::new(extracted) {
                outbound.send(message(Part::Chunk(chunk))).await.map_err(gone)?;
            }
            Ok(())
        }
        Ok(extracted) => outbound.send(message(Part::Response(answer::response(extracted)))).await.map_err(gone),
    }
}
