//! A graph's file, and how to cut it to what a session serves.
//!
//! # Design
//! The file is held open and read again for each session, of which there are a few in the life of a model: kept in memory it would
//! cost as much as the weights of a session once more. An open file stays readable when its folder is replaced or removed. A memory map
//! would be as frugal, but a file that somebody cuts short would end the process.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::error::{RuntimeError, Source};

/// Serialised model and names of outputs to serialised model.
pub type Prune = fn(onnx: Vec<u8>, outputs: &[&str]) -> Result<Vec<u8>, Source>;

/// A graph's file.
pub(super) struct GraphFile {
    pub(super) path: PathBuf,
    file: File,
    n_bytes: usize,
    /// External data, by file name.
    pub(super) external: Vec<(String, Arc<[u8]>)>,
    prune: Prune,
}

impl GraphFile {
    /// Opens a graph that is run as it is.
    pub(super) fn whole(path: &Path) -> Result<Self, RuntimeError> {
        Self::open(path.to_path_buf(), Vec::new(), |onnx, _outputs| Ok(onnx))
    }

    /// Opens a graph of a model directory, and reads its external data.
    pub(super) fn read(dir: &Path, file: &str, external: &[[String; 2]], prune: Prune) -> Result<Self, RuntimeError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|source| RuntimeError::Read { path, source })
        };
        let external = external.iter().map(|[name, _]| Ok((name.clone(), Arc::from(read(name)?)))).collect::<Result<_, _>>()?;
        Self::open(dir.join(file), external, prune)
    }

    fn open(path: PathBuf, external: Vec<(String, Arc<[u8]>)>, prune: Prune) -> Result<Self, RuntimeError> {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened.and_then(|(n_bytes, file)| Ok((usize::try_from(n_bytes).map_err(io::Error::other)?, file))) {
            Ok((n_bytes, file)) => Ok(Self { path, file, n_bytes, external, prune }),
            Err(source) => Err(RuntimeError::Read { path, source }),
        }
    }

    /// The part of the graph that computes `outputs`, serialised.
    pub(super) fn view(&self, outputs: &[String]) -> Result<Vec<u8>, Source> {
        let names: Vec<_> = outputs.iter().map(String::as_str).collect();
        let mut onnx = vec![0; self.n_bytes];
        // Fails where the file has become shorter.
        self.file.read_exact_at(&mut onnx, 0)?;
        (self.prune)(onnx, &names)
    }
}
