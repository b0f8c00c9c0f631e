//! How far the features of an image, upsampled, are from those of the image of twice the size.
//!
//! # Design
//! The distance is the mean of `1 - cos` over positions, as in training. A large part of every descriptor is the same everywhere, and
//! that part makes all cosines high; so the distance is also given with the mean descriptor of the small images subtracted from both.

use anyhow::{anyhow, ensure};
use densevit::{manifest::Interpolation, preprocess::Rect, tensor::RgbImage};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::{
    backbone::Backbone,
    data::{
        photos::{self, Photo},
        view::resized,
    },
    eval::{Method, to_tensor},
    loss::cosine_distance,
};

/// Distances of one method at one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// Name of the method.
    pub method: String,
    /// Cells on a side of the small image's grid.
    pub grid: u32,
    /// Photos measured.
    pub n_photos: usize,
    /// Mean of `1 - cos`.
    pub distance: f64,
    /// The same with the mean descriptor subtracted.
    pub centred: f64,
}

/// Measures all methods, on a device, on the central square of each photo, at `grid` x `grid` cells.
///
/// # Errors
/// When a photo cannot be read or the backbone fails.
pub fn measure(
    backbone: &mut Backbone,
    photos: &[Photo],
    methods: &[Method],
    grid: u32,
    device: Device,
) -> anyhow::Result<Vec<Distance>> {
    ensure!(!photos.is_empty(), "there are no photos to measure on");
    let side = grid * backbone.patch();
    let mut pairs = Vec::with_capacity(photos.len());
    for photo in photos {
        let large = square(photo, 2 * side)?;
        let small = resized(&large, [side; 2], Interpolation::Bilinear, None).map_err(anyhow::Error::msg)?;
        pairs.push((to_tensor(&backbone.features(&small)?).to_device(device), small, large));
    }
    let stacked: Vec<Tensor> =
        pairs.iter().map(|(features, ..)| features.mean_dim([2i64, 3].as_slice(), true, Kind::Float)).collect();
    let mean = Tensor::cat(&stacked, 0).mean_dim([0i64].as_slice(), true, Kind::Float);
    let mut sums = vec![(0.0, 0.0); methods.len()];
    for (features, small, large) in &pairs {
        let target = to_tensor(&backbone.features(large)?).to_device(device);
        let image = backbone.normalisation().of(small).to_device(device);
        tch::no_grad(|| {
            for (method, (distance, centred)) in methods.iter().zip(&mut sums) {
                let doubled = method.double(&image, features);
                *distance += cosine_distance(&doubled, &target).double_value(&[]);
                *centred += cosine_distance(&(&doubled - &mean), &(&target - &mean)).double_value(&[]);
            }
        });
    }
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let n = photos.len() as f64;
    let row = |(method, (distance, centred)): (&Method, (f64, f64))| Distance {
        method: method.name().to_owned(),
        grid,
        n_photos: photos.len(),
        distance: distance / n,
        centred: centred / n,
    };
    Ok(methods.iter().zip(sums).map(row).collect())
}

/// The central square of a photo, `side` pixels.
fn square(photo: &Photo, side: u32) -> anyhow::Result<RgbImage> {
    let image = photos::open(&photo.path).map_err(|problem| anyhow!("{}: it {problem}", photo.path.display()))?;
    let (height, width) = (f64::from(image.height()), f64::from(image.width()));
    let edge = height.min(width);
    let crop = Rect { x: (width - edge) / 2.0, y: (height - edge) / 2.0, width: edge, height: edge };
    resized(&image, [side; 2], Interpolation::Bilinear, Some(crop)).map_err(anyhow::Error::msg)
}
