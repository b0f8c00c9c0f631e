//! From features to correspondences: points of one image in another, and masks of one frame in the next. Trained on nothing.
//!
//! In: maps of features. Out: matched points with scores ([`match_points`]), soft masks ([`Propagator`]). Pure computation; called by
//! `engine` away from the async threads, and by the trainer's evaluations.

mod directions;
mod matching;
mod propagate;
mod raster;
mod top;

pub use self::{
    directions::Directions,
    matching::{Match, MatchOptions, match_points},
    propagate::{PropagateError, PropagateOptions, Propagator, SoftMask},
    raster::{Drawn, Shares},
};
