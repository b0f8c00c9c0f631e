//! What a LiFT head costs: multiply-accumulates (MACs), counted as `densevit::graph::cost` counts those of backbones.
//!
//! # Design
//! The paper of LiFT quotes +22.1 % operations at 224 px for ViT-S/16. Counting its own layers gives 0.752 against 4.34 G, 17.3 %; the
//! difference is reproduced by charging the transposed convolution, whose stride equals its kernel, at the output's resolution, four
//! times too often.

use densevit::manifest::LiftForm;

use crate::head::{GUIDANCE, HeadShape};

/// MACs of one pass of a head over a grid of `rows` x `cols` cells.
#[must_use]
pub fn head_macs(shape: &HeadShape, rows: u64, cols: u64) -> u64 {
    let unsigned = |value: i64| value.unsigned_abs();
    let (channels, guidance) = (unsigned(shape.channels), unsigned(GUIDANCE));
    let [up, mid, n_outputs] = shape.widths().map(unsigned);
    let (coarse, fine) = (rows * cols, 4 * rows * cols);
    // Side of the guidance image per cell; the two strided convolutions leave a half and a quarter of it.
    let side = unsigned(shape.guidance());
    let image = coarse * ((side / 2).pow(2) * 27 * guidance + ((side / 4).pow(2) + 1) * 9 * guidance * guidance);
    let doubled = fine * (channels + guidance) * up;
    let trunk = fine * 9 * ((up + guidance) * mid + mid * mid);
    let out = fine * mid * n_outputs;
    let combined = fine * n_outputs * channels;
    let last = match shape.form {
        LiftForm::Official | LiftForm::Residual => 0,
        LiftForm::Guided => combined,
        LiftForm::Corrected => combined + fine * mid * channels,
    };
    image + doubled + trunk + out + last
}

#[cfg(test)]
mod tests {
    use densevit::{
        graph::cost::backbone_macs,
        manifest::{Architecture, FfnKind},
    };

    use super::*;

    fn vit_s16() -> Architecture {
        Architecture {
            family: "dino".into(),
            width: 384,
            depth: 12,
            heads: 6,
            patch: 16,
            registers: 0,
            ffn: FfnKind::Mlp,
            layer_scale: false,
            norm_eps: 1e-6,
            parameters: 21_665_664,
        }
    }

    #[test]
    fn backbones_cost_what_others_counted() {
        let giga = |macs: u64| (macs as f64 / 1e7).round() / 100.0;
        for (side, linear, attention) in [(112, 1.08, 0.02), (224, 4.24, 0.36), (448, 16.90, 5.68)] {
            let cost = backbone_macs(&vit_s16(), None, [side / 16; 2]);
            assert_eq!((giga(cost.linear), giga(cost.attention)), (linear, attention), "{side}");
        }
    }

    #[test]
    fn the_published_head_costs_what_others_counted() {
        let mega = |macs: u64| (macs as f64 / 1e6).round();
        let official = |channels, patch| HeadShape { form: LiftForm::Official, channels, patch, width: 0, window: 1 };
        for (head, side, expected) in
            [(official(384, 16), 14, 752.0), (official(384, 8), 28, 2891.0), (official(768, 16), 14, 2735.0)]
        {
            // The reference is a sum of rounded parts.
            assert!((mega(head_macs(&head, side, side)) - expected).abs() <= 1.0, "{}", head_macs(&head, side, side));
        }
    }
}
