//! A connection to a server, with windows wide enough for large maps.

use std::time::Duration;

use futures_util::Stream;
use thiserror::Error;
use tonic::{
    Code, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    grpc::client::{
        access::{Access, AccessError, Bearer, Secured},
        assemble::{AssembleError, Assembler, Features, SegmentAssembler, Segmentation},
        generic::{Call, Method},
        video::Video,
    },
    grpc::pb::v1::{self as pb, dense_vision_client::DenseVisionClient},
};

/// HTTP/2 receive windows: a 40 MB map must not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Largest HTTP/2 frame: those of 16 KiB, the default, cost a server twice the processor time (`benches/wire`).
const FRAME_BYTES: u32 = 256 << 10;
/// Largest answer that the client takes in one message.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is none.
    #[error("\"{address}\" is no server address (expected HOST:PORT)")]
    Address {
        /// What was given.
        address: String,
    },
    /// Nobody answers.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// Credentials cannot be used.
    #[error("cannot use the credentials")]
    Access(#[from] AccessError),
    /// The server refused or failed.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The answer is damaged.
    #[error("unusable answer")]
    Answer(#[source] AssembleError),
}

impl ClientError {
    /// Whether the same call would fail again: the request, not the moment, was at fault.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        let codes = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::OutOfRange, Code::Unimplemented];
        matches!(self, Self::Status(status) if codes.contains(&status.code()))
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// A connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
    vision: DenseVisionClient<Secured>,
    health: HealthClient<Channel>,
}

impl Client {
    /// Connects to `HOST:PORT`, with or without `http://`, or in TLS to `https://HOST:PORT`.
    ///
    /// # Errors
    /// When the address is malformed or nobody answers within five seconds.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Self::connect_with(address, &Access::default()).await
    }

    /// The same with credentials; with an authority or a certificate among them always in TLS.
    ///
    /// # Errors
    /// Also when the credentials cannot be used.
    pub async fn connect_with(address: &str, access: &Access) -> Result<Self, ClientError> {
        let scheme = if access.needs_tls() { "https" } else { "http" };
        let url = if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
        let is_tls = url.starts_with("https://");
        let mut endpoint = Endpoint::from_shared(url)
            .map_err(|_error| ClientError::Address { address: address.to_owned() })?
            .connect_timeout(Duration::from_secs(5))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES);
        let failed = |source| ClientError::Connect { address: address.to_owned(), source };
        if is_tls {
            endpoint = endpoint.tls_config(access.tls()?).map_err(failed)?;
        }
        let channel = endpoint.connect().await.map_err(failed)?;
        let bearer = access.bearer()?;
        let health = HealthClient::new(channel.clone());
        let vision = DenseVisionClient::with_interceptor(channel.clone(), bearer.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { channel, bearer, vision, health })
    }

    /// Extracts features of one image, in bands, and puts them together.
    ///
    /// # Errors
    /// The server's refusal, or a damaged answer.
    pub async fn extract(&self, request: pb::ExtractRequest) -> Result<Features, ClientError> {
        let mut chunks = self.vision.clone().extract_chunked(request).await?.into_inner();
        let mut assembler = Assembler::default();
        while let Some(chunk) = chunks.message().await? {
            assembler.push(chunk).map_err(ClientError::Answer)?;
        }
        assembler.finish().map_err(ClientError::Answer)
    }

    /// Extracts features of one image, in one message.
    ///
    /// # Errors
    /// The server's refusal, or an answer without header.
    pub async fn extract_whole(&self, request: pb::ExtractRequest) -> Result<Features, ClientError> {
        let answer = self.vision.clone().extract(request).await?.into_inner();
        let header = answer.header.ok_or(ClientError::Answer(AssembleError::NoHeader))?;
        Ok(Features { header, data: answer.data })
    }

    /// Segments one image, in parts, and puts them together.
    ///
    /// # Errors
    /// The server's refusal, or a damaged answer.
    pub async fn segment(&self, request: pb::SegmentRequest) -> Result<Segmentation, ClientError> {
        let mut chunks = self.vision.clone().segment_chunked(request).await?.into_inner();
        let mut assembler = SegmentAssembler::default();
        while let Some(chunk) = chunks.message().await? {
            assembler.push(chunk).map_err(ClientError::Answer)?;
        }
        assembler.finish().map_err(ClientError::Answer)
    }

    /// Looks for the objects of one image.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn discover(&self, request: pb::DiscoverRequest) -> Result<pb::DiscoverResponse, ClientError> {
        Ok(self.vision.clone().discover(request).await?.into_inner())
    }

    /// Finds points of one image in another.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn match_points(&self, request: pb::MatchRequest) -> Result<pb::MatchResponse, ClientError> {
        Ok(self.vision.clone().r#match(request).await?.into_inner())
    }

    /// Carries labels along a video, whose messages are taken as the server takes them.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn propagate(
        &self,
        messages: impl Stream<Item = pb::PropagateRequest> + Send + 'static,
    ) -> Result<Video, ClientError> {
        Ok(Video::new(self.vision.clone().propagate(messages).await?.into_inner()))
    }

    /// A method on this connection, whose messages are bytes.
    #[must_use]
    pub fn call(&self, method: &Method) -> Call {
        Call::new(InterceptedService::new(self.channel.clone(), self.bearer.clone()), method)
    }

    /// Whether a service of the server is ready: `""` for all of it, `models/NAME` for a model.
    ///
    /// # Errors
    /// The server's refusal, as of a service that it does not know.
    pub async fn is_serving(&self, service: &str) -> Result<bool, ClientError> {
        let answer = self.health.clone().check(HealthCheckRequest { service: service.to_owned() }).await?;
        Ok(answer.into_inner().status() == ServingStatus::Serving)
    }

    /// All models of the server.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn models(&self) -> Result<Vec<pb::Model>, ClientError> {
        let answer = self.vision.clone().list_models(pb::ListModelsRequest {}).await?;
        Ok(answer.into_inner().models)
    }

    /// One model; an empty name means the server's default.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn model(&self, model: pb::ModelRef) -> Result<pb::Model, ClientError> {
        let answer = self.vision.clone().get_model(pb::GetModelRequest { model: Some(model) }).await?;
        Ok(answer.into_inner())
    }
}
