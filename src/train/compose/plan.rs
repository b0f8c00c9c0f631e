//! What is to be composed.

use std::path::PathBuf;

use serde::Serialize;

use crate::compose::split::Split;

/// Where, how much, how large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Folder of the set.
    pub out: PathBuf,
    /// Same seed, same bytes.
    pub seed: u64,
    /// Images, pairs or videos of train, val and test.
    pub counts: [usize; 3],
    /// Rows and columns of images.
    pub size: [u32; 2],
    /// Frames of a video.
    pub n_frames: usize,
}

impl Plan {
    /// Each split that has something, and how much.
    pub fn splits(&self) -> impl Iterator<Item = (Split, usize)> {
        Split::ALL.into_iter().zip(self.counts).filter(|(_, count)| *count > 0)
    }
}
