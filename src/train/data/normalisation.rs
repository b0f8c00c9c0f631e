//! What the backbone does to pixels before it looks at them, for heads that look at them too.

use densevit::tensor::RgbImage;
use tch::{Kind, Tensor};

/// What the backbone does to pixels first.
#[derive(Clone, Copy, Debug)]
pub struct Normalisation {
    /// Channel means, RGB in \[0, 1\].
    pub mean: [f32; 3],
    /// Channel standard deviations.
    pub std: [f32; 3],
}

impl Normalisation {
    /// `[B, H, W, 3]` u8 as `[B, 3, H, W]` f32, normalised as the backbone's graph does it.
    pub fn apply(self, pixels: &Tensor) -> Tensor {
        let [mean, std] = [self.mean, self.std].map(|of| Tensor::from_slice(&of).view([1, 3, 1, 1]).to_device(pixels.device()));
        ((pixels.to_kind(Kind::Float).permute([0, 3, 1, 2]) / 255.0 - mean) / std).contiguous()
    }

    /// The same for one image: `[1, 3, H, W]` f32.
    pub fn of(self, image: &RgbImage) -> Tensor {
        self.apply(&Tensor::from_slice(image.data()).view([1, i64::from(image.height()), i64::from(image.width()), 3]))
    }
}
