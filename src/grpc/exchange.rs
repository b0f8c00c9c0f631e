//! The two bidirectional calls: what [`stream`](super::stream) must know of each.

use std::{iter, sync::Arc};

use crate::{
    engine::{Admitted, Clock, Engine, Extracted, InferError, Segmented},
    grpc::pb::v1 as pb,
    grpc::{
        answer,
        chunks::Chunks,
        convert,
        observe::observe,
        segment_answer,
        segment_chunks::SegmentChunks,
        segment_convert,
        status::stream_error,
        stream::{Exchange, Opened},
        tail::Tailed,
    },
};

/// Numbers of the fields `response` and `chunk`, of both calls.
const RESPONSE: u32 = 2;
const CHUNK: u32 = 3;

/// `ExtractStream`.
pub(super) struct Features;

impl Exchange for Features {
    type Inbound = pb::ExtractStreamRequest;
    type Outbound = pb::ExtractStreamResponse;
    type Request = pb::ExtractRequest;
    type Done = Extracted;

    fn open(message: Self::Inbound) -> Opened<Self::Request> {
        let pb::ExtractStreamRequest { id, in_order, chunked, request } = message;
        Opened { id, in_order, chunked, request }
    }

    async fn answer(engine: Arc<Engine>, request: Self::Request, clock: Clock) -> Result<Self::Done, InferError> {
        engine.extract(convert::extract_request(request)?, clock).await
    }

    fn observe(clock: Clock, outcome: &Result<Self::Done, InferError>) {
        observe("ExtractStream", clock, outcome.as_ref().map(|done| &done.timing));
    }

    fn places(done: &mut Self::Done) -> Vec<Arc<Admitted>> {
        done.place.take().into_iter().collect()
    }

    fn messages(id: String, done: Self::Done, chunked: bool) -> Box<dyn Iterator<Item = Tailed<Self::Outbound>> + Send> {
        use pb::extract_stream_response::Result as Part;
        let message = move |part| pb::ExtractStreamResponse { id: id.clone(), result: part };
        if chunked {
            return Box::new(Chunks::new(done).map(move |part| part.inside(CHUNK, |part| message(part.map(Part::Chunk)))));
        }
        Box::new(iter::once(answer::response(done).inside(RESPONSE, |whole| message(whole.map(Part::Response)))))
    }

    fn failure(id: String, error: &InferError) -> Self::Outbound {
        let error = stream_error(error);
        pb::ExtractStreamResponse { id, result: Some(pb::extract_stream_response::Result::Error(error)) }
    }
}

/// `SegmentStream`.
pub(super) struct Masks;

impl Exchange for Masks {
    type Inbound = pb::SegmentStreamRequest;
    type Outbound = pb::SegmentStreamResponse;
    type Request = pb::SegmentRequest;
    type Done = Segmented;

    fn open(message: Self::Inbound) -> Opened<Self::Request> {
        let pb::SegmentStreamRequest { id, in_order, chunked, request } = message;
        Opened { id, in_order, chunked, request }
    }

    async fn answer(engine: Arc<Engine>, request: Self::Request, clock: Clock) -> Result<Self::Done, InferError> {
        engine.segment(segment_convert::segment_request(request)?, clock).await
    }

    fn observe(clock: Clock, outcome: &Result<Self::Done, InferError>) {
        observe("SegmentStream", clock, outcome.as_ref().map(|done| &done.timing));
    }

    fn places(done: &mut Self::Done) -> Vec<Arc<Admitted>> {
        done.place.take().into_iter().collect()
    }

    fn messages(id: String, done: Self::Done, chunked: bool) -> Box<dyn Iterator<Item = Tailed<Self::Outbound>> + Send> {
        use pb::segment_stream_response::Result as Part;
        let message = move |part| pb::SegmentStreamResponse { id: id.clone(), result: part };
        if chunked {
            return Box::new(SegmentChunks::new(done).map(move |part| part.inside(CHUNK, |part| message(part.map(Part::Chunk)))));
        }
        Box::new(iter::once(segment_answer::response(done).inside(RESPONSE, |whole| message(whole.map(Part::Response)))))
    }

    fn failure(id: String, error: &InferError) -> Self::Outbound {
        let error = stream_error(error);
        pb::SegmentStreamResponse { id, result: Some(pb::segment_stream_response::Result::Error(error)) }
    }
}
