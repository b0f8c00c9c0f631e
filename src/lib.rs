//! # densevit
//!
//! Dense Vision-Transformer features and masks as a service. An image comes in over gRPC, a ViT runs in ONNX Runtime, a LiFT head
//! doubles the resolution of its feature map, or a segmentation head scores its cells, and map or masks go back as protobuf messages.
//!
//! ```text
//! weights ─► graph ─► onnx ─► import ─► models/NAME/VERSION ─► manifest          (once, `densevit import`)
//!
//! client ─► grpc ─► engine ─► preprocess ─► batch ─► runtime ─┬► postprocess ─┬► grpc ─► client   (`densevit serve`)
//!                                                             └► masks ───────┘
//! ```
//!
//! Imports point one way: a module may use only modules that stand above it in the list below. `tests/layering.rs` checks it.

// Leaves.
pub mod mmap;
pub mod onnx;
pub mod shutdown;
pub mod telemetry;
pub mod tensor;

// Models: what they are, and how they are made.
pub mod manifest;
pub mod weights;

pub mod graph;

pub mod import;

// A request's way through the service.
pub mod preprocess;

pub mod arrays;
pub mod postprocess;

pub mod masks;

// What is read out of features, and from one image to another.
pub mod correspond;
pub mod discover;
pub mod norms;

pub mod runtime;

pub mod batch;

pub mod cache;

pub mod engine;

pub mod grpc;

// The programs.
pub mod admin;
pub mod config;

pub mod server;

pub mod picture;

pub mod commands;
