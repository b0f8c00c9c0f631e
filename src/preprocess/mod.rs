//! Bytes into the model's input: decode, orient, crop, resize. The one implementation for serving, training and evaluation.
//!
//! In: an image file or raw pixels, and a [`Recipe`]. Out: an [`RgbImage`](crate::tensor::RgbImage) of the model's size and the
//! [`Geometry`] that leads back to the original. Pure computation; called by `engine` away from the async threads.

mod decode;
mod geometry;
mod resize;
mod size;

pub use decode::{DecodeError, DecodeLimits, decode, probe, raw};
pub use geometry::{Geometry, Rect};
pub use resize::{Prepared, prepare};
pub use size::{PrepareError, Recipe, plan_size};
