//! Folders of photos into training examples: found and split ([`photos`]), framed, coloured and scaled ([`view`], [`jitter`]), run through the backbone and
//! kept on disk ([`cache`]), read back ([`source`]) in batches ([`loader`]). [`square`] frames photos for measurements.

pub mod cache;
pub mod jitter;
pub mod loader;
pub mod normalisation;
pub mod photos;
pub mod source;
pub mod square;
pub mod threads;
pub mod view;
