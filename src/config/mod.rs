//! The configuration of `densevit serve`: defaults < file < environment < flags.
//!
//! Each part of the program owns its own section; this module only composes and reads them. Unknown keys are errors, in the
//! file as in the environment, so that a typing mistake cannot silently change nothing.

use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Environment, File, FileFormat};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    admin::AdminConfig,
    batch::BatchConfig,
    cache::CacheConfig,
    engine::{Limits, LoadOptions},
    grpc::GrpcConfig,
    runtime::RuntimeConfig,
    telemetry::{LogConfig, TraceConfig},
};

/// Prefix of environment variables: `DENSEVIT__BATCH__MAX_BATCH_SIZE=4` sets `batch.max_batch_size`.
const ENV_PREFIX: &str = "DENSEVIT";

/// Which models are served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// The model repository: a folder of `NAME/VERSION/model.toml`. Default `models`.
    pub dir: PathBuf,
    /// Names to load. Empty, the default: all.
    pub load: Vec<String>,
    /// The model of requests that name none. Empty, the default: the first name in alphabetical order.
    pub default: String,
    /// Whether callers may load and unload models (`RepositoryModelLoad`, `RepositoryModelUnload`). Default false.
    pub control: bool,
    /// Seconds between looks at `dir` for models that came, changed or went, which are then loaded, replaced and unloaded; 0, the default:
    /// never. A broken one leaves what answers.
    pub watch_s: u64,
    /// Whether to compare the files' SHA-256 with the manifest before loading. Default true.
    pub verify: bool,
    /// Input sizes `[height, width]`, in pixels, that every executor runs once before the server is ready, beside the model's
    /// default policy. Default none.
    pub warm_up: Vec<[u32; 2]>,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self {
            dir: "models".into(),
            load: Vec::new(),
            default: String::new(),
            control: false,
            watch_s: 0,
            verify: true,
            warm_up: Vec::new(),
        }
    }
}

/// How the server stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// Seconds between telling health checks "not serving" and refusing new calls, so that balancers notice. Default 0.
    pub delay_s: f64,
    /// Seconds that calls in flight may take to finish. Default 20.
    pub budget_s: f64,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { delay_s: 0.0, budget_s: 20.0 }
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// ONNX Runtime's shared library. Default: `ORT_DYLIB_PATH`, else what `make setup` put into `third_party/onnxruntime`.
    pub library: Option<PathBuf>,
    /// gRPC port.
    pub grpc: GrpcConfig,
    /// Metrics and probes port.
    pub admin: AdminConfig,
    /// Models.
    pub models: ModelsConfig,
    /// How models are run.
    pub runtime: RuntimeConfig,
    /// Dynamic batching.
    pub batch: BatchConfig,
    /// Response cache.
    pub cache: CacheConfig,
    /// What is refused.
    pub limits: Limits,
    /// Shutdown.
    pub shutdown: ShutdownConfig,
    /// Logs.
    pub log: LogConfig,
    /// Traces.
    pub trace: TraceConfig,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigFailure {
    /// The file, a variable or a flag does not fit.
    #[error("invalid configuration{}", file_note(.file.as_deref()))]
    Invalid {
        /// The file that was read, if any.
        file: Option<PathBuf>,
        /// What does not fit.
        #[source]
        source: ConfigError,
    },
}

fn file_note(file: Option<&Path>) -> String {
    file.map(|file| format!(" (file {})", file.display())).unwrap_or_default()
}

impl ServeConfig {
    /// Reads the configuration: defaults, then `file`, then the environment, then `overrides` (`key.path`, value).
    ///
    /// # Errors
    /// [`ConfigFailure::Invalid`] for a file that cannot be read, an unknown key or a value of the wrong type; names the key.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigFailure> {
        let environment = Environment::with_prefix(ENV_PREFIX)
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("models.load")
            .with_list_parse_key("grpc.web.allow_origins")
            .with_list_parse_key("runtime.providers");
        Self::from_sources(file, environment, overrides)
            .map_err(|source| ConfigFailure::Invalid { file: file.map(Path::to_path_buf), source })
    }

    fn from_sources(file: Option<&Path>, environment: Environment, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut builder = Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(File::from(file).format(FileFormat::Toml).required(true));
        }
        builder = builder.add_source(environment);
        for (key, value) in overrides {
            builder = builder.set_override(key, value.as_str())?;
        }
        builder.build()?.try_deserialize()
    }

    /// How models are to be loaded.
    #[must_use]
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            verify: self.models.verify,
            warm_up: self.models.warm_up.clone(),
            runtime: self.runtime.clone(),
            batch: self.batch.clone(),
        }
    }

    /// The effective configuration in the format of the file.
    ///
    /// # Errors
    /// When a value cannot be written as TOML (a number above 2^63).
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

#[cfg(test)]
mod tests;
