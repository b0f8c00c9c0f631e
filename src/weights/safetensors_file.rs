//! Reads safetensors: one file, or the shards that a Hugging Face index names.

use std::{collections::BTreeSet, fs, path::Path};

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::{
    mmap::map_file,
    weights::{
        WeightsError,
        named::{NamedTensors, Stored, StoredType},
    },
};

/// Reads `path`: a `.safetensors` file, or an index (`*.safetensors.index.json`) beside its shards.
///
/// # Errors
/// [`WeightsError::Read`] and [`WeightsError::Format`], naming the file.
pub fn read(path: &Path) -> Result<NamedTensors, WeightsError> {
    let mut tensors = NamedTensors::default();
    if path.extension().is_some_and(|extension| extension == "json") {
        for shard in shards(path)? {
            read_one(&path.with_file_name(shard), &mut tensors)?;
        }
        return Ok(tensors);
    }
    read_one(path, &mut tensors)?;
    Ok(tensors)
}

fn read_one(path: &Path, tensors: &mut NamedTensors) -> Result<(), WeightsError> {
    let map = map_file(path).map_err(|source| WeightsError::Read { path: path.to_path_buf(), source })?;
    let file = Bytes::from_owner(map);
    let bad = |problem: String| WeightsError::Format { path: path.to_path_buf(), problem };
    let views = SafeTensors::deserialize(&file).map_err(|error| bad(format!("is no safetensors file: {error}")))?;
    for (name, view) in views.iter() {
        let element_type = match view.dtype() {
            Dtype::F64 => Some(StoredType::F64),
            Dtype::F32 => Some(StoredType::F32),
            Dtype::F16 => Some(StoredType::F16),
            Dtype::BF16 => Some(StoredType::Bf16),
            _ => None,
        };
        tensors.insert(name, Stored { element_type, shape: view.shape().to_vec(), bytes: file.slice_ref(view.data()) });
    }
    Ok(())
}

/// File names of the shards, each once.
fn shards(index: &Path) -> Result<BTreeSet<String>, WeightsError> {
    let text = fs::read_to_string(index).map_err(|source| WeightsError::Read { path: index.to_path_buf(), source })?;
    let bad = |problem: String| WeightsError::Format { path: index.to_path_buf(), problem };
    let json: Value = serde_json::from_str(&text).map_err(|error| bad(format!("is no JSON: {error}")))?;
    let map = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| bad("has no \"weight_map\"".into()))?;
    let name = |value: &Value| {
        let name = value.as_str().filter(|name| Path::new(name).components().count() == 1 && *name != "..");
        name.map(str::to_owned).ok_or_else(|| bad(format!("names a shard outside its folder: {value}")))
    };
    map.values().map(name).collect()
}
