//! The `DenseVision` service: unwrap the request, call the engine, convert the answer.

use std::sync::Arc;

use futures_util::stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    engine::{Engine, Extracted, Segmented},
    grpc::pb::v1::{self as pb, dense_vision_server::DenseVision},
    grpc::{
        answer,
        chunks::Chunks,
        converse::{answered_by, clock, converse},
        convert,
        discover_message::{discover_request, discover_response},
        exchange::{Features, Masks},
        match_message::{match_request, match_response},
        model_answer,
        observe::observe,
        propagate_call, segment_answer,
        segment_chunks::SegmentChunks,
        segment_convert,
        sent::Held,
        status::status,
        stream::OnFailure,
        tail::{Answers, behind_each},
    },
};

/// gRPC adapter over the engine.
#[derive(Clone, Debug)]
pub struct DenseVisionService {
    engine: Arc<Engine>,
    max_message_bytes: usize,
}

impl DenseVisionService {
    /// A service over `engine`; `max_message_bytes` is only told to clients here.
    #[must_use]
    pub fn new(engine: Arc<Engine>, max_message_bytes: usize) -> Self {
        Self { engine, max_message_bytes }
    }

    async fn extract_one(&self, method: &'static str, request: Request<pb::ExtractRequest>) -> Result<Extracted, Status> {
        let clock = clock(&request);
        let outcome = match convert::extract_request(request.into_inner()) {
            Ok(request) => self.engine.extract(request, clock).await,
            Err(error) => Err(error),
        };
        observe(method, clock, outcome.as_ref().map(|done| &done.timing));
        outcome.map_err(|error| status(&error))
    }

    async fn segment_one(&self, method: &'static str, request: Request<pb::SegmentRequest>) -> Result<Segmented, Status> {
        let clock = clock(&request);
        let outcome = match segment_convert::segment_request(request.into_inner()) {
            Ok(request) => self.engine.segment(request, clock).await,
            Err(error) => Err(error),
        };
        observe(method, clock, outcome.as_ref().map(|done| &done.timing));
        outcome.map_err(|error| status(&error))
    }
}

#[tonic::async_trait]
impl DenseVision for DenseVisionService {
    type ExtractChunkedStream = Answers<pb::ExtractChunk>;
    type ExtractStreamStream = Answers<pb::ExtractStreamResponse>;
    type SegmentChunkedStream = Answers<pb::SegmentChunk>;
    type SegmentStreamStream = Answers<pb::SegmentStreamResponse>;
    type PropagateStream = Answers<pb::PropagateResponse>;

    async fn extract(&self, request: Request<pb::ExtractRequest>) -> Result<Response<pb::ExtractResponse>, Status> {
        let mut extracted = self.extract_one("Extract", request).await?;
        let held = Held::new(extracted.place.take());
        Ok(held.until_sent(answer::response(extracted).respond()))
    }

    async fn extract_chunked(
        &self,
        request: Request<pb::ExtractRequest>,
    ) -> Result<Response<Self::ExtractChunkedStream>, Status> {
        let mut extracted = self.extract_one("ExtractChunked", request).await?;
        let held = Held::new(extracted.place.take());
        Ok(held.until_sent(behind_each(stream::iter(Chunks::new(extracted).map(Ok)))))
    }

    async fn extract_stream(
        &self,
        request: Request<Streaming<pb::ExtractStreamRequest>>,
    ) -> Result<Response<Self::ExtractStreamStream>, Status> {
        Ok(converse::<Features>(&self.engine, request, OnFailure::Answer))
    }

    async fn segment(&self, request: Request<pb::SegmentRequest>) -> Result<Response<pb::SegmentResponse>, Status> {
        let mut segmented = self.segment_one("Segment", request).await?;
        let held = Held::new(segmented.place.take());
        Ok(held.until_sent(segment_answer::response(segmented).respond()))
    }

    async fn segment_chunked(
        &self,
        request: Request<pb::SegmentRequest>,
    ) -> Result<Response<Self::SegmentChunkedStream>, Status> {
        let mut segmented = self.segment_one("SegmentChunked", request).await?;
        let held = Held::new(segmented.place.take());
        Ok(held.until_sent(behind_each(stream::iter(SegmentChunks::new(segmented).map(Ok)))))
    }

    async fn segment_stream(
        &self,
        request: Request<Streaming<pb::SegmentStreamRequest>>,
    ) -> Result<Response<Self::SegmentStreamStream>, Status> {
        Ok(converse::<Masks>(&self.engine, request, OnFailure::Answer))
    }

    async fn discover(&self, request: Request<pb::DiscoverRequest>) -> Result<Response<pb::DiscoverResponse>, Status> {
        let clock = clock(&request);
        let outcome = match discover_request(request.into_inner()) {
            Ok(request) => self.engine.discover(request, clock).await,
            Err(error) => Err(error),
        };
        observe("Discover", clock, outcome.as_ref().map(|done| &done.timing));
        let discovered = outcome.map_err(|error| status(&error))?;
        let held = Held::new([Arc::clone(&discovered.place)]);
        Ok(held.until_sent(Response::new(discover_response(discovered))))
    }

    async fn r#match(&self, request: Request<pb::MatchRequest>) -> Result<Response<pb::MatchResponse>, Status> {
        let clock = clock(&request);
        let outcome = match match_request(request.into_inner()) {
            Ok(request) => self.engine.match_points(request, clock).await,
            Err(error) => Err(error),
        };
        observe("Match", clock, outcome.as_ref().map(|done| &done.timing));
        let matched = outcome.map_err(|error| status(&error))?;
        let response = match_response(&matched);
        Ok(Held::new(matched.places).until_sent(Response::new(response)))
    }

    async fn propagate(
        &self,
        request: Request<Streaming<pb::PropagateRequest>>,
    ) -> Result<Response<Self::PropagateStream>, Status> {
        let (clock, engine) = (clock(&request), Arc::clone(&self.engine));
        Ok(answered_by(|outbound| propagate_call::serve(engine, request.into_inner(), outbound, clock)))
    }

    async fn list_models(&self, _request: Request<pb::ListModelsRequest>) -> Result<Response<pb::ListModelsResponse>, Status> {
        let models = self.engine.models();
        let models = models.iter().map(|model| model_answer::model(model, &self.engine, self.max_message_bytes)).collect();
        Ok(Response::new(pb::ListModelsResponse { models }))
    }

    async fn get_model(&self, request: Request<pb::GetModelRequest>) -> Result<Response<pb::Model>, Status> {
        let selector = convert::model_selector(request.into_inner().model);
        let model = self.engine.model(&selector).map_err(|error| status(&error))?;
        Ok(Response::new(model_answer::model(&model, &self.engine, self.max_message_bytes)))
    }
}
