//! A graph in memory: the bytes of its file, and how to cut them to what a session serves.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::error::{RuntimeError, Source};

/// Serialised model and names of outputs to serialised model.
pub type Prune = fn(onnx: &[u8], outputs: &[&str]) -> Result<Vec<u8>, Source>;

/// A graph's file in memory.
pub(super) struct GraphFile {
    pub(super) path: PathBuf,
    onnx: Vec<u8>,
    /// External data, by file name.
    pub(super) external: Vec<(String, Arc<[u8]>)>,
    prune: Prune,
}

impl GraphFile {
    /// A graph that is run as it is.
    pub(super) fn whole(path: PathBuf, onnx: Vec<u8>) -> Self {
        Self { path, onnx, external: Vec::new(), prune: |onnx, _outputs| Ok(onnx.to_vec()) }
    }

    /// Reads a graph and its external data from a model directory.
    pub(super) fn read(dir: &Path, file: &str, external: &[[String; 2]], prune: Prune) -> Result<Self, RuntimeError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|source| RuntimeError::Read { path, source })
        };
        let external = external.iter().map(|[name, _]| Ok((name.clone(), Arc::from(read(name)?)))).collect::<Result<_, _>>()?;
        Ok(Self { path: dir.join(file), onnx: read(file)?, external, prune })
    }

    /// The part of the graph that computes `outputs`, serialised.
    pub(super) fn view(&self, outputs: &[String]) -> Result<Vec<u8>, Source> {
        let names: Vec<_> = outputs.iter().map(String::as_str).collect();
        (self.prune)(&self.onnx, &names)
    }
}
