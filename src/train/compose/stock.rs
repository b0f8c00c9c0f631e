//! What scenes are composed of, split: cut-outs and photos of a split, and the random numbers of an example.

use std::path::PathBuf;

use anyhow::ensure;

use crate::{
    compose::{
        cut_out::{CutOut, Found},
        split::Split,
    },
    data::photos::{self, Photo},
};

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
