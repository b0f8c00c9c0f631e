//! The model repository while the server runs: what it holds, and models that come and go.
//!
//! # Design
//! A name's versions are replaced together, in one step, after the new ones were verified and are warm; until then, and for ever if one of
//! them does not load, the old ones answer. Nobody drains the old ones: requests hold the model that they began with, and its executors
//! end with the last of them. While a model is reloaded, both are in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::{
    engine::{Clock, Engine, InferError, LoadError, LoadOptions, LoadedModel},
    manifest::{ModelEntry, load_dir, model_dirs},
    runtime::Library,
};

/// The models on disk, and how to load them.
#[derive(Debug)]
pub struct Repository {
    pub(super) dir: PathBuf,
    library: Library,
    options: LoadOptions,
    /// Whether callers may load and unload models.
    allows_control: bool,
    /// Only one model is loaded at a time.
    pub(super) loading: Arc<tokio::sync::Mutex<()>>,
    /// Why the last load of a name failed.
    failures: Mutex<BTreeMap<String, String>>,
}

/// A model of the repository, or one that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its name.
    pub name: String,
    /// Its version; the name of a folder, for one that is not loaded.
    pub version: String,
    /// Whether it answers requests.
    pub is_ready: bool,
    /// Why it does not, or why what lies in its folder is not what answers; empty when all is well.
    pub reason: String,
}

impl Repository {
    /// The repository in `dir`, whose models are loaded with `library` and `options`.
    #[must_use]
    pub fn new(dir: PathBuf, library: Library, options: LoadOptions, allows_control: bool) -> Self {
        Self { dir, library, options, allows_control, loading: Arc::default(), failures: Mutex::default() }
    }

    /// Opens all versions of a model; those in `loaded` that did not change are kept.
    async fn open(&self, name: &str, loaded: &[Arc<LoadedModel>]) -> Result<BTreeMap<u32, Arc<LoadedModel>>, InferError> {
        let dir = self.dir.clone();
        let read =
            spawn_blocking(move || entries(&dir)).await.map_err(|error| InferError::internal("reading the repository", error))?;
        let mut versions = BTreeMap::new();
        for (folder, entry) in read?.into_iter().filter(|(folder, _)| folder.name == name) {
            let entry = entry.map_err(|reason| InferError::Refused { message: format!("{folder}: {reason}") })?;
            let version = entry.manifest.version;
            let same = loaded.iter().find(|model| model.manifest().version == version && model.digest() == entry.digest);
            let model = match same {
                Some(model) => Arc::clone(model),
                None => Arc::new(self.load(entry).await.map_err(|error| refused(&folder, &error))?),
            };
            versions.insert(version, model);
        }
        if versions.is_empty() {
            let message = format!("the repository holds no model \"{name}\"");
            return Err(InferError::NotFound { field: "model.name", message });
        }
        Ok(versions)
    }

    async fn load(&self, entry: ModelEntry) -> Result<LoadedModel, LoadError> {
        LoadedModel::load(entry, &self.library, &self.options).await
    }

    fn failure(&self, name: &str) -> Option<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn note(&self, name: &str, failure: Option<String>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(reason) => failures.insert(name.to_owned(), reason),
            None => failures.remove(name),
        };
    }
}

impl Engine {
    /// Says where models come from, once the server can load them.
    pub fn set_repository(&self, repository: Repository) {
        // Set once, by the one who starts the server.
        let _already_set = self.repository.set(repository);
    }

    /// All models of the repository, and all that are loaded, by name and version.
    ///
    /// # Errors
    /// [`InferError::Unavailable`] while the server starts; [`InferError::Internal`] when the repository cannot be
    /// read; [`InferError::DeadlineExceeded`].
    pub async fn index(&self, clock: Clock) -> Result<Vec<IndexEntry>, InferError> {
        let repository = self.repository()?;
        let dir = repository.dir.clone();
        let read = self.cpu().run("while reading the repository", clock.deadline, move || entries(&dir)).await?;
        let models = self.models();
        let mut seen = BTreeSet::new();
        let mut index = Vec::new();
        for (folder, entry) in read? {
            let loaded = models.iter().find(|model| folder.is_of(model));
            let failure = repository.failure(&folder.name);
            let reason = match (loaded, entry) {
                (None, Err(reason)) => reason,
                (None, Ok(_)) => failure.unwrap_or_else(|| "not loaded".to_owned()),
                (Some(model), Ok(entry)) if model.digest() == entry.digest => String::new(),
                (Some(_), Ok(_)) => failure.unwrap_or_else(|| "its folder has changed since it was loaded".to_owned()),
                (Some(_), Err(reason)) => format!("its folder has changed since it was loaded: {reason}"),
            };
            seen.insert((folder.name.clone(), folder.version.clone()));
            index.push(IndexEntry { name: folder.name, version: folder.version, is_ready: loaded.is_some(), reason });
        }
        let gone = models.iter().map(|model| (model.manifest().name.clone(), model.manifest().version.to_string()));
        let reason = "its folder is gone".to_owned();
        index.extend(gone.filter(|key| !seen.contains(key)).map(|(name, version)| IndexEntry {
            name,
            version,
            is_ready: true,
            reason: reason.clone(),
        }));
        index.sort_by(|a, b| {
            (&a.name, a.version.parse::<u32>().ok(), &a.version).cmp(&(&b.name, b.version.parse().ok(), &b.version))
        });
        Ok(index)
    }

    /// Loads all versions of a model, new or changed, and replaces those that answer by them. A caller that leaves or whose deadline
    /// passes does not break the load off.
    ///
    /// # Errors
    /// [`InferError::Refused`] when callers may not, or when a version does not load: the old ones answer on. [`InferError::NotFound`] when
    /// the repository holds no such model, [`InferError::Overloaded`] while another is being loaded.
    pub async fn load_model(self: &Arc<Self>, name: &str, clock: Clock) -> Result<(), InferError> {
        let repository = self.controlled()?;
        let busy = |_busy| InferError::Overloaded {
            message: "another model is being loaded".to_owned(),
            retry_after: Duration::from_secs(1),
        };
        let alone = Arc::clone(&repository.loading).try_lock_owned().map_err(busy)?;
        let (engine, name) = (Arc::clone(self), name.to_owned());
        let loading = tokio::spawn(async move {
            let _alone = alone;
            engine.replace(&name).await
        });
        let deadline = clock.deadline.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
        let loaded = timeout_at(deadline, loading).await;
        loaded
            .map_err(|_elapsed| InferError::DeadlineExceeded { stage: "while loading the model, which goes on" })?
            .map_err(|error| InferError::internal("loading a model", error))?
    }

    /// Takes all versions of a model out of service; requests that have begun are answered.
    ///
    /// # Errors
    /// [`InferError::Refused`] when callers may not, [`InferError::NotFound`] when it is not loaded.
    pub fn unload_model(&self, name: &str) -> Result<(), InferError> {
        self.controlled()?;
        let removed = self.write().by_name.remove(name);
        let versions = removed
            .ok_or_else(|| InferError::NotFound { field: "model.name", message: format!("no model \"{name}\" is loaded") })?;
        self.forget_answers();
        info!(model.name = %name, n_versions = versions.len(), "model {name} was unloaded");
        Ok(())
    }

    pub(super) async fn replace(&self, name: &str) -> Result<(), InferError> {
        let repository = self.repository()?;
        match repository.open(name, &self.versions(name)).await {
            Ok(versions) => {
                let n_versions = versions.len();
                repository.note(name, None);
                let old = self.write().by_name.insert(name.to_owned(), versions);
                self.forget_answers();
                drop(old);
                info!(model.name = %name, n_versions, "model {name} was loaded");
                Ok(())
            }
            Err(error) => {
                warn!(model.name = %name, %error, "model {name} was not loaded");
                let is_of_model = matches!(error, InferError::Refused { .. });
                repository.note(name, is_of_model.then(|| error.to_string()));
                Err(error)
            }
        }
    }

    pub(super) fn repository(&self) -> Result<&Repository, InferError> {
        self.repository.get().ok_or_else(super::loading)
    }

    fn controlled(&self) -> Result<&Repository, InferError> {
        let repository = self.repository()?;
        if repository.allows_control {
            return Ok(repository);
        }
        let message = "this server's models are not loaded and unloaded by callers (models.control = false)".to_owned();
        Err(InferError::Refused { message })
    }
}

/// `NAME/VERSION` of the repository.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) name: String,
    pub(super) version: String,
}

impl Folder {
    fn is_of(&self, model: &LoadedModel) -> bool {
        self.name == model.manifest().name && self.version == model.manifest().version.to_string()
    }
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// A folder, and the model in it or why there is none.
pub(super) type Found = (Folder, Result<ModelEntry, String>);

pub(super) fn entries(repository: &Path) -> Result<Vec<Found>, InferError> {
    let dirs = model_dirs(repository).map_err(|error| InferError::internal("reading the repository", error))?;
    let last =
        |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let read = |dir: PathBuf| {
        let folder = Folder { name: last(dir.parent()), version: last(Some(&dir)) };
        (folder, load_dir(&dir).map_err(|error| shown(&error)))
    };
    Ok(dirs.into_iter().map(read).collect())
}

fn refused(folder: &Folder, error: &LoadError) -> InferError {
    InferError::Refused { message: format!("{folder} does not load: {}", shown(error)) }
}

/// An error with its nearest cause; deeper ones are in the log.
fn shown(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
