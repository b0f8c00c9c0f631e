//! Turns weights into graphs: the knowledge of Vision Transformers and of the LiFT head, in ONNX operators.
//!
//! In: [`VitWeights`](crate::weights::VitWeights) or [`LiftWeights`](crate::weights::LiftWeights). Out: an ONNX model whose inputs
//! and outputs are named by [`manifest::io_names`](crate::manifest::io_names). Called by `import`, and later by the trainer.

mod constants;
mod lift;
pub mod position;
mod vit;

pub use lift::{LiftOptions, PRIOR_FLOOR, bilinear_prior, build_lift};
pub use vit::{Baked, VitOptions, build_vit};
