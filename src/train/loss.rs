//! The objective (Suri et al., ECCV 2024, section 3): features of the small image, upsampled, must point where those of the image of
//! twice the size point.

use tch::Tensor;

use crate::{data::loader::Batch, head::Head};

/// Mean over batch and positions of `1 - cos(a, b)` along the channels: 0 for equal directions, 2 for opposite ones.
///
/// # Shapes
/// - `a`, `b`: `[B, C, h, w]`
pub fn cosine_distance(a: &Tensor, b: &Tensor) -> Tensor {
    1.0 - Tensor::cosine_similarity(a, b, 1, 1e-8).mean(a.kind())
}

/// Both terms: half to full, then quarter to half, in this order, because BatchNorm's statistics see both.
pub fn two_scales(head: &Head, batch: &Batch, train: bool) -> Tensor {
    let [half, quarter] = &batch.images;
    let [full_features, half_features, quarter_features] = &batch.features;
    let first = cosine_distance(&head.forward(half, half_features, train), full_features);
    let second = cosine_distance(&head.forward(quarter, quarter_features, train), half_features);
    first + second
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn equal_directions_cost_nothing_and_opposite_ones_two() {
        tch::manual_seed(0);
        let a = Tensor::randn([2, 5, 3, 4], (Kind::Float, tch::Device::Cpu));
        let value = |b: &Tensor| cosine_distance(&a, b).double_value(&[]);
        assert!(value(&(&a * 3.0)).abs() < 1e-6);
        assert!((value(&-&a) - 2.0).abs() < 1e-6);
    }
}
