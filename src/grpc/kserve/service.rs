//! `inference.GRPCInferenceService`: unwrap the request, call the engine, wrap the answer.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::{
    engine::{Engine, InferError, LoadedModel, ModelSelector},
    grpc::{
        Health,
        converse::{clock, converse},
        kserve::{Infer, job, metadata, model_config::model_config, paths::translated_field, statistics::statistics},
        observe::observe,
        pb::inference::{self as pb, grpc_inference_service_server::GrpcInferenceService},
        sent::Held,
        status::status,
        stream::OnFailure,
        tail::Answers,
    },
};

/// Header of callers who want the failure of one streamed request to end the call, with its status.
const GRPC_ERROR_HEADER: &str = "triton_grpc_error";

/// Adapter over the engine.
#[derive(Clone, Debug)]
pub(in crate::grpc) struct KserveService {
    engine: Arc<Engine>,
    health: Health,
}

impl KserveService {
    /// A service over `engine`, which tells `health` of models that come and go.
    pub(in crate::grpc) fn new(engine: Arc<Engine>, health: Health) -> Self {
        Self { engine, health }
    }

    fn model(&self, name: String, version: String) -> Result<Arc<LoadedModel>, Status> {
        let found = self.engine.model(&ModelSelector { name, version });
        found.map_err(|error| status(&translated_field(error)))
    }

    /// The models that are meant; empty strings mean all.
    fn models(&self, name: String, version: String) -> Result<Vec<Arc<LoadedModel>>, Status> {
        match (name.is_empty(), version.is_empty()) {
            (true, true) => Ok(self.engine.models()),
            (false, true) => {
                self.model(name.clone(), version)?;
                Ok(self.engine.versions(&name))
            }
            (_, false) => Ok(vec![self.model(name, version)?]),
        }
    }
}

/// Whether the failure of one request of a stream ends it.
fn on_failure(headers: &MetadataMap) -> OnFailure {
    let wants_status = headers.get(GRPC_ERROR_HEADER).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if wants_status { OnFailure::End } else { OnFailure::Answer }
}

/// The model of a repository request. KServe's own interface has the name where Triton's has the repository.
fn repository_model(repository: String, model: String) -> Result<String, Status> {
    match (repository.is_empty(), model.is_empty()) {
        (_, true) if !repository.is_empty() => Ok(repository),
        (true, false) => Ok(model),
        (true, true) => Err(status(&InferError::invalid("model_name", "is required"))),
        _ => Err(other_repository()),
    }
}

fn other_repository() -> Status {
    status(&InferError::invalid("repository_name", "must be empty: this server has one repository"))
}

fn no_parameters<'a>(keys: impl Iterator<Item = &'a String>, known: &str) -> Result<(), Status> {
    let Some(unknown) = keys.filter(|key| *key != known).min() else { return Ok(()) };
    let message = "is not known: a model is what its folder holds";
    Err(status(&InferError::invalid(format!("parameters.{unknown}"), message)))
}

fn no_shared_memory() -> Status {
    Status::unimplemented("this server shares no memory with its clients: send tensors in the message")
}

#[tonic::async_trait]
impl GrpcInferenceService for KserveService {
    type ModelStreamInferStream = Answers<pb::ModelStreamInferResponse>;

    async fn server_live(&self, _request: Request<pb::ServerLiveRequest>) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _request: Request<pb::ServerReadyRequest>) -> Result<Response<pb::ServerReadyResponse>, Status> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.engine.is_ready() }))
    }

    async fn model_ready(&self, request: Request<pb::ModelReadyRequest>) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let pb::ModelReadyRequest { name, version } = request.into_inner();
        let ready = match self.engine.model(&ModelSelector { name, version }) {
            Ok(_model) => self.engine.is_ready(),
            Err(InferError::NotFound { .. } | InferError::Unavailable { .. }) => false,
            Err(error) => return Err(status(&translated_field(error))),
        };
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        Ok(Response::new(metadata::server()))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let pb::ModelMetadataRequest { name, version } = request.into_inner();
        let model = self.model(name, version)?;
        Ok(Response::new(metadata::model(&self.engine, &model)))
    }

    async fn model_infer(&self, request: Request<pb::ModelInferRequest>) -> Result<Response<pb::ModelInferResponse>, Status> {
        let clock = clock(&request);
        let outcome = job::infer(&self.engine, request.into_inner(), clock).await;
        observe("ModelInfer", clock, outcome.as_ref().map(|done| &done.timing));
        let mut done = outcome.map_err(|error| status(&error))?;
        let held = Held::new(std::mem::take(&mut done.places));
        Ok(held.until_sent(done.message().respond()))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let on_failure = on_failure(request.metadata());
        Ok(converse::<Infer>(&self.engine, request, on_failure))
    }

    async fn model_config(&self, request: Request<pb::ModelConfigRequest>) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let pb::ModelConfigRequest { name, version } = request.into_inner();
        let config = model_config(&self.engine, &*self.model(name, version)?);
        Ok(Response::new(pb::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let pb::ModelStatisticsRequest { name, version } = request.into_inner();
        let models = self.models(name, version)?;
        let model_stats = models.iter().map(|model| statistics(model)).collect();
        Ok(Response::new(pb::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        use pb::repository_index_response::ModelIndex;
        let clock = clock(&request);
        let pb::RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        if !repository_name.is_empty() {
            return Err(other_repository());
        }
        let index = self.engine.index(clock).await.map_err(|error| status(&error))?;
        let listed = index.into_iter().filter(|entry| entry.is_ready || !ready);
        let models = listed.map(|entry| ModelIndex {
            name: entry.name,
            version: entry.version,
            state: if entry.is_ready { "READY" } else { "UNAVAILABLE" }.to_owned(),
            reason: entry.reason,
        });
        Ok(Response::new(pb::RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        let clock = clock(&request);
        let pb::RepositoryModelLoadRequest { repository_name, model_name, parameters } = request.into_inner();
        no_parameters(parameters.keys(), "")?;
        let name = repository_model(repository_name, model_name)?;
        self.engine.load_model(&name, clock).await.map_err(|error| status(&translated_field(error)))?;
        self.health.set_model(&name, self.engine.is_ready()).await;
        Ok(Response::new(pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        let pb::RepositoryModelUnloadRequest { repository_name, model_name, parameters } = request.into_inner();
        no_parameters(parameters.keys(), "unload_dependents")?;
        let name = repository_model(repository_name, model_name)?;
        self.engine.unload_model(&name).map_err(|error| status(&translated_field(error)))?;
        self.health.set_model(&name, false).await;
        Ok(Response::new(pb::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryStatusResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryRegisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryUnregisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryStatusResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryRegisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryUnregisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn trace_setting(
        &self,
        _request: Request<pb::TraceSettingRequest>,
    ) -> Result<Response<pb::TraceSettingResponse>, Status> {
        Err(Status::unimplemented("tracing is set where the server is started"))
    }

    async fn log_settings(&self, _request: Request<pb::LogSettingsRequest>) -> Result<Response<pb::LogSettingsResponse>, Status> {
        Err(Status::unimplemented("logging is set where the server is started (log.filter)"))
    }
}
