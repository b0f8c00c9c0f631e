//! Safetensors files with metadata.

use std::{collections::HashMap, path::Path};

use safetensors::{Dtype, serialize, tensor::TensorView};

use crate::arrays::{ArrayError, ArrayRef, ElementType, write_atomically};

/// Writes named arrays and metadata.
///
/// # Errors
/// [`ArrayError::Shape`] for an array whose length does not fit, [`ArrayError::Write`]; no partial file is left.
pub fn write_safetensors(path: &Path, arrays: &[(&str, ArrayRef<'_>)], metadata: &[(String, String)]) -> Result<(), ArrayError> {
    let views = arrays.iter().map(|(name, array)| Ok((*name, view(array)?))).collect::<Result<Vec<_>, ArrayError>>()?;
    let metadata: HashMap<String, String> = metadata.iter().cloned().collect();
    let bytes = serialize(views, Some(metadata)).map_err(|_error| ArrayError::Shape)?;
    write_atomically(path, &[&bytes]).map_err(|source| ArrayError::Write { path: path.to_path_buf(), source })
}

fn view<'a>(array: &ArrayRef<'a>) -> Result<TensorView<'a>, ArrayError> {
    let dtype = match array.element_type {
        ElementType::F32 => Dtype::F32,
        ElementType::F16 => Dtype::F16,
        ElementType::I8 => Dtype::I8,
    };
    TensorView::new(dtype, array.shape.clone(), array.data).map_err(|_error| ArrayError::Shape)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn arrays_and_metadata_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let array = ArrayRef { element_type: ElementType::I8, shape: vec![2, 2], data: &[1, 2, 3, 4] };
        write_safetensors(&path, &[("features", array)], &[("model".into(), "m/1".into())]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["model"], "m/1");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("features").unwrap().data(), [1, 2, 3, 4]);
    }
}
