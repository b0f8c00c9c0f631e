//! What can go wrong between a model directory and its outputs.

use std::{error::Error, fmt::Write as _, io, path::PathBuf};

use crate::manifest::Tap;

/// An error of ONNX Runtime.
pub type Source = Box<dyn Error + Send + Sync>;

/// Errors of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No shared library of ONNX Runtime at any of the known places.
    #[error("no ONNX Runtime library found; tried{}; run `make setup`, or name one in the configuration or in ORT_DYLIB_PATH", list(.tried))]
    LibraryMissing {
        /// What was tried.
        tried: Vec<PathBuf>,
    },
    /// The library at this path cannot be used.
    #[error("loading ONNX Runtime from {}", path.display())]
    LibraryLoad {
        /// The library.
        path: PathBuf,
        /// Why.
        #[source]
        source: Source,
    },
    /// A provider that the configuration requires is not usable.
    #[error("execution provider {provider} is required but does not load")]
    ProviderRequired {
        /// Name in the configuration.
        provider: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// The model's graphs are for the CPU, and a GPU is asked for.
    #[error("{model} is an int8 model, which runs on the CPU only, but its configuration names execution provider {provider}")]
    ProviderPrecision {
        /// Name of the model.
        model: String,
        /// Name in the configuration.
        provider: &'static str,
    },
    /// A file of the model cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the model holds something else than it should.
    #[error("{} is not usable: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// ONNX Runtime does not accept a graph.
    #[error("creating a session for {outputs} of {}", path.display())]
    Session {
        /// The graph's file.
        path: PathBuf,
        /// Wanted outputs.
        outputs: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// A run failed.
    #[error("running {model}")]
    Run {
        /// Name of the model.
        model: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// A run cannot be made to end early.
    #[error("preparing a run to be ended early, or ending it")]
    Termination {
        /// Why.
        #[source]
        source: Source,
    },
    /// The graph returned an output of another shape or type than its manifest promises.
    #[error("output {output} of {model} has shape {shape:?}, expected {expected:?}")]
    Output {
        /// Name of the model.
        model: String,
        /// Name of the output.
        output: String,
        /// What came.
        shape: Vec<i64>,
        /// What was expected.
        expected: Vec<i64>,
    },
    /// The output holds NaN or infinity.
    #[error("{model} returned values that are not finite for {output}")]
    NotFinite {
        /// Name of the model.
        model: String,
        /// Name of the output.
        output: String,
    },
    /// An image is not of the size that the key says.
    #[error("an image of {height}x{width} px in a batch of {}x{} px", expected[0], expected[1])]
    ImageSize {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Rows and columns of the batch.
        expected: [u32; 2],
    },
    /// The size is no multiple of the patch, or not the one size that the graph was made for.
    #[error("{model} does not take images of {height}x{width} px")]
    UnsupportedSize {
        /// Name of the model.
        model: String,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
    /// The graph does not offer this activation.
    #[error("{model} does not offer {tap}")]
    UnsupportedTap {
        /// Name of the model.
        model: String,
        /// The activation.
        tap: Tap,
    },
    /// A LiFT pass was asked for what the model's head does not accept.
    #[error("{model} has no LiFT head for {tap}")]
    NoHead {
        /// Name of the model.
        model: String,
        /// The activation.
        tap: Tap,
    },
    /// Scores were asked for of a model without a segmentation head.
    #[error("{model} has no segmentation head")]
    NoSegmenter {
        /// Name of the model.
        model: String,
    },
    /// Neither features nor scores were asked for.
    #[error("nothing was asked for of {model}")]
    NothingAsked {
        /// Name of the model.
        model: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().fold(String::new(), |mut text, path| {
        let _ = write!(text, " {}", path.display());
        text
    })
}
