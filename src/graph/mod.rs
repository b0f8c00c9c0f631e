//! Turns weights into graphs: the knowledge of Vision Transformers, of the LiFT head and of segmentation heads, in ONNX operators.
//!
//! In: [`VitWeights`](crate::weights::VitWeights), [`LiftWeights`](crate::weights::LiftWeights) or
//! [`SegmentWeights`](crate::weights::SegmentWeights). Out: an ONNX model whose inputs and outputs are named by
//! [`manifest::io_names`](crate::manifest::io_names). Called by `import`, and later by the trainer.

mod byte_matrix;
mod constants;
pub mod cost;
mod decoder;
mod fold;
mod lift;
pub mod position;
mod product;
mod segmenter;
mod segvit;
mod vit;

pub use lift::{LiftOptions, PRIOR_FLOOR, bilinear_prior, build_lift};
pub use segmenter::{SegmenterOptions, build_segmenter};
pub use vit::{Baked, VitOptions, build_vit};
