//! One request through one model, in the service's own terms: no protobuf above, no sessions below.
//!
//! In: an [`ExtractRequest`] (or one for masks, objects, matches, labels along a video) and its [`Clock`]. Out: an [`Extracted`] or an
//! [`InferError`]. Called by `grpc` and by the benchmarks.
//!
//! # Design
//! Everything that can be refused is refused before work is spent: the options against the manifest, the image's size from its
//! header, the memory against the budget, the region and the points against the geometry; only then does a request reach the
//! queue. Decoding, resizing and encoding run on a bounded share of blocking threads ([`CpuPool`]), the model on the batcher's
//! executors; the async threads only wait. With a response cache ([`cache`](crate::cache)), most of that is left out for what was asked before.

mod cached;
mod cpu;
mod discover;
mod error;
mod extract;
mod graph_tools;
mod group;
mod input;
mod kept;
mod limits;
mod map;
mod matching;
mod model;
mod observe;
mod plan;
mod propagate;
mod question;
mod repository;
mod request;
mod segment;
mod select;
mod statistics;
mod timing;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::sync::watch::Sender;

pub use crate::batch::{Caller, Priority, Tenant};
pub use cpu::CpuPool;
pub use discover::{DiscoverRequest, Discovered, FoundObject};
pub use error::{ErrorCode, InferError};
pub use graph_tools::GRAPH_TOOLS;
pub use group::GroupError;
pub use limits::{Admission, Admitted, Limits, MAX_LIFT_PASSES};
pub use map::MapInfo;
pub use matching::{MatchRequest, Matched, PointMatch};
pub use model::{LoadError, LoadOptions, LoadedModel, check_runs};
pub use plan::Plan;
pub use propagate::{FirstFrame, FirstLabels, FrameMap, PropagateRequest, Propagation};
pub use repository::{IndexEntry, Repository};
pub use request::{Clock, Extent, ExtractRequest, Extracted, FeatureRequest, ImageSource, InputRequest, ModelSelector, Part};
pub use segment::{ClassArea, ClassMask, MaskData, MaskFormat, MaskRequest, MaskSize, SegmentRequest, Segmented, WindowRequest};
pub use statistics::{Counts, RunTally, Statistics, Tally};
pub use timing::{Source, Timing};
pub use watch::{Change, Watch};

use crate::{
    cache::CacheConfig,
    engine::{cached::AnswerCache, observe::Shown},
};

/// When it is worth trying again at the earliest: what is in flight and not with a model decodes, encodes or is sent.
const MIN_RETRY: Duration = Duration::from_millis(50);

/// The loaded models and the bounds on their use, and the answers that are kept. Shared by all connections.
#[derive(Debug)]
pub struct Engine {
    models: RwLock<Models>,
    default_model: String,
    is_ready: Sender<bool>,
    repository: OnceLock<Repository>,
    limits: Limits,
    admission: Arc<Admission>,
    cpu: CpuPool,
    cache: Option<AnswerCache>,
    shown: Shown,
}

/// Models by name and version.
#[derive(Debug, Default)]
struct Models {
    by_name: BTreeMap<String, BTreeMap<u32, Arc<LoadedModel>>>,
    /// Whether all models of the start are there: what is not found until then may still come.
    is_complete: bool,
}

impl Engine {
    /// An engine without models yet; requests that name none go to `default_model`.
    #[must_use]
    pub fn new(default_model: String, limits: Limits, cache: &CacheConfig, n_cpu_threads: usize) -> Self {
        let admission = Admission::new(&limits);
        Self {
            models: RwLock::default(),
            default_model,
            is_ready: Sender::new(false),
            repository: OnceLock::new(),
            limits,
            admission,
            cpu: CpuPool::new(n_cpu_threads),
            cache: AnswerCache::new(cache),
            shown: Shown::default(),
        }
    }

    /// Adds a model, which answers requests from now on.
    pub fn add(&self, model: LoadedModel) {
        let (name, version) = (model.manifest().name.clone(), model.manifest().version);
        self.write().by_name.entry(name).or_default().insert(version, Arc::new(model));
    }

    /// Says that all models are there: from now on an unknown one is unknown, and not late.
    pub fn complete(&self) {
        self.write().is_complete = true;
    }

    /// Says whether requests are welcome: models are warm, and the server is not shutting down.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.send_replace(is_ready);
    }

    /// Whether requests are welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.is_ready.borrow()
    }

    /// Resolves when requests are not welcome any more: the server shuts down.
    pub async fn unready(&self) {
        let mut changes = self.is_ready.subscribe();
        let _engine_gone = changes.wait_for(|is_ready| !is_ready).await;
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All models, by name and version.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<LoadedModel>> {
        self.read().by_name.values().flat_map(BTreeMap::values).map(Arc::clone).collect()
    }

    /// Whether this very model answers requests.
    pub(super) fn serves(&self, model: &Arc<LoadedModel>) -> bool {
        let manifest = model.manifest();
        let models = self.read();
        let current = models.by_name.get(&manifest.name).and_then(|versions| versions.get(&manifest.version));
        current.is_some_and(|current| Arc::ptr_eq(current, model))
    }

    /// Whether requests that name no model go to this one.
    #[must_use]
    pub fn is_default(&self, model: &LoadedModel) -> bool {
        let manifest = model.manifest();
        let models = self.read();
        let newest = models.by_name.get(&self.default_model).and_then(|versions| versions.keys().next_back());
        manifest.name == self.default_model && newest == Some(&manifest.version)
    }

    /// The loaded versions of a model, ascending.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<Arc<LoadedModel>> {
        self.read().by_name.get(name).map(|versions| versions.values().map(Arc::clone).collect()).unwrap_or_default()
    }

    /// Finds a model.
    ///
    /// # Errors
    /// [`InferError::NotFound`] with what there is; [`InferError::Unavailable`] while models are loading;
    /// [`InferError::InvalidArgument`] for a version that is no number.
    pub fn model(&self, selector: &ModelSelector) -> Result<Arc<LoadedModel>, InferError> {
        let name = if selector.name.is_empty() { &self.default_model } else { &selector.name };
        let models = self.read();
        let not_found = |field, message| {
            if models.is_complete { InferError::NotFound { field, message } } else { loading() }
        };
        let versions = models.by_name.get(name).ok_or_else(|| {
            let known = models.by_name.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            not_found("model.name", format!("no model \"{name}\": this server has {known}"))
        })?;
        if selector.version.is_empty() {
            return versions.values().next_back().map(Arc::clone).ok_or_else(loading);
        }
        let version: u32 = selector
            .version
            .parse()
            .map_err(|_error| InferError::invalid("model.version", format!("\"{}\" is not a whole number", selector.version)))?;
        versions.get(&version).map(Arc::clone).ok_or_else(|| {
            let known = versions.keys().map(u32::to_string).collect::<Vec<_>>().join(", ");
            not_found("model.version", format!("no version {version} of {name}: this server has {known}"))
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Models> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Models> {
        self.models.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests in flight now.
    #[must_use]
    pub fn n_in_flight(&self) -> u64 {
        self.admission.n_requests()
    }

    /// Refuses new work, finishes what was accepted within `budget`, and ends the executors.
    pub async fn drain(&self, budget: Duration) {
        for model in self.models() {
            model.batcher().drain(budget).await;
        }
    }

    /// Takes a place for a request that needs `n_bytes`; a refusal tells when the model will have done what it has.
    fn admit(&self, model: &LoadedModel, clock: Clock, n_bytes: u64) -> Result<Admitted, InferError> {
        let retry_after = model.batcher().drain_time().max(MIN_RETRY);
        self.admission.admit(clock.caller.tenant, n_bytes, retry_after)
    }

    fn cpu(&self) -> &CpuPool {
        &self.cpu
    }
}

fn loading() -> InferError {
    InferError::Unavailable { message: "the server is loading its models".into() }
}
