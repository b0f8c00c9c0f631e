//! Ways to double a map of features.

use densevit::tensor::FeatureMap;
use tch::Tensor;

use crate::head::Head;

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

    /// Features doubled `n_passes` times; as in the server, each pass but the first sees the image of the one before, enlarged.
    ///
    /// # Shapes
    /// - `image`: `[1, 3, H, W]` f32, normalised
    /// - `features`: `[1, C, h, w]` f32
    /// - output: `[1, C, h * 2^n, w * 2^n]` f32
    pub fn apply(&self, image: &Tensor, features: &Tensor, n_passes: u32) -> Tensor {
        let (mut image, mut map) = (image.shallow_clone(), features.shallow_clone());
        for pass in 0..n_passes {
            if pass > 0 {
                let size = [2 * image.size()[2], 2 * image.size()[3]];
                image = image.upsample_bilinear2d(size, false, None, None);
            }
            map = self.double(&image, &map);
        }
        map
    }

    /// One pass.
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

/// A map as `[1, C, h, w]` f32.
pub fn to_tensor(map: &FeatureMap) -> Tensor {
    let extent = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let flat = Tensor::from_slice(map.data());
    flat.view([1, extent(map.rows()), extent(map.cols()), extent(map.channels())]).permute([0, 3, 1, 2]).contiguous()
}
