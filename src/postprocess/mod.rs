//! Feature maps into the bytes of an answer: part, unit length, element type, layout, bands.
//!
//! In: a [`FeatureMap`](crate::tensor::FeatureMap) and [`EncodeOptions`]. Out: [`Encoded`] bytes and their [`bands`]. Pure
//! computation; called by `engine` away from the async threads, and by `grpc` for the bands.

mod bands;
mod dtype;
mod encode;
mod select;

pub use bands::{BandRange, bands, bands_of, crc32};
pub use dtype::{DType, Layout};
pub use encode::{EncodeError, EncodeOptions, Encoded, encode};
pub use select::Selection;
