//! Crops of the photos of a step, stacked by size. Called by the loader's thread; photos are decoded and cut on all cores.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use densevit::{manifest::Interpolation, tensor::RgbImage};
use tch::{Device, Tensor};

use crate::{
    data::{
        normalisation::Normalisation,
        photos::{self, Photo},
        threads::make_all,
        view::resized,
    },
    pretrain::{
        config::PretrainConfig,
        data::crop::{Crops, N_GLOBAL, crops},
    },
};

/// Channel means and deviations of ImageNet, as `densevit import` takes them for granted.
pub const NORMALISATION: Normalisation = Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// Photos of one step.
///
/// # Shapes
/// - `global`: `[2 * B, 3, S, S]` f32, normalised: the first crop of every photo, then the second
/// - `local`: `[L * B, 3, s, s]` f32, likewise; none if there are no local crops
#[derive(Debug)]
pub struct Batch {
    /// Global crops.
    pub global: Tensor,
    /// Local crops.
    pub local: Option<Tensor>,
    /// Files of the photos, for messages.
    pub names: Vec<PathBuf>,
}

/// Photos that are cut anew each epoch.
#[derive(Debug)]
pub struct Cutter {
    photos: Vec<Photo>,
    config: PretrainConfig,
    device: Device,
    /// Photos that were reported as broken.
    reported: BTreeSet<usize>,
}

impl Cutter {
    /// Cuts these photos.
    #[must_use]
    pub fn new(photos: Vec<Photo>, config: &PretrainConfig, device: Device) -> Self {
        Self { photos, config: config.clone(), device, reported: BTreeSet::new() }
    }

    /// Number of photos.
    #[must_use]
    pub fn len(&self) -> usize {
        self.photos.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.photos.is_empty()
    }

    /// The crops of photos, by epoch and index: what both give does not depend on what was made before. Photos that cannot be read are
    /// reported, once, and left out.
    ///
    /// # Errors
    /// When not one of the photos can be used.
    pub fn batch(&mut self, picked: &[(u64, usize)]) -> anyhow::Result<Batch> {
        let made = make_all(picked, |(epoch, idx)| self.crops(*epoch, *idx));
        let mut all = Vec::with_capacity(picked.len());
        let mut names = Vec::with_capacity(picked.len());
        for ((_, idx), crops) in picked.iter().zip(made) {
            let path = self.photos.get(*idx).map_or(Path::new(""), |photo| &photo.path);
            match crops.unwrap_or_else(|| Err("broke the decoder".to_owned())) {
                Ok(crops) => {
                    all.push(crops);
                    names.push(path.to_path_buf());
                }
                Err(problem) if self.reported.insert(*idx) => eprintln!("train: {} is skipped: it {problem}", path.display()),
                Err(_reported) => {}
            }
        }
        ensure!(!all.is_empty(), "none of the {} photos of this batch can be used", picked.len());
        let of = |crop_idx: usize, kind: fn(&Crops) -> &[RgbImage]| all.iter().filter_map(move |crops| kind(crops).get(crop_idx));
        let global: Vec<&RgbImage> = (0..N_GLOBAL).flat_map(|idx| of(idx, |crops| &crops.global)).collect();
        let local: Vec<&RgbImage> = (0..self.config.n_local as usize).flat_map(|idx| of(idx, |crops| &crops.local)).collect();
        let stacked = |images: &[&RgbImage]| NORMALISATION.apply(&stack(images).to_device(self.device));
        Ok(Batch { global: stacked(&global), local: (!local.is_empty()).then(|| stacked(&local)), names })
    }

    fn crops(&self, epoch: u64, idx: usize) -> Result<Crops, String> {
        let photo = self.photos.get(idx).ok_or("is not there")?;
        let content = photo.digest.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
        let seed = content ^ self.config.seed.rotate_left(32) ^ epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        crops(&photos::open(&photo.path)?, &self.config, &mut fastrand::Rng::with_seed(seed))
    }
}

/// Photos to look at, whole, squeezed into squares, `[n, 3, size, size]` f32, normalised; those that can be read.
///
/// # Errors
/// When not one can be read.
pub fn whole(photos: &[Photo], size: u32, device: Device) -> anyhow::Result<Tensor> {
    let square = |photo: &Photo| resized(&photos::open(&photo.path)?, [size; 2], Interpolation::Bicubic, None);
    let made: Vec<RgbImage> = make_all(photos, square).into_iter().flatten().filter_map(Result::ok).collect();
    ensure!(!made.is_empty(), "none of the {} photos to look at can be used", photos.len());
    Ok(NORMALISATION.apply(&stack(&made.iter().collect::<Vec<_>>()).to_device(device)))
}

/// Images of one size as `[n, H, W, 3]` u8.
fn stack(images: &[&RgbImage]) -> Tensor {
    let Some(first) = images.first() else { return Tensor::new() };
    let [height, width] = [first.height(), first.width()].map(i64::from);
    let bytes: Vec<u8> = images.iter().flat_map(|image| image.data()).copied().collect();
    Tensor::from_slice(&bytes).view([-1, height, width, 3])
}
