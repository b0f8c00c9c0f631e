//! What segmentation costs the trainer: multiply-accumulates (MACs) of the blocks that are run, and of heads of its shapes, as
//! `densevit::graph::cost` counts them. The sum over the queries is left out: it depends on the size that is asked for.

use densevit::{graph::cost, manifest::Architecture, weights::SegmentShape};

use crate::segmentation::{head::Shape, layers::N_LAYERS};

/// MACs of the blocks of a backbone up to the last that is read, for a grid of `rows` x `cols` patches that is halved in the block
/// `downsample`.
#[must_use]
pub fn backbone_macs(arch: &Architecture, grid: [u64; 2], n_blocks: u32, downsample: Option<u32>) -> u64 {
    cost::backbone_macs(&Architecture { depth: n_blocks, ..arch.clone() }, downsample, grid).total()
}

/// MACs of a head on maps of these grids, in the order in which it reads them.
#[must_use]
pub fn head_macs(shape: &Shape, grids: &[[u64; 2]]) -> u64 {
    let extent = |value: i64| usize::try_from(value).unwrap_or_default();
    let sizes = SegmentShape {
        form: shape.form,
        channels: extent(shape.channels),
        width: extent(shape.widths.width),
        n_classes: extent(shape.n_classes),
        n_taps: shape.n_taps,
        n_layers: extent(N_LAYERS),
        query_grid: None,
    };
    cost::segment_macs(&sizes, grids, 0).total()
}

#[cfg(test)]
mod tests {
    use densevit::manifest::{FfnKind, SegmentForm};

    use super::*;
    use crate::segmentation::layers::Widths;

    fn vit_l16() -> Architecture {
        Architecture {
            family: "vit".into(),
            width: 1024,
            depth: 24,
            heads: 16,
            patch: 16,
            registers: 0,
            ffn: FfnKind::Mlp,
            layer_scale: false,
            norm_eps: 1e-6,
            parameters: 0,
        }
    }

    fn shape(form: SegmentForm, n_taps: usize) -> Shape {
        let widths = Widths { width: 512, heads: 16, dropout: 0.1 };
        Shape { form, n_taps, channels: 1024, n_classes: 150, widths, grid: [40, 40] }
    }

    #[test]
    fn backbones_and_heads_cost_what_the_paper_counts() {
        // ViT-L/16 at 640 px: backbone alone 612.3, SegViT 637.9, Shrunk 373.5 (repository and paper of SegViT).
        let giga = |macs: u64| macs as f64 / 1e9;
        let grid = [40, 40];
        let whole = backbone_macs(&vit_l16(), grid, 24, None);
        let segvit = whole + head_macs(&shape(SegmentForm::Segvit, 3), &[grid; 3]);
        let shrunk = backbone_macs(&vit_l16(), grid, 24, Some(8)) + head_macs(&shape(SegmentForm::Shrunk, 2), &[grid, [20, 20]]);
        // Its counter also counts norms and activations: 10 G of either model.
        let close = |got: u64, paper: f64| (giga(got) / paper - 1.0).abs() < 0.03;
        let said = format!("{:.1} {:.1} {:.1}", giga(whole), giga(segvit), giga(shrunk));
        assert!(close(whole, 612.3) && close(segvit, 637.9) && close(shrunk, 373.5), "{said}");
        let saved = 1.0 - giga(shrunk) / giga(segvit);
        assert!((saved - 0.415).abs() < 0.01, "{saved}");
    }

    #[test]
    fn halving_in_the_last_block_saves_only_there() {
        let (grid, whole) = ([8, 6], backbone_macs(&vit_l16(), [8, 6], 24, None));
        let before = backbone_macs(&vit_l16(), grid, 23, None);
        let halved = backbone_macs(&vit_l16(), grid, 24, Some(23));
        assert!(before < halved && halved < whole);
        assert_eq!(backbone_macs(&vit_l16(), grid, 10, Some(12)), backbone_macs(&vit_l16(), grid, 10, None));
    }
}
