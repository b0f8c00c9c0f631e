//! Photos into crops of two sizes: cut ([`crop`]), recoloured ([`colour`]) and stacked ([`batch`]).

pub mod batch;
pub mod colour;
pub mod crop;
