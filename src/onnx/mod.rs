//! Writes, reads and cuts ONNX files. Generic: knows operators and tensors, nothing of transformers.
//!
//! In: calls of [`GraphBuilder`]. Out: a [`ModelProto`] and its file. Called by `graph`, which knows the networks, by `weights`,
//! which reads the constants of other people's files, and by `runtime`, which cuts a graph to the outputs that it serves.

mod builder;
mod file;
mod ops;
pub mod proto;
mod prune;
mod tensor;

use std::{io, path::PathBuf};

use thiserror::Error;

pub use builder::{Dim, GraphBuilder, Value};
pub use file::{load, save};
pub use ops::{Along, ConvGeometry, QuantizedValue, QuantizedWeight};
pub use proto::ModelProto;
pub use prune::{prune, prune_bytes};

/// ONNX operator set of the default domain that the builders use: the first with `Gelu`.
pub const OPSET: u32 = 20;
/// File format version that belongs to it.
pub const IR_VERSION: i64 = 9;

/// What can be wrong with a graph or its file.
#[derive(Debug, Error)]
pub enum OnnxError {
    /// A file could not be read or written.
    #[error("cannot {operation} {path}")]
    File {
        /// "read" or "write".
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no ONNX model.
    #[error("{path} is no ONNX model")]
    Decode {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// Bytes are no ONNX model.
    #[error("the bytes are no ONNX model")]
    Malformed(#[source] prost::DecodeError),
    /// A model holds no graph.
    #[error("the model holds no graph")]
    NoGraph,
    /// A constant cannot be used.
    #[error("tensor \"{name}\" {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Something reads a value that nothing makes.
    #[error("{reader} reads \"{name}\", which nothing makes")]
    Dangling {
        /// Name of the node, or "the graph's outputs".
        reader: String,
        /// Name of the value.
        name: String,
    },
    /// Two things make the same value.
    #[error("\"{name}\" is made twice")]
    Duplicate {
        /// Name of the value.
        name: String,
    },
}
