//! Runs any graph with f32 inputs, once: for checks of exported graphs against references. Not for serving.

use std::{fs, path::Path};

use ort::{session::SessionInputValue, value::TensorRef};

use super::{
    error::{RuntimeError, Source},
    graph_file::GraphFile,
    library::Library,
    provider::Provider,
    session::{SessionOptions, ViewSession},
};

/// A tensor of f32 numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// Runs the graph in `path` on the CPU and returns `outputs`, in that order.
///
/// # Errors
/// [`RuntimeError`] when the file cannot be read, the session not created, or the run fails.
pub fn run_graph(library: &Library, path: &Path, inputs: &[(&str, Array)], outputs: &[&str]) -> Result<Vec<Array>, RuntimeError> {
    let onnx = fs::read(path).map_err(|source| RuntimeError::Read { path: path.to_path_buf(), source })?;
    let graph = GraphFile::whole(path.to_path_buf(), onnx);
    let options = SessionOptions { library: library.clone(), providers: vec![Provider::Cpu], n_threads: 1, spin_us: 0 };
    let names = outputs.iter().map(|name| (*name).to_owned()).collect();
    let mut session = ViewSession::create(&graph, names, &options)?;
    let failed = |source: Source| RuntimeError::Run { model: path.display().to_string(), source };
    let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
    for (name, array) in inputs {
        let tensor =
            TensorRef::from_array_view((array.shape.clone(), array.values.as_slice())).map_err(|error| failed(error.into()))?;
        values.push((name, tensor.into()));
    }
    let results = session.run(values, None).map_err(failed)?;
    let to_array = |value: ort::value::DynValue| {
        let (shape, values) = value.try_extract_tensor::<f32>().map_err(|error| failed(error.into()))?;
        let shape = shape.iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect();
        Ok(Array { shape, values: values.to_vec() })
    };
    results.into_iter().map(to_array).collect()
}
