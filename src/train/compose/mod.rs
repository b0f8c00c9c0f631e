//! Data sets with exact truth: cut-outs with an alpha channel over photos, in the layouts of [`datasets`](crate::datasets).
//!
//! ```text
//! PNG files with alpha ─► cut_out ─┐
//!                                  ├─► pose ─► scene (pixels, and who owns each) ─► images (VOC, COCO20k), folders (a class each), pairs (SPair), videos (DAVIS)
//! photos ─────────────► ground ────┘                                        └─► sheet (a picture to look at)
//! ```
//!
//! In: folders and a seed. Out: a folder in one layout. Called by `train compose` and by tests.
//!
//! # Design
//! The same seed and files give the same bytes: each example has random numbers of its own, made of seed, split and index, and what is in
//! a split follows from the contents of the files, not from their names or number. A cut-out belongs to one split, a photo too.
//! Cut-outs rather than renderings: nothing else gives real texture and exact masks without labels. They look pasted, which is the price: their
//! borders are sharper than real ones, and numbers on them stand for themselves.

pub mod split;

pub mod cut_out;

pub mod ground;

pub mod pose;

pub mod keypoints;

pub mod scene;

pub mod sheet;

pub mod stock;

pub mod plan;

mod jpeg;

pub mod images;

pub mod folders;

pub mod pairs;

pub mod path;

pub mod videos;

pub use self::plan::Plan;
