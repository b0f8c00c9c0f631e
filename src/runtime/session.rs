//! One session of ONNX Runtime: how it is created, and how it is run.

use std::{error::Error, mem, path::Path, sync::Arc};

use ort::{
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel, builder::SessionBuilder},
    value::{DynValue, Tensor},
};

use super::{
    error::{RuntimeError, Source},
    graph_file::GraphFile,
    library::Library,
    placement::{Placement, take_profile},
    provider::{self, Provider},
    termination::Termination,
};
use crate::tensor::F32View;

/// How sessions are created.
#[derive(Clone, Debug)]
pub(super) struct SessionOptions {
    pub(super) library: Library,
    pub(super) providers: Vec<Provider>,
    pub(super) n_threads: usize,
    pub(super) spin_us: u32,
}

/// A session, and what its outputs are called.
#[derive(Debug)]
pub(super) struct ViewSession {
    session: Session,
    outputs: Vec<String>,
    pub(super) providers: Vec<&'static str>,
    /// Whether runs are written down.
    is_profiled: bool,
}

impl ViewSession {
    /// Creates the session that computes `outputs` of a graph. A provider that is registered but finds no device fails only
    /// here; when it is optional, the session is created without it. With `profile`, runs are written down in files of that prefix.
    pub(super) fn create(
        graph: &GraphFile,
        outputs: Vec<String>,
        options: &SessionOptions,
        profile: Option<&Path>,
    ) -> Result<Self, RuntimeError> {
        let onnx = graph.view(&outputs).map_err(|source| failed(graph, &outputs, source))?;
        let create = |providers: &[Provider]| create_on(graph, &onnx, &outputs, options, (providers, profile));
        let (session, providers) = match create(&options.providers) {
            Err(error) if options.providers.iter().any(|provider| provider.is_optional()) => {
                tracing::warn!(error = &error as &dyn Error, "no session on the optional providers, the others are tried");
                let others: Vec<_> = options.providers.iter().copied().filter(|provider| !provider.is_optional()).collect();
                create(&others)?
            }
            created => created?,
        };
        Ok(Self { session, outputs, providers, is_profiled: profile.is_some() })
    }

    /// Who ran what so far, if that was written down; from now on it is not.
    pub(super) fn placement(&mut self) -> Result<Placement, Source> {
        if !mem::take(&mut self.is_profiled) {
            return Ok(Placement::new());
        }
        take_profile(Path::new(&self.session.end_profiling()?))
    }

    /// Whether the graph has an input of this name.
    pub(super) fn has_input(&self, name: &str) -> bool {
        self.session.inputs().iter().any(|input| input.name() == name)
    }

    /// Runs the graph; the outputs in the order they were asked for, in host memory.
    pub(super) fn run(
        &mut self,
        inputs: Vec<(&str, SessionInputValue<'_>)>,
        termination: Option<&Termination>,
    ) -> Result<Vec<DynValue>, Source> {
        let mut values = match termination {
            Some(termination) => self.session.run_with_options(inputs, termination.options())?,
            None => self.session.run(inputs)?,
        };
        let take = |name: &String| values.remove(name).ok_or_else(|| format!("the graph has no output {name}").into());
        self.outputs.iter().map(take).collect()
    }
}

fn create_on(
    graph: &GraphFile,
    onnx: &[u8],
    outputs: &[String],
    options: &SessionOptions,
    (providers, profile): (&[Provider], Option<&Path>),
) -> Result<(Session, Vec<&'static str>), RuntimeError> {
    let builder = configure(graph, options).map_err(|source| failed(graph, outputs, source))?;
    let (mut builder, providers) = provider::register(builder, providers)?;
    if let Some(prefix) = profile {
        builder = builder.with_profiling(prefix).map_err(|error| failed(graph, outputs, provider::erase(error)))?;
    }
    let session = builder.commit_from_memory(onnx).map_err(|error| failed(graph, outputs, error.into()))?;
    Ok((session, providers))
}

fn failed(graph: &GraphFile, outputs: &[String], source: Source) -> RuntimeError {
    RuntimeError::Session { path: graph.path.clone(), outputs: outputs.join(", "), source }
}

fn configure(graph: &GraphFile, options: &SessionOptions) -> Result<SessionBuilder, Source> {
    let erase = provider::erase;
    let spins = if options.spin_us > 0 { "1" } else { "0" };
    let mut builder = Session::builder(&options.library.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(erase)?
        .with_intra_threads(options.n_threads)
        .map_err(erase)?
        .with_inter_threads(1)
        .map_err(erase)?
        .with_config_entry("session.intra_op.allow_spinning", spins)
        .map_err(erase)?;
    if options.spin_us > 0 {
        builder = builder.with_config_entry("session.intra_op.spin_duration_us", options.spin_us.to_string()).map_err(erase)?;
    }
    for (name, bytes) in &graph.external {
        builder = builder.with_external_initializer_file_in_memory(Path::new(name), Arc::clone(bytes)).map_err(erase)?;
    }
    Ok(builder)
}

/// An output tensor as a buffer that views share; it lives as long as they do, uncopied.
#[derive(Debug)]
struct OutputBuffer(Tensor<f32>);

impl AsRef<[f32]> for OutputBuffer {
    fn as_ref(&self) -> &[f32] {
        self.0.extract_tensor().1
    }
}

/// Cuts an output along its first axis, without a copy: one view for each image. `expected` is the whole shape.
/// On another shape or type, the shape that came.
pub(super) fn split(value: DynValue, expected: &[i64]) -> Result<Vec<F32View>, Vec<i64>> {
    let shape = value.shape().to_vec();
    let tensor: Tensor<f32> = value.downcast().map_err(|_| shape.clone())?;
    if shape != expected || tensor.try_extract_tensor::<f32>().is_err() {
        return Err(shape);
    }
    let buffer = Arc::new(OutputBuffer(tensor));
    let n_values = buffer.as_ref().as_ref().len();
    let n_images = expected.first().map_or(0, |&n| usize::try_from(n).unwrap_or(0)).max(1);
    let len = n_values / n_images;
    (0..n_images).map(|idx| F32View::new(buffer.clone(), idx * len, len).ok_or_else(|| shape.clone())).collect()
}
