//! What scenes are composed of, split: cut-outs and photos of a split, and the random numbers of an example.

use std::path::PathBuf;

use anyhow::ensure;
use serde::Serialize;

use crate::{
    compose::cut_out::{CutOut, Found},
    data::photos::{self, Photo},
};

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from: three fifths of the contents.
    Train,
    /// To choose by: a fifth.
    Val,
    /// To measure on: a fifth.
    Test,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The split of a content, by its SHA-256: it stays there whatever else is there.
    #[must_use]
    pub fn of(digest: &str) -> Self {
        // Not the digits that `data::photos` splits by, so that both splits are independent.
        let digits = digest.get(8..16).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default();
        match f64::from(digits) / 2f64.powi(32) {
            share if share < 0.6 => Self::Train,
            share if share < 0.8 => Self::Val,
            _ => Self::Test,
        }
    }

    /// For files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// Cut-outs and photos, all splits.
#[derive(Debug)]
pub struct Stock {
    cut_outs: Vec<CutOut>,
    photos: Vec<Photo>,
}

/// Cut-outs and photos of a split.
#[derive(Debug)]
pub struct Share<'a> {
    /// Which one.
    pub split: Split,
    /// Its cut-outs, by digest.
    pub cut_outs: Vec<&'a CutOut>,
    /// Its photos, by digest.
    pub photos: Vec<&'a Photo>,
}

impl Stock {
    /// Cut-outs, and the photos below folders.
    ///
    /// # Errors
    /// When a folder cannot be read or holds no photos.
    pub fn new(found: Found, folders: &[PathBuf]) -> anyhow::Result<Self> {
        let photos = photos::find(folders, 0.0)?.train;
        ensure!(!photos.is_empty(), "there are no photos");
        Ok(Self { cut_outs: found.cut_outs, photos })
    }

    /// Names of what the cut-outs are, in alphabetical order.
    #[must_use]
    pub fn categories(&self) -> Vec<String> {
        let mut names: Vec<String> = self.cut_outs.iter().map(|cut_out| cut_out.category.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// What belongs to a split.
    ///
    /// # Errors
    /// When there are fewer than `n_cut_outs`, or no photos.
    pub fn share(&self, split: Split, n_cut_outs: usize) -> anyhow::Result<Share<'_>> {
        let cut_outs: Vec<&CutOut> = self.cut_outs.iter().filter(|cut_out| cut_out.split() == split).collect();
        let photos: Vec<&Photo> = self.photos.iter().filter(|photo| Split::of(&photo.digest) == split).collect();
        let (name, n) = (split.name(), cut_outs.len());
        ensure!(n >= n_cut_outs, "{n} of {} cut-outs belong to {name}, which needs {n_cut_outs}", self.cut_outs.len());
        ensure!(!photos.is_empty(), "none of the {} photos belongs to {name}", self.photos.len());
        Ok(Share { split, cut_outs, photos })
    }
}

impl<'a> Share<'a> {
    /// A cut-out at random.
    #[must_use]
    pub fn cut_out(&self, random: &mut fastrand::Rng) -> &'a CutOut {
        self.cut_outs[random.usize(..self.cut_outs.len())]
    }

    /// A photo at random.
    #[must_use]
    pub fn photo(&self, random: &mut fastrand::Rng) -> &'a Photo {
        self.photos[random.usize(..self.photos.len())]
    }

    /// Random numbers of an example.
    #[must_use]
    pub fn random(&self, seed: u64, idx: usize) -> fastrand::Rng {
        let split = self.split as u64;
        // Odd constants, so that neighbouring examples and seeds have nothing in common (splitmix64).
        let mixed =
            (seed.wrapping_mul(3) + split).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (idx as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        fastrand::Rng::with_seed(mixed)
    }
}

/// A number between two.
pub(super) fn between(random: &mut fastrand::Rng, [from, to]: [f64; 2]) -> f64 {
    from + (to - from) * random.f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_split_three_to_one_to_one() {
        let digests: Vec<String> = (0..1000u32).map(|idx| format!("{:08x}{:08x}", 0, idx.wrapping_mul(0x9e37_79b9))).collect();
        let count = |split| digests.iter().filter(|digest| Split::of(digest) == split).count();
        let counts = Split::ALL.map(count);
        assert!(counts[0].abs_diff(600) < 20 && counts[1].abs_diff(200) < 20 && counts[2].abs_diff(200) < 20, "{counts:?}");
    }
}
