//! A model that is loaded and warm: its manifest, and the batcher in front of its executors.

use std::{
    error::Error,
    fmt::Debug,
    panic::resume_unwind,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::task::{JoinError, spawn_blocking};
use tracing::{debug, info, warn};

use crate::{
    batch::{BatchConfig, BatchError, Batcher, Limit, Observer, RunError, Runner, StartError, Stop},
    engine::{Statistics, graph_tools::GRAPH_TOOLS},
    manifest::{Manifest, ModelEntry, RepositoryError, ResizePolicy},
    runtime::{
        FeatureKey, Library, ModelRunner, Placement, RunKey, RunOutput, RuntimeConfig, RuntimeError, RuntimeModel, Termination,
        ThreadConfig, WarmUp,
    },
    telemetry::record,
    tensor::RgbImage,
};

/// Why a model does not load.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file is not the one that the manifest describes.
    #[error("the files are not in order")]
    Files(#[source] RepositoryError),
    /// The sessions cannot be created or do not run.
    #[error("the sessions cannot be created or do not run")]
    Runtime(#[source] RuntimeError),
    /// The executors cannot be started.
    #[error("cannot start the executors")]
    Start(#[source] StartError),
    /// Loading panicked.
    #[error("loading was broken off")]
    Broken(#[source] JoinError),
}

/// How models are loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Whether to compare the files' digests first.
    pub verify: bool,
    /// Input sizes `[height, width]` that every executor runs once, beside the model's default.
    pub warm_up: Vec<[u32; 2]>,
    /// Executors and their sessions.
    pub runtime: RuntimeConfig,
    /// Batching.
    pub batch: BatchConfig,
}

/// Runs a model's sessions for the batcher.
#[derive(Debug)]
pub struct Executor {
    runner: ModelRunner,
    threads: ThreadConfig,
    statistics: Arc<Statistics>,
}

impl Runner for Executor {
    type Key = RunKey;
    type Input = RgbImage;
    type Output = RunOutput;

    fn begin(&mut self) {
        self.threads.give_way();
    }

    fn run(&mut self, key: &RunKey, inputs: &[RgbImage], stop: &Stop) -> Result<Vec<RunOutput>, RunError> {
        let termination = Termination::new().map_err(RunError::new)?;
        let by_stop = termination.clone();
        let end = move || {
            if let Err(error) = by_stop.terminate() {
                warn!(error = &error as &dyn Error, "a run that nobody waits for could not be ended");
            }
        };
        let began = Instant::now();
        let outputs = stop.during(end, || self.runner.run_until(key, inputs, termination)).map_err(RunError::new)?;
        // Times of a run are those of the whole batch, the same in every output.
        let infer = outputs.first().map(|first| first.backbone + first.lift + first.segment).unwrap_or_default();
        let elapsed = began.elapsed();
        self.statistics.run(inputs.len(), elapsed, infer);
        let manifest = self.runner.model().manifest();
        let outputs_run = match (&key.features, key.segment) {
            (Some(_), true) => "both",
            (None, true) => "masks",
            (_, false) => "features",
        };
        let n_cells = [key.height, key.width].map(|side| (side / manifest.architecture.patch.max(1)) as usize).iter().product();
        record::image_cost(&manifest.name, outputs_run, n_cells, (inputs.len(), elapsed));
        Ok(outputs)
    }
}

/// Multiplications of a backbone for an image of `key`, up to a factor: `N (6 D + N)` for N tokens of width D. Each token meets the four
/// matrices of attention and the two of the perceptron, 12 D² in all, and every other token twice, 2 N D.
fn relative_cost(key: &RunKey, patch: u32, width: u32) -> f64 {
    let side = |pixels: u32| f64::from(pixels / patch.max(1));
    let n_tokens = side(key.height) * side(key.width) + 1.0;
    n_tokens * (6.0 * f64::from(width) + n_tokens)
}

/// A model that answers requests.
#[derive(Debug)]
pub struct LoadedModel {
    entry: ModelEntry,
    provider: String,
    n_executors: usize,
    batch: BatchConfig,
    statistics: Arc<Statistics>,
    batcher: Batcher<Executor>,
}

impl LoadedModel {
    /// Checks, opens and warms a model: it is ready when this returns.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(entry: ModelEntry, library: &Library, options: &LoadOptions) -> Result<Self, LoadError> {
        let (name, library, settings) = (entry.manifest.name.clone(), library.clone(), options.clone());
        let opening = spawn_blocking(move || {
            let opened = apart(settings.runtime.threads, || open(&entry, &library, &settings))?;
            Ok((entry, opened))
        });
        let (entry, Opened { runners, provider, first_runs, placement }) = opening.await.map_err(LoadError::Broken)??;
        let (n_executors, threads) = (runners.len(), options.runtime.threads);
        let statistics = Arc::<Statistics>::default();
        let executor = |runner| Executor { runner, threads, statistics: Arc::clone(&statistics) };
        let executors = runners.into_iter().map(executor).collect();
        let (patch, width) = (entry.manifest.architecture.patch, entry.manifest.architecture.width);
        let cost = move |key: &RunKey| relative_cost(key, patch, width);
        let recorder = Arc::new(Recorder { model: name.clone() });
        let batcher = Batcher::start(options.batch.clone(), executors, cost, recorder).map_err(LoadError::Start)?;
        first_runs.iter().for_each(|(key, time)| batcher.seed(key, 1, *time));
        placement.iter().for_each(|(provider, n_nodes)| record::placement(&name, provider, *n_nodes));
        let version = entry.manifest.version;
        info!(model.name = %name, model.version = version, n_executors, %provider, "model {name}/{version} is ready");
        Ok(Self { entry, provider, n_executors, batch: options.batch.clone(), statistics, batcher })
    }

    /// What the model is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.entry.manifest
    }

    /// SHA-256 of the manifest, which stands for all files.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.entry.digest
    }

    /// Execution providers in use, in order of preference: `cpu`, or `cuda, cpu`.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Executors that run beside each other.
    #[must_use]
    pub fn n_executors(&self) -> usize {
        self.n_executors
    }

    /// How its batches are formed.
    #[must_use]
    pub fn batch_config(&self) -> &BatchConfig {
        &self.batch
    }

    /// What it has done since it was loaded.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    pub(super) fn batcher(&self) -> &Batcher<Executor> {
        &self.batcher
    }
}

/// Runners of a model, warm.
struct Opened {
    runners: Vec<ModelRunner>,
    /// Providers that they use.
    provider: String,
    /// What single images took in warm-up.
    first_runs: Vec<(RunKey, Duration)>,
    /// Nodes by the provider that ran them, where that is a question.
    placement: Placement,
}

/// Runs `work` on a thread of its own that gives way, as the threads of the sessions that it creates will then do. A panic goes on here.
fn apart<T: Send>(threads: ThreadConfig, work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        threads.give_way();
        work()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|payload| resume_unwind(payload)))
}

fn open(entry: &ModelEntry, library: &Library, options: &LoadOptions) -> Result<Opened, LoadError> {
    if options.verify {
        entry.verify().map_err(LoadError::Files)?;
    }
    let model =
        RuntimeModel::open(&entry.dir, &entry.manifest, &options.runtime, library, GRAPH_TOOLS).map_err(LoadError::Runtime)?;
    let (mut used, mut first_runs, mut placement) = (Vec::new(), Vec::new(), Placement::new());
    let mut runners = Vec::with_capacity(options.runtime.instances.max(1));
    for _ in 0..options.runtime.instances.max(1) {
        let mut runner = ModelRunner::new(&model);
        for [height, width] in warm_up_sizes(&entry.manifest, &options.warm_up) {
            let segment = entry.manifest.segmenter.is_some().then(|| RunKey::segment([height, width]));
            for key in [Some(model.default_key(height, width)), segment].into_iter().flatten() {
                let WarmUp { providers, run_time, placement: of_run } = runner.warm_up(&key).map_err(LoadError::Runtime)?;
                used = providers;
                // One runner is like another.
                if runners.is_empty() {
                    of_run.into_iter().for_each(|(provider, n_nodes)| *placement.entry(provider).or_default() += n_nodes);
                }
                first_runs.push((key, run_time));
            }
        }
        runners.push(runner);
    }
    Ok(Opened { runners, provider: used.join(", "), first_runs, placement })
}

/// The default size of the model, as a square where it depends on the image, and the configured ones, in patch multiples.
fn warm_up_sizes(manifest: &Manifest, configured: &[[u32; 2]]) -> Vec<[u32; 2]> {
    if let Some(baked) = manifest.backbone.baked_size {
        return vec![baked];
    }
    let patch = manifest.architecture.patch.max(1);
    let default = match manifest.preprocess.resize {
        ResizePolicy::Exact { height, width } | ResizePolicy::Letterbox { height, width } => [height, width],
        ResizePolicy::ShortSide { pixels } => [pixels; 2],
        ResizePolicy::Native => [16 * patch; 2],
    };
    let snap = |side: u32| (side / patch).max(1).saturating_mul(patch);
    std::iter::once(default).chain(configured.iter().copied()).map(|size| size.map(snap)).collect()
}

/// Opens a model directory and runs it once, as a server with default settings would.
///
/// # Errors
/// When the runtime is not there, or the model does not run.
pub fn check_runs(entry: &ModelEntry, library: Option<&Path>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let library = Library::load(None, library)?;
    let model = RuntimeModel::open(&entry.dir, &entry.manifest, &RuntimeConfig::default(), &library, GRAPH_TOOLS)?;
    let patch = entry.manifest.architecture.patch;
    let [height, width] = entry.manifest.backbone.baked_size.unwrap_or([2 * patch, 3 * patch]);
    let mut runner = ModelRunner::new(&model);
    runner.warm_up(&model.default_key(height, width))?;
    if let Some(lift) = &entry.manifest.lift {
        let features = FeatureKey { tap: lift.tap, lift_passes: 1, cls: entry.manifest.architecture.has_cls(), registers: false };
        runner.warm_up(&RunKey { height, width, features: Some(features), segment: false })?;
    }
    if entry.manifest.segmenter.is_some() {
        runner.warm_up(&RunKey::segment([height, width]))?;
    }
    Ok(())
}

/// Hears the batcher for the metrics.
#[derive(Debug)]
struct Recorder {
    model: String,
}

impl Observer for Recorder {
    fn launched(&self, _key: &dyn Debug, batch_size: usize, _longest_wait: Duration, _predicted: Option<Duration>) {
        record::batch(&self.model, batch_size);
    }

    fn ran(&self, key: &dyn Debug, batch_size: usize, predicted: Option<Duration>, actual: Duration, drain_time: Duration) {
        record::run(&self.model, predicted, actual, drain_time);
        debug!(?key, batch_size, ?predicted, ?actual, "{batch_size} images ran for {actual:?}");
    }

    fn refused(&self, reason: &BatchError) {
        let reason = match reason {
            BatchError::Full { limit, .. } | BatchError::TooLarge { limit, .. } => match limit {
                Limit::Count | Limit::Bytes => "full",
                Limit::TenantCount | Limit::TenantBytes => "tenant_full",
                Limit::Buckets => "buckets",
            },
            BatchError::TooLate { .. } => "too_late",
            BatchError::DeadlineExceeded => "expired",
            BatchError::Closed | BatchError::Failed(_) | BatchError::Lost => "closed",
        };
        record::dropped(&self.model, reason);
    }

    fn expired(&self) {
        record::dropped(&self.model, "expired");
    }

    fn cancelled(&self) {
        record::dropped(&self.model, "cancelled");
    }
}
