//! Tensors to safetensors files and back. A file appears whole or not at all.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use half::f16;
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use tch::{Device, Kind, Tensor};

/// Element type of stored tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Single precision.
    Float,
    /// Half precision, the nearest.
    Half,
}

/// Writes tensors as f32, with metadata.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &[(&str, String)]) -> anyhow::Result<()> {
    write_as(path, Stored::Float, tensors, metadata)
}

/// The same in another element type.
///
/// # Errors
/// When the file cannot be written.
pub fn write_as(
    path: &Path,
    stored: Stored,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &[(&str, String)],
) -> anyhow::Result<()> {
    let mut named = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().view([-1]);
        let values = Vec::<f32>::try_from(&flat)?;
        let shape = tensor.size().iter().map(|&extent| usize::try_from(extent)).collect::<Result<Vec<_>, _>>()?;
        let bytes: Vec<u8> = match stored {
            Stored::Float => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Stored::Half => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        };
        named.push((name, shape, bytes));
    }
    let dtype = if stored == Stored::Half { Dtype::F16 } else { Dtype::F32 };
    let views = named.iter().map(|(name, shape, bytes)| Ok((*name, TensorView::new(dtype, shape.clone(), bytes)?)));
    let metadata: HashMap<String, String> = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let bytes = serialize(views.collect::<anyhow::Result<Vec<_>>>()?, Some(metadata))?;
    write_bytes(path, &bytes)
}

/// Copies values into tensors by name. Returns the first name whose value is missing or has another shape.
pub fn assign<'a>(
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    find: impl Fn(&str) -> Option<&'a Tensor>,
) -> Option<String> {
    tch::no_grad(|| {
        for (name, mut tensor) in tensors {
            match find(&name).filter(|value| value.size() == tensor.size()) {
                Some(value) => tensor.copy_(value),
                None => return Some(name),
            }
        }
        None
    })
}

/// Writes a file that appears whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As other files are made; the system's mask is taken off.
    let scratch = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    let written = scratch.and_then(|mut scratch| {
        scratch.write_all(bytes)?;
        scratch.persist(path).map_err(|error| error.error)
    });
    written.map(drop).with_context(|| format!("writing {}", path.display()))
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// When the file is not there or is something else.
pub fn read(path: &Path) -> anyhow::Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut tensors = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(&bytes)?.iter() {
        if view.dtype() != Dtype::F32 {
            bail!("{} holds {name} in {:?}, expected f32", path.display(), view.dtype());
        }
        let values: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let shape = view.shape().iter().map(|&extent| i64::try_from(extent)).collect::<Result<Vec<_>, _>>()?;
        tensors.insert(name.to_owned(), Tensor::from_slice(&values).view(shape.as_slice()));
    }
    Ok((tensors, metadata))
}
