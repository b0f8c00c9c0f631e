//! Execution providers: which hardware runs the graphs, in what order, and what happens when one is not there.
//!
//! # Design
//! ONNX Runtime falls back to the CPU silently. Here a required provider that does not load is an error with its reason, an
//! optional one is a warning, and `deny_cpu_fallback` makes even single nodes on the CPU an error.

use ort::{
    ep::{ArenaExtendStrategy, CUDA, ExecutionProvider, cuda::ConvAlgorithmSearch},
    session::builder::SessionBuilder,
};
use serde::{Deserialize, Serialize};

use super::error::{RuntimeError, Source};

/// A provider and its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Provider {
    /// The CPU; always there.
    Cpu,
    /// An NVIDIA GPU.
    Cuda {
        /// Whether the model must not be loaded without it. Default false.
        #[serde(default)]
        required: bool,
        /// 0-based index of the device. Default 0.
        #[serde(default)]
        device_id: i32,
        /// Whether a node that the GPU does not run is an error (shape arithmetic counts too). Default false.
        #[serde(default)]
        deny_cpu_fallback: bool,
        /// Whether products of fp32 models may round to TF32 (10 bits of mantissa): faster, and further from the reference. Default
        /// false.
        #[serde(default)]
        tf32: bool,
    },
}

impl Provider {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda { .. } => "cuda",
        }
    }

    /// Whether a model may be loaded without it.
    pub(super) fn is_optional(self) -> bool {
        matches!(self, Self::Cuda { required: false, .. })
    }
}

/// Registers providers in order, and returns the names of those in use. The CPU comes last by itself; it ends the list.
///
/// # Errors
/// [`RuntimeError::ProviderRequired`].
pub(super) fn register(
    mut builder: SessionBuilder,
    providers: &[Provider],
) -> Result<(SessionBuilder, Vec<&'static str>), RuntimeError> {
    let mut used = Vec::new();
    for provider in providers {
        let Provider::Cuda { required, device_id, deny_cpu_fallback, tf32 } = *provider else { break };
        match register_cuda(&mut builder, device_id, tf32) {
            Ok(()) => used.push(provider.name()),
            Err(source) if required => return Err(RuntimeError::ProviderRequired { provider: provider.name(), source }),
            Err(source) => {
                tracing::warn!(provider = provider.name(), %source, "execution provider cuda does not load, the next one is used");
                continue;
            }
        }
        if deny_cpu_fallback {
            let denied = builder.with_disable_cpu_fallback();
            builder =
                denied.map_err(|error| RuntimeError::ProviderRequired { provider: provider.name(), source: erase(error) })?;
        }
    }
    used.push(Provider::Cpu.name());
    Ok((builder, used))
}

fn register_cuda(builder: &mut SessionBuilder, device_id: i32, tf32: bool) -> Result<(), Source> {
    // Exhaustive search costs seconds for each new shape; sizes vary here. The arena grows by what is asked for, because the
    // shapes are few.
    let cuda = CUDA::default()
        .with_device_id(device_id)
        .with_tf32(tf32)
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic);
    Ok(cuda.register(builder)?)
}

/// Drops the builder that rides on builder errors.
pub(super) fn erase(error: ort::Error<SessionBuilder>) -> Source {
    ort::Error::<()>::from(error).into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[derive(Deserialize)]
    struct Config {
        providers: Vec<Provider>,
    }

    #[test]
    fn configuration_lists_providers_in_order() {
        let text = "providers = [{ name = \"cuda\", required = true }, { name = \"cpu\" }]";
        let config: Config = toml::from_str(text).unwrap();
        let cuda = Provider::Cuda { required: true, device_id: 0, deny_cpu_fallback: false, tf32: false };
        assert_eq!(config.providers, [cuda, Provider::Cpu]);
        assert!(toml::from_str::<Config>("providers = [{ name = \"cuda\", require = true }]").is_err());
    }
}
