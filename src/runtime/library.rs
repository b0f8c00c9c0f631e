//! ONNX Runtime's shared library: where it is, and its one environment per process.
//!
//! # Design
//! The environment is never released: providers unload badly at the end of a process, and there is nothing to gain.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use ort::{
    environment::Environment,
    ep::{CPU, CUDA, ExecutionProvider},
};

use super::error::RuntimeError;

/// Folder of a checkout that `make setup` fills.
const FOLDER: &str = "third_party/onnxruntime";
/// How the library's file name begins.
const FILE_STEM: &str = "libonnxruntime.so";

static LOADED: OnceLock<Library> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// The loaded library. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Library {
    pub(super) environment: Environment,
    path: PathBuf,
}

/// Versions for people.
#[derive(Clone, Debug)]
pub struct Versions {
    /// Version of the `ort` crate that this program was built with.
    pub binding: &'static str,
    /// Version of the loaded runtime, from its file name; "unknown" when the name has none.
    pub runtime: String,
    /// The runtime's own description of its build.
    pub build: &'static str,
    /// Providers that the runtime was built with, by their names in the configuration.
    pub providers: Vec<&'static str>,
    /// The library's file.
    pub path: PathBuf,
}

impl Library {
    /// Loads the library once per process, telemetry off; later calls return the one that is loaded. The first of these that
    /// is there is taken: `configured`, `from_env` (the value of `ORT_DYLIB_PATH`), and `third_party/onnxruntime` below the
    /// working directory or a folder that contains the executable.
    ///
    /// # Errors
    /// [`RuntimeError::LibraryMissing`] or [`RuntimeError::LibraryLoad`]. A path that was named but does not load is an error;
    /// no other is tried.
    pub fn load(configured: Option<&Path>, from_env: Option<&Path>) -> Result<Self, RuntimeError> {
        let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = LOADED.get() {
            return Ok(library.clone());
        }
        let path = find(configured, from_env)?;
        let environment = open(&path).map_err(|source| RuntimeError::LibraryLoad { path: path.clone(), source })?;
        tracing::info!(path = %path.display(), "ONNX Runtime is loaded from {}", path.display());
        Ok(LOADED.get_or_init(|| Self { environment, path }).clone())
    }

    /// Versions of binding and runtime, and the providers at hand.
    #[must_use]
    pub fn versions(&self) -> Versions {
        let available = [("cpu", CPU::is_available()), ("cuda", CUDA::is_available())];
        let providers = available.into_iter().filter_map(|(name, is_available)| is_available.unwrap_or(false).then_some(name));
        Versions {
            binding: "2.0.0-rc.15",
            runtime: version_in_name(&self.path).unwrap_or_else(|| "unknown".to_owned()),
            build: ort::info(),
            providers: providers.collect(),
            path: self.path.clone(),
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { binding, runtime, providers, path, .. } = self;
        write!(f, "ort {binding}, ONNX Runtime {runtime} ({}) from {}", providers.join(", "), path.display())
    }
}

fn open(path: &Path) -> Result<Environment, super::error::Source> {
    // `ort` resolves relative paths against the executable; ours are relative to the working directory.
    let path = path.canonicalize()?;
    let builder = ort::init_from(path)?;
    Ok(builder.with_name("densevit").with_telemetry(false).build()?)
}

fn find(configured: Option<&Path>, from_env: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    if let Some(named) = configured.or(from_env) {
        return library_at(named).ok_or_else(|| RuntimeError::LibraryMissing { tried: vec![named.to_owned()] });
    }
    let mut tried = vec![PathBuf::from(FOLDER)];
    let executable = env::current_exe().unwrap_or_default();
    tried.extend(executable.ancestors().skip(1).map(|folder| folder.join(FOLDER)));
    tried.iter().find_map(|folder| library_at(folder)).ok_or(RuntimeError::LibraryMissing { tried })
}

/// The library at a path: the file itself, or in a folder the one with the longest version in its name.
fn library_at(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let entries = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    let is_library = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILE_STEM));
    entries.filter(|path| is_library(path) && path.is_file()).max_by_key(|path| path.as_os_str().len())
}

fn version_in_name(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let version = path.file_name()?.to_str()?.strip_prefix(FILE_STEM)?.strip_prefix('.')?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn named_path_that_is_missing_is_an_error_that_names_it_and_the_cure() {
        let error = find(Some(Path::new("/nowhere/libonnxruntime.so")), None).unwrap_err().to_string();
        assert!(error.contains("/nowhere/libonnxruntime.so") && error.contains("make setup"), "{error}");
    }

    #[test]
    fn configured_path_goes_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["libonnxruntime.so.1.31.1", "libonnxruntime.so.1.30.0"].map(|name| folder.path().join(name));
        fs::write(&first, "").unwrap();
        fs::write(&second, "").unwrap();
        assert_eq!(find(Some(&first), Some(&second)).unwrap(), first);
        assert_eq!(find(None, Some(&second)).unwrap(), second);
        assert_eq!(version_in_name(&first).unwrap(), "1.31.1");
    }

    #[test]
    fn folder_gives_the_library_in_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("libonnxruntime_providers_shared.so"), "").unwrap();
        assert_eq!(library_at(folder.path()), None);
        let library = folder.path().join("libonnxruntime.so.1.31.1");
        fs::write(&library, "").unwrap();
        assert_eq!(library_at(folder.path()), Some(library));
    }
}
