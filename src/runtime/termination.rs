//! Ends a run from another thread.

use std::{fmt, sync::Arc};

use ort::session::{NoSelectedOutputs, RunOptions};

use super::error::RuntimeError;

/// Of one run of a [`ModelRunner`](super::ModelRunner); clones share it.
#[derive(Clone)]
pub struct Termination(Arc<RunOptions<NoSelectedOutputs>>);

impl Termination {
    /// Nothing is terminated yet.
    ///
    /// # Errors
    /// [`RuntimeError::Termination`] when ONNX Runtime gives none.
    pub fn new() -> Result<Self, RuntimeError> {
        let options = RunOptions::new().map_err(|error| RuntimeError::Termination { source: error.into() })?;
        Ok(Self(Arc::new(options)))
    }

    /// Ends the run after the operator that is being computed; the run fails. A run that begins later fails at once.
    ///
    /// # Errors
    /// [`RuntimeError::Termination`] when ONNX Runtime refuses.
    pub fn terminate(&self) -> Result<(), RuntimeError> {
        self.0.terminate().map_err(|error| RuntimeError::Termination { source: error.into() })
    }

    pub(super) fn options(&self) -> &RunOptions<NoSelectedOutputs> {
        &self.0
    }
}

impl fmt::Debug for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Termination")
    }
}
