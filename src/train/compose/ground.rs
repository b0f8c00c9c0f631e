//! Grounds: parts of photos that fill an image, and that a camera may pan over.

use anyhow::anyhow;
use densevit::{manifest::Interpolation, preprocess::Rect, tensor::RgbImage};

use crate::data::{
    photos::{self, Photo},
    view::resized,
};

/// Share of the photo's free extent that a video pans over, at most.
const PAN: f64 = 1.0;

/// A photo behind everything.
#[derive(Debug)]
pub struct Ground {
    photo: RgbImage,
    /// Where the window starts, and what it moves by in all.
    start: Rect,
    way: [f64; 2],
    size: [u32; 2],
}

impl Ground {
    /// A random part of a photo with the sides of `size` (rows, columns), `zoom` times as small as the largest one.
    ///
    /// # Errors
    /// When the photo cannot be read.
    pub fn new(photo: &Photo, size: [u32; 2], zoom: f64, random: &mut fastrand::Rng) -> anyhow::Result<Self> {
        let image = photos::open(&photo.path).map_err(|problem| anyhow!("{}: it {problem}", photo.path.display()))?;
        let (height, width) = (f64::from(image.height()), f64::from(image.width()));
        let scale = (height / f64::from(size[0])).min(width / f64::from(size[1])) / zoom;
        let (rows, cols) = (f64::from(size[0]) * scale, f64::from(size[1]) * scale);
        let free = [width - cols, height - rows];
        let from = free.map(|free| free * random.f64());
        let to = free.map(|free| free * random.f64());
        let way = [0, 1].map(|axis| PAN * (to[axis] - from[axis]));
        Ok(Self { photo: image, start: Rect { x: from[0], y: from[1], width: cols, height: rows }, way, size })
    }

    /// What the camera sees after a share of its way.
    ///
    /// # Errors
    /// Never: the window stays inside the photo.
    pub fn at(&self, share: f64) -> anyhow::Result<RgbImage> {
        let window = Rect { x: self.start.x + share * self.way[0], y: self.start.y + share * self.way[1], ..self.start };
        resized(&self.photo, self.size, Interpolation::Bilinear, Some(window)).map_err(anyhow::Error::msg)
    }
}
