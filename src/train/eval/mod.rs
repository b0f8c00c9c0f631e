//! Measures features and heads, always beside plain upsampling: on their own ([`upsampling`]), read by a linear layer ([`probe`],
//! [`classify`] for whole images), and on tasks
//! without training: one object's box ([`discovery`]), keypoints ([`keypoint_pairs`]), masks through videos ([`objects`], [`scenes`]).

pub mod classify;
pub mod probe;
pub mod upsampling;

mod method;

pub mod rows;

pub mod corloc;
pub mod discovery;

pub mod keypoint_pairs;
pub mod keypoints;

pub mod objects;
pub mod propagation;
pub mod scenes;
pub mod video_metrics;

pub use method::{Method, to_tensor};
