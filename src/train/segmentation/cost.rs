//! What segmentation costs: multiply-accumulates (MACs) of backbones that halve their grid, and of heads, counted from their definition
//! as `crate::cost` counts. The sum over the queries is left out: it depends on the size that is asked for.

use densevit::manifest::Architecture;

use crate::{
    cost::BackboneCost,
    segmentation::{card::Form, head::Shape, layers::N_LAYERS},
};

/// MACs of the blocks of a backbone up to the last that is read, for a grid of `rows` x `cols` patches that is halved in the block
/// `downsample`.
#[must_use]
pub fn backbone_macs(arch: &Architecture, grid: [u64; 2], n_blocks: u32, downsample: Option<u32>) -> u64 {
    let of = |depth: u32, [rows, cols]: [u64; 2]| BackboneCost::new(&Architecture { depth, ..arch.clone() }, rows, cols);
    let Some(block) = downsample.filter(|block| *block < n_blocks) else { return of(n_blocks, grid).total() };
    let small = grid.map(|side| side.div_ceil(2));
    let n_tokens = |[rows, cols]: [u64; 2]| rows * cols + 1 + u64::from(arch.registers);
    let (whole, kept) = (n_tokens(grid), n_tokens(small));
    let width = u64::from(arch.width);
    // Of the block that halves the grid: keys and values of all tokens, everything else of those that are kept.
    let own =
        of(1, small).total() - of(0, small).total() + 2 * (whole - kept) * width * width + 2 * kept * (whole - kept) * width;
    let after = of(n_blocks - block - 1, small).total() - of(0, small).total();
    of(block, grid).total() + own + after
}

/// MACs of a head on maps of these grids, in the order in which it reads them.
#[must_use]
pub fn head_macs(shape: &Shape, grids: &[[u64; 2]]) -> u64 {
    let unsigned = |value: i64| value.unsigned_abs();
    let (channels, width, n_classes) = (unsigned(shape.channels), unsigned(shape.widths.width), unsigned(shape.n_classes));
    let cells = |grid: &[u64; 2]| grid[0] * grid[1];
    let stage = |n_queries: u64, n_cells: u64| unsigned(N_LAYERS) * layer_macs(n_queries, n_cells, width);
    let projected = grids.iter().map(|grid| cells(grid) * channels * width).sum::<u64>();
    let classes = n_classes * width * (n_classes + 1);
    match shape.form {
        Form::Linear => grids.iter().map(|grid| cells(grid) * channels * n_classes).sum(),
        Form::Segvit => projected + grids.iter().map(|grid| stage(n_classes, cells(grid))).sum::<u64>() + classes,
        Form::Shrunk => {
            let full = grids.first().map_or(0, cells);
            projected + grids.iter().map(|grid| stage(full, cells(grid))).sum::<u64>() + stage(n_classes, full) + classes
        }
    }
}

/// Of one decoder layer: self-attention among the queries, cross-attention to the cells, feed-forward.
fn layer_macs(n_queries: u64, n_cells: u64, width: u64) -> u64 {
    let among = 4 * n_queries * width * width + 2 * n_queries * n_queries * width;
    let across = 2 * (n_queries + n_cells) * width * width + 2 * n_queries * n_cells * width;
    among + across + 8 * n_queries * width * width
}

#[cfg(test)]
mod tests {
    use densevit::manifest::FfnKind;

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

    fn shape(form: Form, n_taps: usize) -> Shape {
        let widths = Widths { width: 512, heads: 16, dropout: 0.1 };
        Shape { form, n_taps, channels: 1024, n_classes: 150, widths, grid: [40, 40] }
    }

    #[test]
    fn backbones_and_heads_cost_what_the_paper_counts() {
        // ViT-L/16 at 640 px: backbone alone 612.3, SegViT 637.9, Shrunk 373.5 (repository and paper of SegViT).
        let giga = |macs: u64| macs as f64 / 1e9;
        let grid = [40, 40];
        let whole = backbone_macs(&vit_l16(), grid, 24, None);
        let segvit = whole + head_macs(&shape(Form::Segvit, 3), &[grid; 3]);
        let shrunk = backbone_macs(&vit_l16(), grid, 24, Some(8)) + head_macs(&shape(Form::Shrunk, 2), &[grid, [20, 20]]);
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
