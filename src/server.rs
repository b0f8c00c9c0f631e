//! Composes the service: models, engine, gRPC port, admin port, and their orderly end.

use std::{
    io, mem,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{
    admin::{self, Refresh},
    config::ServeConfig,
    engine::{Engine, LoadError, LoadedModel, Repository, Watch},
    grpc::{self, GrpcError, Health, ListenError, Listener, ReloadError},
    manifest::{ModelEntry, RepositoryError, scan},
    runtime::{Library, RuntimeError, cpu_quota},
    telemetry::{self, TelemetryError, record},
};

/// Why the server did not start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A port could not be bound.
    #[error("cannot listen on {address} ({key})")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The configuration key.
        key: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// ONNX Runtime is not there or a required provider does not load.
    #[error("cannot start ONNX Runtime")]
    Runtime(#[source] RuntimeError),
    /// The model repository cannot be read.
    #[error("cannot read the model repository")]
    Repository(#[source] RepositoryError),
    /// There is nothing to serve.
    #[error("no model to serve: {0}")]
    NoModel(String),
    /// A model does not load.
    #[error("cannot load model {name} version {version}")]
    Load {
        /// Its name.
        name: String,
        /// Its version.
        version: u32,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// Certificates or key cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[source] ReloadError),
    /// The gRPC services cannot be set up.
    #[error("cannot set up the gRPC services")]
    Grpc(#[source] GrpcError),
    /// Metrics cannot be set up.
    #[error("cannot set up telemetry")]
    Telemetry(#[source] TelemetryError),
}

/// A server with open ports.
#[derive(Debug)]
pub struct Server {
    config: ServeConfig,
    engine: Arc<Engine>,
    /// What is to be loaded.
    entries: Vec<ModelEntry>,
    serving: AbortOnDropHandle<usize>,
    address: SocketAddr,
    draining: watch::Sender<bool>,
    health: Health,
    ready: watch::Sender<bool>,
    admin: Option<Admin>,
    /// Follows the model repository.
    watching: Option<AbortOnDropHandle<()>>,
}

/// Loads and unloads what comes and goes in the model repository, and tells health checks.
async fn watch_models(engine: Arc<Engine>, health: Health, only: Vec<String>, every: Duration) {
    let mut watch = Watch::default();
    loop {
        for change in engine.watch(&mut watch, &only, every).await {
            health.set_model(&change.name, change.is_loaded && engine.is_ready()).await;
        }
    }
}

impl Server {
    /// Opens the ports, then loads and warms the models: the server is ready when this returns.
    ///
    /// # Errors
    /// See [`ServerError`]; every port is closed again then.
    pub async fn start(config: ServeConfig) -> Result<Self, ServerError> {
        let mut server = Self::bind(config).await?;
        server.load().await?;
        Ok(server)
    }

    /// Opens the ports. Health checks and probes say "not serving", and calls are refused as unavailable, until
    /// [`load`](Self::load) has returned.
    ///
    /// # Errors
    /// [`ServerError::Bind`]; [`ServerError::Repository`] or [`ServerError::NoModel`] when there is nothing to load.
    pub async fn bind(config: ServeConfig) -> Result<Self, ServerError> {
        let entries = chosen_entries(&config)?;
        let engine = Arc::new(Engine::new(default_model(&config, &entries)?, config.limits.clone(), &config.cache, cpu_quota()));
        let (app, health) = grpc::router(Arc::clone(&engine), &config.grpc).map_err(ServerError::Grpc)?;
        health.set_serving(&entries.iter().map(|entry| entry.manifest.name.clone()).collect::<Vec<_>>(), false).await;
        let listener = bind_grpc(&config).await?;
        let address = listener.local_addr().map_err(|source| bind_failed(config.grpc.listen, "grpc.listen", source))?;
        let (ready, ready_watch) = watch::channel(false);
        let admin = start_admin(&config, &engine, ready_watch).await?;
        let (draining, drain_watch) = watch::channel(false);
        let budget = Duration::from_secs_f64(config.shutdown.budget_s.max(0.0));
        let serving = AbortOnDropHandle::new(tokio::spawn(listener.serve(app, drain_watch, budget)));
        Ok(Self { config, engine, entries, serving, address, draining, health, ready, admin, watching: None })
    }

    /// Loads and warms the models, then tells everybody that the server is ready.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] or [`ServerError::Load`].
    pub async fn load(&mut self) -> Result<(), ServerError> {
        let from_environment = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
        let library = Library::load(self.config.library.as_deref(), from_environment.as_deref()).map_err(ServerError::Runtime)?;
        info!("{}", library.versions());
        let options = self.config.load_options();
        for entry in mem::take(&mut self.entries) {
            let (name, version) = (entry.manifest.name.clone(), entry.manifest.version);
            let model = LoadedModel::load(entry, &library, &options).await;
            self.engine.add(model.map_err(|source| ServerError::Load { name, version, source })?);
        }
        let (dir, control) = (self.config.models.dir.clone(), self.config.models.control);
        self.engine.set_repository(Repository::new(dir, library, options, control));
        self.engine.complete();
        self.set_ready(true).await;
        if self.config.models.watch_s > 0 {
            let (every, only) = (Duration::from_secs(self.config.models.watch_s), self.config.models.load.clone());
            let watching = watch_models(Arc::clone(&self.engine), self.health.clone(), only, every);
            self.watching = Some(AbortOnDropHandle::new(tokio::spawn(watching)));
        }
        Ok(())
    }

    /// Address of the gRPC port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of the admin port, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// The engine behind the ports.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Number of loaded models.
    #[must_use]
    pub fn n_models(&self) -> usize {
        self.engine.models().len()
    }

    /// Serves until `stop` resolves; then tells health checks, waits `shutdown.delay_s`, refuses new calls, finishes those in
    /// flight within `shutdown.budget_s`, and drops what is left.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        stop.await;
        let begun = Instant::now();
        drop(self.watching.take());
        self.set_ready(false).await;
        sleep(Duration::from_secs_f64(self.config.shutdown.delay_s.max(0.0))).await;
        // Receivers live in the accept loop and its connections; none left means that all have ended.
        let _all_ended = self.draining.send(true);
        let n_dropped = self.serving.await.unwrap_or_default();
        self.engine.drain(Duration::from_secs(1)).await;
        if n_dropped > 0 {
            warn!(n_dropped, "connections outlived the drain budget and were dropped");
        }
        info!(drain_ms = begun.elapsed().as_millis(), "stopped");
    }

    async fn set_ready(&self, is_ready: bool) {
        let names: Vec<String> = self.engine.models().iter().map(|model| model.manifest().name.clone()).collect();
        self.health.set_serving(&names, is_ready).await;
        self.engine.set_ready(is_ready);
        self.ready.send_replace(is_ready);
        record::ready(is_ready);
    }
}

async fn bind_grpc(config: &ServeConfig) -> Result<Listener, ServerError> {
    let address = config.grpc.listen;
    Listener::bind(config.grpc.clone()).await.map_err(|error| match error {
        ListenError::Bind(source) => bind_failed(address, "grpc.listen", source),
        ListenError::Tls(source) => ServerError::Tls(source),
    })
}

fn bind_failed(address: SocketAddr, key: &'static str, source: io::Error) -> ServerError {
    ServerError::Bind { address, key, source }
}

/// The admin port; closed on drop.
#[derive(Debug)]
struct Admin {
    address: SocketAddr,
    _task: AbortOnDropHandle<io::Result<()>>,
}

async fn start_admin(
    config: &ServeConfig,
    engine: &Arc<Engine>,
    ready: watch::Receiver<bool>,
) -> Result<Option<Admin>, ServerError> {
    if !config.admin.enabled {
        return Ok(None);
    }
    let metrics = telemetry::init_metrics().map_err(ServerError::Telemetry)?;
    let failed = |source| bind_failed(config.admin.listen, "admin.listen", source);
    let listener = TcpListener::bind(config.admin.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    info!("metrics and probes on http://{address}");
    let engine = Arc::clone(engine);
    let refresh = Refresh::new(move || engine.observe());
    let task = AbortOnDropHandle::new(tokio::spawn(admin::serve(listener, (metrics, refresh), ready)));
    Ok(Some(Admin { address, _task: task }))
}

fn chosen_entries(config: &ServeConfig) -> Result<Vec<ModelEntry>, ServerError> {
    let dir = &config.models.dir;
    let mut entries = scan(dir).map_err(ServerError::Repository)?;
    let wanted = &config.models.load;
    if let Some(missing) = wanted.iter().find(|name| !entries.iter().any(|entry| &entry.manifest.name == *name)) {
        return Err(ServerError::NoModel(format!("models.load names \"{missing}\", which is not in {}", dir.display())));
    }
    if !wanted.is_empty() {
        entries.retain(|entry| wanted.contains(&entry.manifest.name));
    }
    if entries.is_empty() {
        return Err(ServerError::NoModel(format!(
            "{} holds none (models.dir); `make setup` imports the default one",
            dir.display()
        )));
    }
    Ok(entries)
}

fn default_model(config: &ServeConfig, entries: &[ModelEntry]) -> Result<String, ServerError> {
    let name = &config.models.default;
    if name.is_empty() {
        return Ok(entries.iter().map(|entry| entry.manifest.name.clone()).min().unwrap_or_default());
    }
    if entries.iter().any(|entry| &entry.manifest.name == name) {
        return Ok(name.clone());
    }
    Err(ServerError::NoModel(format!("models.default names \"{name}\", which is not loaded")))
}
