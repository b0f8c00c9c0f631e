//! A service that answers at once: the server's own listener, service code and tails, without a model.

use std::time::Duration;

use anyhow::Context as _;
use axum::middleware;
use bytes::Bytes;
use densevit::grpc::{
    GrpcConfig, Listener,
    pb::v1::{
        self as pb,
        dense_vision_server::{DenseVision, DenseVisionServer},
    },
    tail::{self, Answers, Tail},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming, service::Routes};

/// Number of the field `data`.
const DATA: u32 = 15;

/// Answers every image with nothing, and everything else with a tensor.
struct Canned {
    tensor: Bytes,
    /// Whether the tensor goes through the encoder of messages.
    is_copied: bool,
}

/// Serves until the process ends.
pub fn serve(config: GrpcConfig, n_bytes: usize, is_copied: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let max_message_bytes = config.max_message_bytes;
        let listener = Listener::bind(config).await.context("binding the port")?;
        println!("listening on {}", listener.local_addr()?);
        let service = DenseVisionServer::new(Canned { tensor: vec![7; n_bytes].into(), is_copied });
        let service = service.max_decoding_message_size(max_message_bytes).max_encoding_message_size(usize::MAX);
        let app =
            Routes::new(service).into_axum_router().layer(middleware::map_response(async |response| tail::append(response)));
        let (_draining, watch) = watch::channel(false);
        listener.serve(app, watch, Duration::ZERO).await;
        Ok(())
    })
}

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only Extract"))
}

#[tonic::async_trait]
impl DenseVision for Canned {
    type ExtractChunkedStream = Answers<pb::ExtractChunk>;
    type ExtractStreamStream = Answers<pb::ExtractStreamResponse>;
    type SegmentChunkedStream = Answers<pb::SegmentChunk>;
    type SegmentStreamStream = Answers<pb::SegmentStreamResponse>;
    type PropagateStream = Answers<pb::PropagateResponse>;

    async fn extract(&self, request: Request<pb::ExtractRequest>) -> Result<Response<pb::ExtractResponse>, Status> {
        let message = pb::ExtractResponse { header: Some(pb::FeatureHeader::default()), data: Bytes::new() };
        if request.get_ref().image.is_some() {
            return Ok(Response::new(message));
        }
        if self.is_copied {
            return Ok(Response::new(pb::ExtractResponse { data: self.tensor.clone(), ..message }));
        }
        let mut tail = Tail::default();
        tail.push(DATA, [self.tensor.clone()]);
        Ok(tail.after(message).respond())
    }

    async fn extract_chunked(
        &self,
        _request: Request<pb::ExtractRequest>,
    ) -> Result<Response<Answers<pb::ExtractChunk>>, Status> {
        unimplemented()
    }

    async fn extract_stream(
        &self,
        _request: Request<Streaming<pb::ExtractStreamRequest>>,
    ) -> Result<Response<Answers<pb::ExtractStreamResponse>>, Status> {
        unimplemented()
    }

    async fn segment(&self, _request: Request<pb::SegmentRequest>) -> Result<Response<pb::SegmentResponse>, Status> {
        unimplemented()
    }

    async fn segment_chunked(
        &self,
        _request: Request<pb::SegmentRequest>,
    ) -> Result<Response<Answers<pb::SegmentChunk>>, Status> {
        unimplemented()
    }

    async fn segment_stream(
        &self,
        _request: Request<Streaming<pb::SegmentStreamRequest>>,
    ) -> Result<Response<Answers<pb::SegmentStreamResponse>>, Status> {
        unimplemented()
    }

    async fn discover(&self, _request: Request<pb::DiscoverRequest>) -> Result<Response<pb::DiscoverResponse>, Status> {
        unimplemented()
    }

    async fn r#match(&self, _request: Request<pb::MatchRequest>) -> Result<Response<pb::MatchResponse>, Status> {
        unimplemented()
    }

    async fn propagate(
        &self,
        _request: Request<Streaming<pb::PropagateRequest>>,
    ) -> Result<Response<Answers<pb::PropagateResponse>>, Status> {
        unimplemented()
    }

    async fn list_models(&self, _request: Request<pb::ListModelsRequest>) -> Result<Response<pb::ListModelsResponse>, Status> {
        unimplemented()
    }

    async fn get_model(&self, _request: Request<pb::GetModelRequest>) -> Result<Response<pb::Model>, Status> {
        unimplemented()
    }
}
