//! What backbones and segmentation heads cost: multiply-accumulates (MACs) of convolutions, linear layers and attention products, counted
//! from their definition. Norms, activations, softmax and resizes are left out, as is usual. Called by the trainer.
//!
//! # Design
//! The paper of SegViT quotes 637.9 GFLOPs for ViT-L/16 with 150 classes at 640 px and 373.5 for its shrunk form, 41.5 % less. Counted here,
//! one MAC as one of its FLOPs and scores at the size of the image: 637.4 and 373.1 G, 41.5 % less (`cargo test --release cost`). Without the
//! CLS token, which its backbone drops, it is 636.9 and 372.7. At the scores' usual size, a quarter of the image: 628.8 and 364.5, 42.0 %.

use crate::{
    manifest::{Architecture, FfnKind, SegmentForm},
    weights::SegmentShape,
};

/// Multiply-accumulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Macs {
    /// Convolutions and linear layers.
    pub linear: u64,
    /// Both products of attention, and the sum of masks over class queries.
    pub attention: u64,
}

impl Macs {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.linear + self.attention
    }
}

impl std::ops::Add for Macs {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { linear: self.linear + other.linear, attention: self.attention + other.attention }
    }
}

impl std::iter::Sum for Macs {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |total, macs| total + macs)
    }
}

/// MACs of all blocks of a backbone for one image of `rows` x `cols` patches, CLS and registers included. In the block
/// `query_downsample` queries and residuals, and after it all tokens, are those of every second row and column of patches.
#[must_use]
pub fn backbone_macs(arch: &Architecture, query_downsample: Option<u32>, [rows, cols]: [u64; 2]) -> Macs {
    let (patch, width) = (u64::from(arch.patch), u64::from(arch.width));
    let n_prefix = u64::from(arch.has_cls()) + u64::from(arch.registers);
    let (n_all, n_half) = (rows * cols + n_prefix, rows.div_ceil(2) * cols.div_ceil(2) + n_prefix);
    let ffn = match arch.ffn {
        FfnKind::Mlp => 8 * width * width,
        // Two thirds of the usual hidden width, rounded up to a multiple of eight, as DINOv2 has it.
        FfnKind::Swiglu => 3 * width * (4 * width * 2 / 3).next_multiple_of(8),
    };
    let block = |idx: u32| {
        let halves_at = query_downsample.unwrap_or(u32::MAX);
        let n_keys = if idx > halves_at { n_half } else { n_all };
        let n_queries = if idx >= halves_at { n_half } else { n_all };
        let linear = 2 * (n_keys + n_queries) * width * width + n_queries * ffn;
        Macs { linear, attention: 2 * n_queries * n_keys * width }
    };
    let embedding = Macs { linear: rows * cols * 3 * patch * patch * width, attention: 0 };
    embedding + (0..arch.depth).map(block).sum()
}

/// MACs of a segmentation head for one image, whose taps have these rows and columns in the order of reading, and whose scores have `upscale`
/// times those of its grid; 0 leaves the sum over the class queries out. A product for masks is not counted: they are scores that the attention has computed.
#[must_use]
pub fn segment_macs(shape: &SegmentShape, grids: &[[u64; 2]], upscale: u64) -> Macs {
    let [channels, width, n_classes] = [shape.channels, shape.width, shape.n_classes].map(|extent| extent as u64);
    let cells: Vec<u64> = grids.iter().map(|[rows, cols]| rows * cols).collect();
    let (first, last) = (cells.first().copied().unwrap_or_default(), cells.last().copied().unwrap_or_default());
    let projection = |n_cells: u64| Macs { linear: n_cells * channels * width, attention: 0 };
    let stage = |n_queries, n_cells| stage_macs(shape, n_queries, n_cells);
    let scores = |n_cells: u64| Macs {
        linear: n_classes * (n_classes + 1) * width,
        attention: n_classes * n_classes * upscale * upscale * n_cells,
    };
    match shape.form {
        SegmentForm::Segvit => cells.iter().map(|n| projection(*n) + stage(n_classes, *n)).sum::<Macs>() + scores(last),
        SegmentForm::Shrunk => {
            let gathered: Macs = cells.iter().map(|n| projection(*n) + stage(first, *n)).sum();
            gathered + stage(n_classes, first) + scores(first)
        }
        SegmentForm::Linear => Macs { linear: last * channels * n_classes, attention: 0 },
    }
}

/// All layers of a stage: self-attention of the queries, cross-attention to the cells, feed-forward network of four times the width.
fn stage_macs(shape: &SegmentShape, n_queries: u64, n_cells: u64) -> Macs {
    let (width, n_layers) = (shape.width as u64, shape.n_layers as u64);
    let squares = 4 * n_queries + 2 * n_queries + 2 * n_cells + 8 * n_queries;
    let scores = n_queries * (n_queries + n_cells);
    Macs { linear: n_layers * squares * width * width, attention: n_layers * 2 * scores * width }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vit(width: u32, depth: u32) -> Architecture {
        Architecture {
            family: "vit".into(),
            width,
            depth,
            heads: width / 64,
            patch: 16,
            registers: 0,
            ffn: FfnKind::Mlp,
            layer_scale: false,
            norm_eps: 1e-6,
            parameters: 0,
        }
    }

    fn giga(macs: Macs) -> f64 {
        (macs.total() as f64 / 1e8).round() / 10.0
    }

    #[test]
    fn plain_backbones_cost_what_others_counted() {
        for (side, linear, attention) in [(7, 1.08, 0.02), (14, 4.24, 0.36), (28, 16.90, 5.68)] {
            let macs = backbone_macs(&vit(384, 12), None, [side; 2]);
            let giga = |macs: u64| (macs as f64 / 1e7).round() / 100.0;
            assert_eq!((giga(macs.linear), giga(macs.attention)), (linear, attention), "{side}");
        }
        assert_eq!(giga(backbone_macs(&vit(1024, 24), None, [40; 2])), 610.7);
    }

    #[test]
    fn the_block_that_halves_the_grid_asks_with_a_quarter_and_answers_with_all() {
        let arch = vit(64, 3);
        let all = backbone_macs(&arch, None, [3, 5]);
        let halved = backbone_macs(&arch, Some(1), [3, 5]);
        // 16 tokens, 7 after block 0: queries, output and feed-forward network of two blocks, keys and values of one.
        let (n_all, n_half, square) = (16, 7, 64 * 64);
        assert_eq!(all.linear - halved.linear, 2 * (n_all - n_half) * 10 * square + (n_all - n_half) * 2 * square);
        assert_eq!(halved.attention, 2 * 64 * (n_all * n_all + n_half * n_all + n_half * n_half));
        assert_eq!(backbone_macs(&arch, Some(2), [1, 1]), backbone_macs(&arch, None, [1, 1]));
    }

    #[test]
    fn the_shrunk_form_saves_what_its_paper_says() {
        let (arch, full, half) = (vit(1024, 24), [40; 2], [20; 2]);
        let (segvit, shrunk) = (SegmentShape::segvit(1024, 150, 3), SegmentShape::shrunk(1024, 150, [40, 40]));
        let of = |upscale| {
            let plain = backbone_macs(&arch, None, full) + segment_macs(&segvit, &[full; 3], upscale);
            [plain, backbone_macs(&arch, Some(8), full) + segment_macs(&shrunk, &[full, half], upscale)]
        };
        let [plain, halved] = of(16);
        assert_eq!([plain, halved].map(giga), [637.4, 373.1], "the paper: 637.9, 373.5");
        let saved = 1.0 - halved.total() as f64 / plain.total() as f64;
        assert_eq!((saved * 1000.0).round(), 415.0, "the paper: 41.5 %");
        assert_eq!(of(4).map(giga), [628.8, 364.5]);
    }

    #[test]
    fn a_linear_head_costs_one_product() {
        let macs = segment_macs(&SegmentShape::linear(384, 11), &[[24, 32]], 4);
        assert_eq!(macs, Macs { linear: 24 * 32 * 384 * 11, attention: 0 });
    }
}
