//! Reads what `torch.save` writes: a state dict, or a checkpoint that holds one beside plain values.
//!
//! In: the path of a zip archive with a pickle and the storages of its tensors. Out: the tensors, named by the keys of the dicts
//! around them (`teacher.backbone.cls_token`), strided views laid out row by row. Called by [`super::read`].
//!
//! # Design
//! The crate `pytorch-reader` interprets the pickle as data and executes nothing. It is maintained with Burn and takes in the zip,
//! strides, views and checksums. `candle-core` brings a tensor library for the same; `serde-pickle` lacks persistent ids, by
//! which a tensor names its storage; `repugnant-pickle` stayed at 0.0.1. What is stricter here than there:
//! - A file that names anything but tensors and plain values is refused (see [`super::pickle`]); the crate would skip it.
//! - Only the zip format, of PyTorch 1.6 and later. The older ones have other ways in, and PyTorch rewrites them in one line.
//! - Values may take a small multiple of the file: a stride of 0 makes any number of them out of one.
//!
//! Not bounded is what the crate takes for a pickle made to exhaust it (a tensor of thousands of axes, fetched thousands of times):
//! the import is a process of its own, which then dies of memory without having run anything.
//!
//! Tensors are copied out of the file, unlike those of safetensors: views, strides and an archive's own alignment do not map.

use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _},
    path::Path,
};

use bytes::Bytes;
use pytorch_reader::{DType, PytorchReader, Tensor};
use zip::{ZipArchive, ZipReadOptions};

use crate::weights::{
    WeightsError,
    named::{NamedTensors, Stored, StoredType},
    pickle,
};

/// First bytes of a zip archive.
const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";
/// The file of the archive that says which tensors there are.
const PICKLE_FILE: &str = "data.pkl";
/// Largest pickle: tens of thousands of tensors, at one or two hundred bytes each.
const MAX_PICKLE_BYTES: u64 = 16 << 20;
/// Bytes of all tensors over those of the file: views may share a storage, as tied weights do.
const MAX_GROWTH: u64 = 4;

/// Reads the tensors of `path`. Those that are no floats are named, not read.
///
/// # Errors
/// [`WeightsError::Read`] and [`WeightsError::Format`], naming the file and what it holds that is no tensor.
pub fn read(path: &Path) -> Result<NamedTensors, WeightsError> {
    let bad = |problem: String| WeightsError::Format { path: path.to_path_buf(), problem };
    let failed = |source| WeightsError::Read { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(failed)?;
    pickle::check(&read_pickle(&mut file).map_err(bad)?).map_err(bad)?;
    let reader = PytorchReader::new(path).map_err(|error| bad(format!("is no usable PyTorch file: {error}")))?;
    let tensors = reader.into_tensors();
    let n_bytes = tensors.values().fold(0, |total: u64, tensor| total.saturating_add(tensor.byte_len() as u64));
    let length = file.metadata().map_err(failed)?.len();
    if n_bytes > length.saturating_mul(MAX_GROWTH) {
        return Err(bad(format!("is {length} bytes long and would unfold into {n_bytes} bytes of tensors")));
    }
    let mut named = NamedTensors::default();
    for (name, tensor) in tensors {
        named.insert(name, stored(&tensor).map_err(failed)?);
    }
    Ok(named)
}

/// The pickle of an archive that has exactly one.
fn read_pickle(file: &mut File) -> Result<Vec<u8>, String> {
    let mut magic = [0; ZIP_MAGIC.len()];
    if file.read_exact(&mut magic).is_err() || magic != ZIP_MAGIC {
        return Err("is no zip archive, which PyTorch writes since 1.6; an older file is rewritten by: \
             python -c \"import torch; torch.save(torch.load('old.pth', weights_only=True), 'new.pth')\""
            .into());
    }
    let damaged = |error: &dyn std::fmt::Display| format!("is a damaged zip archive: {error}");
    file.rewind().map_err(|error| damaged(&error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&error))?;
    let names = archive.file_names().collect::<Result<Vec<_>, _>>().map_err(|error| damaged(&error))?;
    let is_pickle = |name: &str| name.rsplit('/').next() == Some(PICKLE_FILE);
    let mut pickles = (0..names.len()).filter(|idx| is_pickle(&names[*idx]));
    let (Some(idx), None) = (pickles.next(), pickles.next()) else {
        return Err(format!("is a zip archive without, or with more than one, {PICKLE_FILE}: PyTorch writes one"));
    };
    drop(names);
    // A checksum of 0 is that of a file saved without checksums.
    let is_unchecked = archive.by_index_raw(idx).map_err(|error| damaged(&error))?.crc32() == 0;
    let options = ZipReadOptions::new().ignore_crc32(is_unchecked);
    let entry = archive.by_index_with_options(idx, options).map_err(|error| damaged(&error))?;
    let mut pickle = Vec::new();
    entry.take(MAX_PICKLE_BYTES + 1).read_to_end(&mut pickle).map_err(|error| damaged(&error))?;
    if pickle.len() as u64 > MAX_PICKLE_BYTES {
        return Err(format!("has a {PICKLE_FILE} of more than {MAX_PICKLE_BYTES} bytes"));
    }
    Ok(pickle)
}

fn stored(tensor: &Tensor) -> std::io::Result<Stored> {
    let element_type = match tensor.dtype() {
        DType::F64 => Some(StoredType::F64),
        DType::F32 => Some(StoredType::F32),
        DType::F16 => Some(StoredType::F16),
        DType::BF16 => Some(StoredType::Bf16),
        _ => None,
    };
    let bytes = if element_type.is_some() { Bytes::from(tensor.read()?) } else { Bytes::new() };
    Ok(Stored { element_type, shape: tensor.shape().to_vec(), bytes })
}

#[cfg(test)]
mod tests;
