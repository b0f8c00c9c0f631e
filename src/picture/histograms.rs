//! Counts of norms, block by block, as colours.

use crate::{
    norms::Histogram,
    picture::{heat, panel::Panel},
};

/// Histograms beside each other: a column each, the first block's at the left, a row a quarter of an octave, small norms below; light is many, by the logarithm. Only the
/// bins that hold something are drawn; the caption says which. `None` without norms.
#[must_use]
pub fn histograms(of_blocks: &[Histogram]) -> Option<Panel> {
    let occupied = of_blocks.iter().map(Histogram::occupied).filter(|bins| !bins.is_empty());
    let bins = occupied.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))?;
    // About as wide as high, so that few blocks are no thread.
    let width = bins.len().div_ceil(of_blocks.len());
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let shade = |histogram: &Histogram, bin: usize| (1.0 + histogram.counts()[bin] as f32).ln();
    let row = |bin: usize| of_blocks.iter().flat_map(move |histogram| vec![shade(histogram, bin); width]);
    let values: Vec<f32> = bins.clone().rev().flat_map(row).collect();
    let image = heat(&values, [bins.len(), width * of_blocks.len()], None)?;
    let [low, high] = [bins.start, bins.end].map(Histogram::lower);
    Some(Panel { caption: format!("norms {low:.3} to {high:.3} by block"), image })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn many_norms_are_light_small_ones_below_and_none_make_no_picture() {
        let panel = histograms(&[Histogram::of(&[1.0; 9]), Histogram::of(&[1.0, 2.0])]).unwrap();
        assert_eq!((panel.image.height(), panel.image.width()), (5, 6), "four bins an octave, columns three wide");
        assert_eq!(panel.caption, "norms 1.000 to 2.378 by block");
        let shade = |row: usize, col: usize| -> u32 {
            panel.image.data()[3 * (6 * row + col)..][..3].iter().map(|level| u32::from(*level)).sum()
        };
        let [many, one, nothing] = [shade(4, 0), shade(4, 3), shade(2, 3)];
        assert!(many > one && one > nothing && shade(0, 5) == one && shade(0, 2) == nothing);
        assert!(histograms(&[Histogram::of(&[])]).is_none() && histograms(&[]).is_none());
    }
}
