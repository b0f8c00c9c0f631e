//! Runs any graph as it is: for checks of exported graphs against references, and to calibrate. Not for serving.

use std::path::{Path, PathBuf};

use ort::{session::SessionInputValue, value::TensorRef};

use super::{
    error::{RuntimeError, Source},
    graph_file::GraphFile,
    library::Library,
    provider::Provider,
    session::{SessionOptions, ViewSession},
};
use crate::tensor::RgbImage;

/// A tensor of f32 numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// What a graph is given.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// f32 numbers.
    Array(&'a Array),
    /// A batch of one image, `[1, H, W, 3]` u8.
    Image(&'a RgbImage),
}

/// A graph on the CPU that is run as it is.
#[derive(Debug)]
pub struct PlainGraph {
    session: ViewSession,
    path: PathBuf,
}

impl PlainGraph {
    /// Opens the graph in `path`, of which `outputs` are wanted, in that order.
    ///
    /// # Errors
    /// [`RuntimeError`] when the file cannot be read, or the session not created.
    pub fn open(library: &Library, path: &Path, outputs: Vec<String>, n_threads: usize) -> Result<Self, RuntimeError> {
        let graph = GraphFile::whole(path)?;
        let options = SessionOptions { library: library.clone(), providers: vec![Provider::Cpu], n_threads, spin_us: 0 };
        Ok(Self { session: ViewSession::create(&graph, outputs, &options, None)?, path: path.to_path_buf() })
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`RuntimeError::Run`]: inputs that do not fit, outputs that are not f32.
    pub fn run(&mut self, inputs: &[(&str, Input<'_>)]) -> Result<Vec<Array>, RuntimeError> {
        let failed = |source: Source| RuntimeError::Run { model: self.path.display().to_string(), source };
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, input) in inputs {
            let value = match input {
                Input::Array(Array { shape, values }) => {
                    TensorRef::from_array_view((shape.clone(), values.as_slice())).map(SessionInputValue::from)
                }
                Input::Image(image) => {
                    let shape = [1, image.height() as usize, image.width() as usize, 3];
                    TensorRef::from_array_view((shape, image.data())).map(SessionInputValue::from)
                }
            };
            values.push((name, value.map_err(|error| failed(error.into()))?));
        }
        let results = self.session.run(values, None).map_err(failed)?;
        let to_array = |value: ort::value::DynValue| {
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(|error| failed(error.into()))?;
            let shape = shape.iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect();
            Ok(Array { shape, values: values.to_vec() })
        };
        results.into_iter().map(to_array).collect()
    }
}

/// Runs the graph in `path` once and returns `outputs`, in that order.
///
/// # Errors
/// Those of [`PlainGraph`].
pub fn run_graph(library: &Library, path: &Path, inputs: &[(&str, Array)], outputs: &[&str]) -> Result<Vec<Array>, RuntimeError> {
    let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, array)| (*name, Input::Array(array))).collect();
    PlainGraph::open(library, path, outputs, 1)?.run(&inputs)
}
