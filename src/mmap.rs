//! Read-only memory maps of weight files: the one file of the library with `unsafe` code.

use std::{fs::File, io, path::Path};

use memmap2::Mmap;

/// Maps `path` into memory.
///
/// # Errors
/// When the file cannot be opened or mapped (an empty file cannot).
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    #[expect(unsafe_code, reason = "a memory map is how gigabytes of weights are read without a copy")]
    // SAFETY: the map is read-only and private to this process. Another process that truncates the file while it is
    // mapped could make a read fault (SIGBUS); weight files are written once, under a temporary name, and renamed.
    let map = unsafe { Mmap::map(&file)? };
    Ok(map)
}
