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

/// Where the bytes of a graph are.
enum Onnx {
    Memory(Vec<u8>),
    File { file: File, n_bytes: usize },
}

impl Onnx {
    /// # Errors
    /// The file cannot be read, or has become shorter.
    fn bytes(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File { file, n_bytes } => {
                let mut bytes = vec![0; *n_bytes];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            }
        }
    }
}

/// A graph's file.
pub(super) struct GraphFile {
    pub(super) path: PathBuf,
    onnx: Onnx,
    /// External data, by file name.
    pub(super) external: Vec<(String, Arc<[u8]>)>,
    prune: Prune,
}

impl GraphFile {
    /// A graph that is run as it is.
    pub(super) fn whole(path: PathBuf, onnx: Vec<u8>) -> Self {
        Self { path, onnx: Onnx::Memory(onnx), external: Vec::new(), prune: |onnx, _outputs| Ok(onnx) }
    }

    /// Opens a graph of a model directory, and reads its external data.
    pub(super) fn read(dir: &Path, file: &str, external: &[[String; 2]], prune: Prune) -> Result<Self, RuntimeError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|source| RuntimeError::Read { path, source })
        };
        let external = external.iter().map(|[name, _]| Ok((name.clone(), Arc::from(read(name)?)))).collect::<Result<_, _>>()?;
        let path = dir.join(file);
        let onnx = open(&path).map_err(|source| RuntimeError::Read { path: path.clone(), source })?;
        Ok(Self { path, onnx, external, prune })
    }

    /// The part of the graph that computes `outputs`, serialised.
    pub(super) fn view(&self, outputs: &[String]) -> Result<Vec<u8>, Source> {
        let names: Vec<_> = outputs.iter().map(String::as_str).collect();
        (self.prune)(self.onnx.bytes()?, &names)
    }
}

fn open(path: &Path) -> io::Result<Onnx> {
    let file = File::open(path)?;
    let n_bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    Ok(Onnx::File { file, n_bytes })
}
