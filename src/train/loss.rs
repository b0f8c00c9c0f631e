//! The objective (Suri et al., ECCV 2024, section 3): features of the small image, upsampled, must point where those of the image of
//! twice the size point.
//!
//! # Design
//! Most of every descriptor is the same everywhere, so that cosines are high whatever the head does. `Objective::Centred` takes the mean
//! descriptor off first; a guided head is linear in the features with shares that sum to one, so that for it this changes the weight of
//! each error and not what can be reached. What it brought is in README.

use tch::{Kind, Tensor};

use crate::{config::Objective, data::loader::Batch, head::Head};

/// Mean over batch and positions of `1 - cos(a, b)` along the channels: 0 for equal directions, 2 for opposite ones.
///
/// # Shapes
/// - `a`, `b`: `[B, C, h, w]`
pub fn cosine_distance(a: &Tensor, b: &Tensor) -> Tensor {
    1.0 - Tensor::cosine_similarity(a, b, 1, 1e-8).mean(a.kind())
}

/// What a run makes small.
#[derive(Debug)]
pub struct Loss {
    objective: Objective,
    depth: u32,
    /// Mean descriptor, `[1, C, 1, 1]`.
    mean: Option<Tensor>,
}

impl Loss {
    /// An objective, the number of doublings that are trained through, and, for `Objective::Centred`, the mean descriptor of the photos,
    /// `[1, C, 1, 1]`.
    #[must_use]
    pub fn new(objective: Objective, depth: u32, mean: Option<Tensor>) -> Self {
        Self { objective, depth, mean }
    }

    /// Between two maps, `[B, C, h, w]`.
    pub fn between(&self, a: &Tensor, b: &Tensor) -> Tensor {
        match self.objective {
            Objective::Cosine => cosine_distance(a, b),
            Objective::Centred => {
                let centred = |map: &Tensor| self.mean.as_ref().map_or_else(|| map.shallow_clone(), |mean| map - mean);
                cosine_distance(&centred(a), &centred(b))
            }
            Objective::L1 => (a - b).abs().mean(Kind::Float),
            Objective::L2 => (a - b).square().mean(Kind::Float),
        }
    }

    /// Half to full, then quarter to half and so on, in this order, because BatchNorm's statistics see all; then, at depth 2, quarter to
    /// full.
    pub fn of(&self, head: &Head, batch: &Batch, train: bool) -> Tensor {
        let small = batch.images.iter().zip(batch.features.iter().skip(1));
        let doubled: Vec<Tensor> = small.map(|(image, features)| head.forward(image, features, train)).collect();
        let terms = doubled.iter().zip(&batch.features).map(|(doubled, target)| self.between(doubled, target));
        let sum: Tensor = terms.sum();
        let ([half, quarter, ..], [_, once, ..], [full, ..]) =
            (batch.images.as_slice(), doubled.as_slice(), batch.features.as_slice())
        else {
            return sum;
        };
        if self.depth < 2 {
            return sum;
        }
        // As served: the second pass sees the image of the first, enlarged.
        let enlarged = quarter.upsample_bilinear2d([half.size()[2], half.size()[3]], false, None, None);
        sum + self.between(&head.forward(&enlarged, once, train), full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_directions_cost_nothing_and_opposite_ones_two() {
        tch::manual_seed(0);
        let options = (Kind::Float, tch::Device::Cpu);
        let (a, mean) = (Tensor::randn([2, 5, 3, 4], options), Tensor::randn([1, 5, 1, 1], options));
        let value = |b: &Tensor| cosine_distance(&a, b).double_value(&[]);
        assert!(value(&(&a * 3.0)).abs() < 1e-6);
        assert!((value(&-&a) - 2.0).abs() < 1e-6);
        let centred = Loss::new(Objective::Centred, 1, Some(mean.shallow_clone()));
        assert!((centred.between(&a, &(&mean * 2.0 - &a)).double_value(&[]) - 2.0).abs() < 1e-6);
        for objective in [Objective::Cosine, Objective::Centred, Objective::L1, Objective::L2] {
            let loss = Loss::new(objective, 1, Some(mean.shallow_clone()));
            assert!(loss.between(&a, &a).double_value(&[]).abs() < 1e-6, "{objective:?}");
            assert!(loss.between(&a, &(&a + Tensor::randn_like(&a))).double_value(&[]) > 0.1, "{objective:?}");
        }
    }
}
