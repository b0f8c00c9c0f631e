//! Runs models in ONNX Runtime; the only module that imports `ort`. In go a model directory and batches of images of the model's
//! size, out come feature maps, and scores for every class. The engine owns one [`ModelRunner`] per worker thread.
//!
//! ```text
//! Library ─► RuntimeModel (shared) ─► ModelRunner (one per thread): images ─► backbone ─► LiFT passes ─► maps
//!                                                                                └──────────┴─► segmentation head ─► scores
//! ```

mod cut;
mod error;
mod graph;
mod graph_file;
mod library;
mod lru;
mod model;
mod placement;
mod provider;
mod runner;
mod session;
mod termination;
mod threads;
mod values;
mod view;

pub use self::{
    error::{RuntimeError, Source},
    graph::{Array, Input, PlainGraph, run_graph},
    graph_file::Prune,
    library::{Library, Versions},
    model::{FitPosition, GraphTools, PositionTable, RuntimeConfig, RuntimeModel},
    placement::Placement,
    provider::Provider,
    runner::{ModelRunner, WarmUp},
    termination::Termination,
    threads::{ThreadConfig, cpu_quota},
    view::{FeatureKey, Features, RunKey, RunOutput},
};
