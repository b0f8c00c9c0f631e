//! # densevit
//!
//! Dense Vision-Transformer features as a service. An image comes in over gRPC, a ViT runs in ONNX Runtime, a LiFT head
//! doubles the resolution of its feature map, and the map goes back as protobuf messages.
//!
//! ```text
//! weights ─► graph ─► onnx ─► import ─► models/NAME/VERSION ─► manifest          (once, `densevit import`)
//!
//! client ─► grpc ─► engine ─► preprocess ─► batch ─► runtime ─► postprocess ─► grpc ─► client   (`densevit serve`)
//! ```
//!
//! Imports point one way: a module may use only modules that stand above it in the list below. `tests/layering.rs` checks it.

pub mod mmap;
pub mod tensor;

pub mod manifest;
pub mod weights;

pub mod runtime;

pub mod batch;
