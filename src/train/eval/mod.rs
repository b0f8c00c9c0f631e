//! Measures heads, always beside plain upsampling.

pub mod probe;
pub mod upsampling;

mod method;

pub use method::{Method, to_tensor};
