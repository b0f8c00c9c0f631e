//! `Propagate`: one video on one call, answered frame by frame.
//!
//! # Design
//! Frames are read ahead, up to `max_in_flight_per_stream`, so that their runs of the model wait and batch with each other and with other
//! requests; what follows a run needs the frame before, and happens in order. The client leaving ends the call with all that it has begun.
//! When the server shuts down, nothing more is read, what was read is answered, and the call ends with a status that says so: a video may
//! have no end, and what it keeps cannot move to another server.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, debug_span};

use crate::{
    engine::{Clock, Engine, FirstFrame, FrameMap, InferError, MapInfo, Propagation, Segmented},
    grpc::{
        observe::observe,
        pb::v1::{self as pb, propagate_request::Part},
        propagate_message::{self, failure, masks},
        sent::Held,
        status::status,
        stream::Outbound,
    },
};

/// Name of the call in metrics.
const METHOD: &str = "Propagate";

/// A frame and its map, once it has run.
type Looked = (Clock, Result<FrameMap, InferError>);

/// Serves one call until the client has its last answer, leaves, or its deadline passes.
pub(super) async fn serve(
    engine: Arc<Engine>,
    inbound: Streaming<pb::PropagateRequest>,
    outbound: Outbound<pb::PropagateResponse>,
    clock: Clock,
) {
    let outcome = tokio::select! {
        () = outbound.closed() => return,
        outcome = video(&engine, inbound, &outbound, clock) => outcome,
    };
    if let Err(status) = outcome {
        let _gone = outbound.send((Err(status), Held::default())).await;
    }
}

/// The whole of a video. Errors end the call.
async fn video(
    engine: &Arc<Engine>,
    mut inbound: Streaming<pb::PropagateRequest>,
    outbound: &Outbound<pb::PropagateResponse>,
    clock: Clock,
) -> Result<(), Status> {
    let Some(message) = inbound.message().await? else { return Ok(()) };
    let first = begin(engine, message, clock).await;
    observe(METHOD, clock, first.as_ref().map(|(_propagation, first)| &first.masks.timing));
    let (propagation, first) = first.map_err(|error| status(&error))?;
    let FirstFrame { masks: labels, map } = first;
    if answer(outbound, 0, Ok(labels), Some(&map)).await.is_err() {
        return Ok(());
    }
    let window = engine.limits().max_in_flight_per_stream.max(1);
    let mut looking = FuturesOrdered::new();
    let (mut is_reading, mut is_stopping) = (true, false);
    for frame in 1.. {
        let (clock, looked) = loop {
            if !is_reading && looking.is_empty() {
                return if is_stopping { Err(stopped()) } else { Ok(()) };
            }
            tokio::select! {
                () = engine.unready(), if is_reading => (is_reading, is_stopping) = (false, true),
                message = inbound.message(), if is_reading && looking.len() < window => match message? {
                    Some(message) => looking.push_back(look(&propagation, message, clock)),
                    None => is_reading = false,
                },
                Some(looked) = looking.next(), if !looking.is_empty() => break looked,
            }
        };
        let outcome = match looked {
            Ok(map) => propagation.next(map, clock).await,
            Err(error) => Err(error),
        };
        observe(METHOD, clock, outcome.as_ref().map(|done| &done.timing));
        if answer(outbound, frame, outcome, None).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn begin(
    engine: &Arc<Engine>,
    message: pb::PropagateRequest,
    clock: Clock,
) -> Result<(Propagation, FirstFrame), InferError> {
    let Some(Part::Start(start)) = message.part else {
        return Err(InferError::invalid("start", "is required: it is the first message of a call"));
    };
    engine.propagate(propagate_message::propagate_request(start)?, clock).await
}

/// Begins the run of a frame, on a task of its own.
fn look(propagation: &Propagation, message: pb::PropagateRequest, call: Clock) -> impl Future<Output = Looked> + use<> {
    let clock = Clock { arrived: Instant::now(), ..call };
    let frame = match message.part {
        Some(Part::Frame(frame)) => propagate_message::frame(frame),
        Some(Part::Start(_)) => Err(InferError::invalid("start", "must be the first message of a call, and the only one")),
        None => Err(InferError::invalid("frame", "is required")),
    };
    let run = frame.map(|frame| propagation.look(frame, clock));
    let work = async { run?.await };
    let task = AbortOnDropHandle::new(tokio::spawn(work.instrument(debug_span!("message"))));
    async move { (clock, task.await.unwrap_or_else(|error| Err(error.into()))) }
}

/// Sends the answer to a frame; fails when the client has gone.
async fn answer(
    outbound: &Outbound<pb::PropagateResponse>,
    frame: u64,
    outcome: Result<Segmented, InferError>,
    map: Option<&MapInfo>,
) -> Result<(), mpsc::error::SendError<()>> {
    let (message, held) = match outcome {
        Ok(mut labels) => {
            let held = Held::new(labels.place.take());
            (masks(frame, labels, map), held)
        }
        Err(error) => (failure(frame, &error), Held::default()),
    };
    outbound.send((Ok(message), held)).await.map_err(|_unsent| mpsc::error::SendError(()))
}

fn stopped() -> Status {
    status(&InferError::Unavailable { message: "the server is shutting down: begin another call with the last labels".into() })
}
