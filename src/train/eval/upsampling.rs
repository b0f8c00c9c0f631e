//! How far the features of an image, upsampled, are from those of the image of twice the size.
//!
//! # Design
//! The distance is the mean of `1 - cos` over positions, as in training. A large part of every descriptor is the same everywhere, and
//! that part makes all cosines high; so the distance is also given with the mean descriptor of the small images subtracted from both.

use anyhow::{Context as _, ensure};
use densevit::{
    preprocess::{DecodeLimits, Rect, decode},
    tensor::{FeatureMap, RgbImage},
};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::{
    backbone::Backbone,
    data::{
        loader::{Shape, normalised},
        photos::Photo,
        view::resized,
    },
    head::Head,
    loss::cosine_distance,
};

const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 28, max_pixels: 1 << 27 };

/// A way to double a map.
#[derive(Debug)]
pub enum Method {
    /// Each cell four times.
    Nearest,
    /// Half-pixel centres, clamped borders.
    Bilinear,
    /// Keys' kernel with a = -0.75, half-pixel centres, clamped borders.
    Bicubic,
    /// A head, under a name.
    Head(String, Box<Head>),
}

impl Method {
    /// For tables.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Head(name, _) => name,
        }
    }

    /// `[1, C, h, w]` features and their `[1, 3, H, W]` image, normalised, to `[1, C, 2h, 2w]`.
    pub fn double(&self, image: &Tensor, features: &Tensor) -> Tensor {
        let size = [2 * features.size()[2], 2 * features.size()[3]];
        match self {
            Self::Nearest => features.upsample_nearest2d(size, None, None),
            Self::Bilinear => features.upsample_bilinear2d(size, false, None, None),
            Self::Bicubic => features.upsample_bicubic2d(size, false, None, None),
            Self::Head(_, head) => head.forward(image, features, false),
        }
    }
}

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

/// Measures all methods on the central square of each photo, at `grid` x `grid` cells.
///
/// # Errors
/// When a photo cannot be read or the backbone fails.
pub fn measure(backbone: &mut Backbone, photos: &[Photo], methods: &[Method], grid: u32) -> anyhow::Result<Vec<Distance>> {
    ensure!(!photos.is_empty(), "there are no photos to measure on");
    let side = grid * backbone.patch();
    let mut pairs = Vec::with_capacity(photos.len());
    for photo in photos {
        let large = square(photo, 2 * side)?;
        let small = resized(&large, side, None).map_err(anyhow::Error::msg)?;
        pairs.push((to_tensor(&backbone.features(&small)?), small, large));
    }
    let stacked: Vec<Tensor> =
        pairs.iter().map(|(features, ..)| features.mean_dim([2i64, 3].as_slice(), true, Kind::Float)).collect();
    let mean = Tensor::cat(&stacked, 0).mean_dim([0i64].as_slice(), true, Kind::Float);
    let preprocess = backbone.entry().manifest.preprocess.clone();
    let shape = Shape { grid: 0, size: 0, channels: 0, mean: preprocess.mean, std: preprocess.std };
    let mut sums = vec![(0.0, 0.0); methods.len()];
    for (features, small, large) in &pairs {
        let target = to_tensor(&backbone.features(large)?);
        let pixels = Tensor::from_slice(small.data()).view([1, i64::from(side), i64::from(side), 3]);
        let image = normalised(&pixels, shape);
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
    let bytes = std::fs::read(&photo.path).with_context(|| format!("reading {}", photo.path.display()))?;
    let image = decode(&bytes, &LIMITS).with_context(|| format!("decoding {}", photo.path.display()))?;
    let (height, width) = (f64::from(image.height()), f64::from(image.width()));
    let edge = height.min(width);
    let crop = Rect { x: (width - edge) / 2.0, y: (height - edge) / 2.0, width: edge, height: edge };
    resized(&image, side, Some(crop)).map_err(anyhow::Error::msg)
}

/// A map as `[1, C, h, w]` f32.
pub fn to_tensor(map: &FeatureMap) -> Tensor {
    let extent = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let flat = Tensor::from_slice(map.data()).to_device(Device::Cpu);
    flat.view([1, extent(map.rows()), extent(map.cols()), extent(map.channels())]).permute([0, 3, 1, 2]).contiguous()
}
