//! Writes arrays to files: `.npy` and `.safetensors`. A file appears whole or not at all.

mod npy;
mod safetensors_file;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use npy::write_npy;
pub use safetensors_file::write_safetensors;

/// Element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// Signed 8-bit integer.
    I8,
}

/// An array in memory: little-endian, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayRef<'a> {
    /// Element type.
    pub element_type: ElementType,
    /// Extents.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: &'a [u8],
}

/// Why an array was not written.
#[derive(Debug, Error)]
pub enum ArrayError {
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why: no space, no permission.
        #[source]
        source: io::Error,
    },
    /// The array does not have the size that its shape says.
    #[error("the array does not have the size that its shape says")]
    Shape,
}

/// Writes `parts` to a temporary file beside `path` and renames it. The bytes are on the disk before the name is: a file that is there after
/// the machine failed is whole too.
pub(crate) fn write_atomically(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".densevit-").permissions(permissions()).tempfile_in(folder)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.flush()?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Those of an ordinary new file; temporary files are otherwise readable by their owner only.
fn permissions() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::Permissions::from_mode(0o666)
}
