//! Measures backbones and heads, these always beside plain upsampling.

pub mod classify;
pub mod probe;
pub mod upsampling;

mod method;

pub use method::{Method, to_tensor};
