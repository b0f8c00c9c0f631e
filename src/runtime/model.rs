//! The part of a loaded model that all its runners share: graphs, position table, options. Immutable but for the cache of
//! fitted position tables.
//!
//! # Design
//! This module knows neither ONNX's messages nor how a position table is fitted to a grid; [`GraphTools`] brings both. So tests
//! need no real model, and the shape of graphs stays in one place.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{
    error::{RuntimeError, Source},
    graph_file::{GraphFile, Prune},
    library::Library,
    lru::Lru,
    provider::Provider,
    session::SessionOptions,
    threads::{ThreadConfig, cpu_quota},
    view::RunKey,
};
use crate::{
    manifest::{Manifest, PositionVariant, Precision},
    mmap::map_file,
};

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Execution providers, in order of preference. Default: the CPU.
    pub providers: Vec<Provider>,
    /// Runners of the model, each with sessions of its own. Default 1.
    pub instances: usize,
    /// Threads of the sessions.
    pub threads: ThreadConfig,
    /// Sessions that a runner keeps, one for each set of outputs in use; at least 4. Default 6.
    pub max_sessions: usize,
    /// Fitted position tables that are kept, one for each grid in use. Default 16.
    pub max_positions: usize,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let (providers, threads) = (vec![Provider::Cpu], ThreadConfig::default());
        Self { providers, instances: 1, threads, max_sessions: 6, max_positions: 16 }
    }
}

/// What the runtime needs to know of graphs.
#[derive(Clone, Copy, Debug)]
pub struct GraphTools {
    /// Cuts a serialised ONNX model down to what the named outputs need.
    pub prune: Prune,
    /// Fits a position table to a grid.
    pub fit_position: FitPosition,
}

/// Stored table and `[rows, cols]` to values `[rows * cols * D]`.
pub type FitPosition = fn(table: &PositionTable, grid: [usize; 2]) -> Result<Vec<f32>, Source>;

/// The stored position table.
///
/// # Shapes
/// - `values`: `[rows, cols, D]` f32, row-major
#[derive(Clone, PartialEq)]
pub struct PositionTable {
    /// The values.
    pub values: Vec<f32>,
    /// Rows, columns and D.
    pub shape: [usize; 3],
    /// How it is fitted.
    pub variant: PositionVariant,
}

impl fmt::Debug for PositionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PositionTable({:?}, {:?})", self.shape, self.variant)
    }
}

/// A loaded model.
pub struct RuntimeModel {
    pub(super) manifest: Manifest,
    pub(super) backbone: GraphFile,
    pub(super) lift: Option<GraphFile>,
    pub(super) segmenter: Option<GraphFile>,
    pub(super) sessions: SessionOptions,
    pub(super) max_sessions: usize,
    position: Option<PositionTable>,
    fitted: Mutex<Lru<[usize; 2], Arc<Vec<f32>>>>,
    fit_position: FitPosition,
}

impl RuntimeModel {
    /// Reads the files of a model directory. Digests are not checked here.
    ///
    /// # Errors
    /// [`RuntimeError::Read`] or [`RuntimeError::Malformed`], with the file; [`RuntimeError::ProviderPrecision`].
    pub fn open(
        dir: &Path,
        manifest: &Manifest,
        config: &RuntimeConfig,
        library: &Library,
        tools: GraphTools,
    ) -> Result<Arc<Self>, RuntimeError> {
        let other = config.providers.iter().find(|provider| **provider != Provider::Cpu);
        if let Some(provider) = other.filter(|_| manifest.backbone.precision == Precision::Int8) {
            return Err(RuntimeError::ProviderPrecision { model: manifest.name.clone(), provider: provider.name() });
        }
        let backbone = GraphFile::read(dir, &manifest.backbone.file, &manifest.backbone.external, tools.prune)?;
        let read_head = |file: &String| GraphFile::read(dir, file, &[], tools.prune);
        let lift = manifest.lift.as_ref().map(|lift| read_head(&lift.file)).transpose()?;
        let segmenter = manifest.segmenter.as_ref().map(|segmenter| read_head(&segmenter.file)).transpose()?;
        let position = match manifest.backbone.baked_size {
            Some(_) => None,
            None => Some(read_position(&dir.join(&manifest.position.file), manifest.position.variant)?),
        };
        let n_threads = config.threads.per_instance(config.instances, cpu_quota());
        let providers = config.providers.clone();
        let sessions = SessionOptions { library: library.clone(), providers, n_threads, spin_us: config.threads.spin_us };
        Ok(Arc::new(Self {
            manifest: manifest.clone(),
            backbone,
            lift,
            segmenter,
            sessions,
            // A key with two or more LiFT passes and scores needs four at once.
            max_sessions: config.max_sessions.max(4),
            position,
            fitted: Mutex::new(Lru::new(config.max_positions)),
            fit_position: tools.fit_position,
        }))
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What a request that names nothing gets: the default activations, doubled once when the head accepts them.
    #[must_use]
    pub fn default_key(&self, height: u32, width: u32) -> RunKey {
        let tap = self.manifest.backbone.default;
        let has_head = self.manifest.lift.as_ref().is_some_and(|lift| lift.tap == tap);
        RunKey::features([height, width], tap, u32::from(has_head))
    }

    /// The position table of a grid, `[rows * cols * D]`; `None` for a graph with a baked one.
    pub(super) fn position(&self, grid: [usize; 2]) -> Result<Option<Arc<Vec<f32>>>, Source> {
        let Some(table) = &self.position else { return Ok(None) };
        if let Some(fitted) = self.fitted.lock().unwrap_or_else(PoisonError::into_inner).find(&grid) {
            return Ok(Some(Arc::clone(fitted)));
        }
        // Fitted without the lock: two runners may do the same work, none waits.
        let fitted = Arc::new((self.fit_position)(table, grid)?);
        if fitted.len() != grid[0] * grid[1] * table.shape[2] {
            return Err(format!("the fitted position table has {} values", fitted.len()).into());
        }
        self.fitted.lock().unwrap_or_else(PoisonError::into_inner).insert(grid, Arc::clone(&fitted));
        Ok(Some(fitted))
    }
}

impl fmt::Debug for RuntimeModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimeModel({} version {})", self.manifest.name, self.manifest.version)
    }
}

fn read_position(path: &Path, variant: PositionVariant) -> Result<PositionTable, RuntimeError> {
    let malformed = |reason: String| RuntimeError::Malformed { path: path.to_owned(), reason };
    let file = map_file(path).map_err(|source| RuntimeError::Read { path: path.to_owned(), source })?;
    let tensors = SafeTensors::deserialize(&file).map_err(|error| malformed(error.to_string()))?;
    let tensor = tensors.tensor("position").map_err(|error| malformed(error.to_string()))?;
    let shape: [usize; 3] = tensor.shape().try_into().map_err(|_| malformed("`position` has not three axes".to_owned()))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(malformed("`position` is not f32".to_owned()));
    }
    let values =
        tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    Ok(PositionTable { values, shape, variant })
}
