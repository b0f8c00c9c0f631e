//! Whether a backbone tells photos, and patches of a photo, apart: what training without labels has to be watched for.
//!
//! # Design
//! There is nothing to be right or wrong about. Of unit vectors, the length of their mean says all: `sqrt(1 - |mean|^2)` is their spread
//! around it, 0 when all are the same (collapse), close to 1 when they point everywhere.

use serde_json::Value;
use tch::{Kind, Tensor};

use crate::fit::Score;

/// Spread of descriptors, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Of photos.
    pub images: f64,
    /// Of the patches of a photo, in the mean.
    pub patches: f64,
}

impl Spread {
    /// Of the descriptors of photos, `[n, D]`, and of their patches, `[n, N, D]`.
    #[must_use]
    pub fn of([images, patches]: &[Tensor; 2]) -> Self {
        let images = spread(&images.unsqueeze(0)).double_value(&[0]);
        Self { images, patches: spread(patches).mean(Kind::Double).double_value(&[]) }
    }
}

/// Spread of the vectors of each group, `[groups, n, D]`.
fn spread(vectors: &Tensor) -> Tensor {
    let lengths = vectors.norm_scalaropt_dim(2, [-1], true).clamp_min(1e-12);
    let mean = (vectors / lengths).to_kind(Kind::Double).mean_dim([1i64].as_slice(), false, Kind::Double);
    let square = mean.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    (-square + 1.0).clamp_min(0.0).sqrt()
}

impl Score for Spread {
    fn describe(&self) -> String {
        format!("spread of photos {:.3}, of patches {:.3}", self.images, self.patches)
    }

    fn line(&self) -> Value {
        serde_json::json!({ "image_spread": self.images, "patch_spread": self.patches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_vectors_have_no_spread_and_orthogonal_ones_nearly_all() {
        let same = Tensor::from_slice(&[3f32, 4.0]).expand([5, 2], true);
        let axes = Tensor::eye(4, (Kind::Float, tch::Device::Cpu)) * 7.0;
        let Spread { images, patches } = Spread::of(&[same.copy(), Tensor::stack(&[&axes, &axes], 0)]);
        // The mean of four axes is half as long as each.
        assert!(images < 1e-3 && (patches - 0.75f64.sqrt()).abs() < 1e-6, "{images} {patches}");
    }
}
