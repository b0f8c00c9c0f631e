//! ONNX files, with the weights inside or, above a limit, in a second file beside.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message as _;

use crate::{
    mmap::map_file,
    onnx::{
        OnnxError,
        proto::{ModelProto, StringStringEntryProto, TensorProto},
        tensor::EXTERNAL,
    },
};

/// Offsets in a data file are multiples of a page, so that a runtime can map single tensors.
const ALIGNMENT: u64 = 4096;

/// Writes `model` to `path`. When its tensors hold more than `max_inline_bytes`, they go to `NAME.data` beside it (protobuf ends at
/// 2 GiB). Returns the data file that was written, if one was.
///
/// # Errors
/// [`OnnxError::File`] when a file cannot be written.
pub fn save(mut model: ModelProto, path: &Path, max_inline_bytes: u64) -> Result<Option<PathBuf>, OnnxError> {
    let n_bytes: u64 = model.graph.iter().flat_map(|graph| &graph.initializer).map(|tensor| tensor.raw_data.len() as u64).sum();
    let data_path = (n_bytes > max_inline_bytes).then(|| data_path(path));
    if let Some(data_path) = &data_path {
        let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
        write_external(tensors, data_path).map_err(|source| write_failed(data_path, source))?;
    }
    fs::write(path, model.encode_to_vec()).map_err(|source| write_failed(path, source))?;
    Ok(data_path)
}

/// Reads a model. Its tensors are slices of the mapped files: nothing is copied.
///
/// # Errors
/// [`OnnxError::File`] and [`OnnxError::Decode`]; [`OnnxError::Tensor`] for external data that is not where the file says.
pub fn load(path: &Path) -> Result<ModelProto, OnnxError> {
    let mut model = ModelProto::decode(map(path)?).map_err(|source| OnnxError::Decode { path: path.to_path_buf(), source })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut data: Option<(String, Bytes)> = None;
    for tensor in
        model.graph.iter_mut().flat_map(|graph| &mut graph.initializer).filter(|tensor| tensor.data_location == EXTERNAL)
    {
        let place = Place::of(tensor)?;
        if data.as_ref().is_none_or(|(name, _)| *name != place.file) {
            data = Some((place.file.clone(), map(&folder.join(&place.file))?));
        }
        let bytes = data.as_ref().and_then(|(_, bytes)| place.slice(bytes));
        tensor.raw_data =
            bytes.ok_or_else(|| OnnxError::Tensor { name: tensor.name.clone(), problem: "lies outside its data file" })?;
        tensor.data_location = 0;
        tensor.external_data.clear();
    }
    Ok(model)
}

fn map(path: &Path) -> Result<Bytes, OnnxError> {
    let map = map_file(path).map_err(|source| OnnxError::File { operation: "read", path: path.to_path_buf(), source })?;
    Ok(Bytes::from_owner(map))
}

fn data_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

fn write_external<'a>(tensors: impl Iterator<Item = &'a mut TensorProto>, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut file = BufWriter::new(File::create(path)?);
    let mut offset = 0u64;
    for tensor in tensors {
        let padding = offset.next_multiple_of(ALIGNMENT) - offset;
        io::copy(&mut io::Read::take(io::repeat(0), padding), &mut file)?;
        offset += padding;
        let bytes = std::mem::take(&mut tensor.raw_data);
        file.write_all(&bytes)?;
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        tensor.external_data =
            vec![entry("location", name.clone()), entry("offset", offset.to_string()), entry("length", bytes.len().to_string())];
        tensor.data_location = EXTERNAL;
        offset += bytes.len() as u64;
    }
    file.flush()
}

/// Where a tensor's bytes lie.
struct Place {
    file: String,
    offset: usize,
    length: usize,
}

impl Place {
    fn of(tensor: &TensorProto) -> Result<Self, OnnxError> {
        let bad = |problem| OnnxError::Tensor { name: tensor.name.clone(), problem };
        let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| entry(key).unwrap_or("0").parse().map_err(|_error| bad("has a malformed place of its data"));
        let file = entry("location").ok_or_else(|| bad("does not say where its data is"))?;
        if Path::new(file).components().count() != 1 || file == ".." {
            return Err(bad("keeps its data outside the model's folder"));
        }
        Ok(Self { file: file.to_owned(), offset: number("offset")?, length: number("length")? })
    }

    fn slice(&self, bytes: &Bytes) -> Option<Bytes> {
        let end = self.offset.checked_add(self.length)?;
        (end <= bytes.len()).then(|| bytes.slice(self.offset..end))
    }
}

fn write_failed(path: &Path, source: io::Error) -> OnnxError {
    OnnxError::File { operation: "write", path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::onnx::{Dim, GraphBuilder, proto::DataType};

    fn model() -> ModelProto {
        let mut graph = GraphBuilder::new("g");
        let x = graph.input("x", DataType::Float, &[Dim::Fixed(2)]);
        let first = graph.constant(TensorProto::f32(&[2], &[1.0, 2.0]), "w");
        let second = graph.constant(TensorProto::f32(&[2], &[3.0, 4.0]), "w");
        let sum = graph.add(&x, &first);
        let sum = graph.mul(&sum, &second);
        graph.output(&sum, "y", DataType::Float, &[Dim::Fixed(2)]);
        graph.finish().unwrap()
    }

    #[test]
    fn a_model_comes_back_as_it_was_written_inline_and_external() {
        let folder = tempfile::tempdir().unwrap();
        for (limit, n_files) in [(u64::MAX, 1), (4, 2)] {
            let path = folder.path().join(format!("{limit}/m.onnx"));
            fs::create_dir(path.parent().unwrap()).unwrap();
            let data = save(model(), &path, limit).unwrap();
            assert_eq!(data.is_some(), n_files == 2);
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), n_files);
            assert_eq!(load(&path).unwrap(), model());
        }
    }

    #[test]
    fn data_outside_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let mut evil = model();
        let tensor = evil.graph.as_mut().unwrap().initializer.first_mut().unwrap();
        tensor.data_location = EXTERNAL;
        tensor.external_data = vec![StringStringEntryProto { key: "location".into(), value: "../secret".into() }];
        fs::write(&path, evil.encode_to_vec()).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("outside the model's folder"));
    }
}
