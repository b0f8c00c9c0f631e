//! Folders of photos into training examples: found and split ([`photos`]), framed and scaled ([`view`]), run through the backbone and
//! kept on disk ([`cache`]), read back in batches ([`loader`]).

pub mod cache;
pub mod loader;
pub mod photos;
pub mod view;
