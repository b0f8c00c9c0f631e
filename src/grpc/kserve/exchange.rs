//! `ModelStreamInfer`: what [`stream`](crate::grpc::stream) must know of it.

use std::{iter, mem, sync::Arc};

use crate::{
    engine::{Admitted, Clock, Engine, InferError},
    grpc::{
        kserve::{
            answer::flag,
            job::{self, Inferred},
        },
        observe::observe,
        pb::inference as pb,
        status::stream_error,
        stream::{Exchange, Opened},
        tail::Tailed,
    },
};

/// Marks the last answer to a request, which here is every one.
const FINAL: &str = "triton_final_response";
/// Number of `ModelStreamInferResponse.infer_response`.
const INFER_RESPONSE: u32 = 2;

/// `ModelStreamInfer`.
pub(in crate::grpc) struct Infer;

impl Exchange for Infer {
    type Inbound = pb::ModelInferRequest;
    type Outbound = pb::ModelStreamInferResponse;
    type Request = pb::ModelInferRequest;
    type Done = Inferred;

    fn open(mut message: Self::Inbound) -> Opened<Self::Request> {
        Opened { id: mem::take(&mut message.id), in_order: true, chunked: false, request: Some(message) }
    }

    async fn answer(engine: Arc<Engine>, request: Self::Request, clock: Clock) -> Result<Self::Done, InferError> {
        job::infer(&engine, request, clock).await
    }

    fn observe(clock: Clock, outcome: &Result<Self::Done, InferError>) {
        observe("ModelStreamInfer", clock, outcome.as_ref().map(|done| &done.timing));
    }

    fn places(done: &mut Self::Done) -> Vec<Arc<Admitted>> {
        mem::take(&mut done.places)
    }

    fn messages(id: String, mut done: Self::Done, _chunked: bool) -> Box<dyn Iterator<Item = Tailed<Self::Outbound>> + Send> {
        done.response.id = id;
        done.response.parameters.insert(FINAL.to_owned(), flag(true));
        let outer = |infer_response| pb::ModelStreamInferResponse { error_message: String::new(), infer_response };
        Box::new(iter::once(done.message().inside(INFER_RESPONSE, outer)))
    }

    fn failure(id: String, error: &InferError) -> Self::Outbound {
        let response = pb::ModelInferResponse { id, parameters: [(FINAL.to_owned(), flag(true))].into(), ..Default::default() };
        pb::ModelStreamInferResponse { error_message: stream_error(error).message, infer_response: Some(response) }
    }
}
