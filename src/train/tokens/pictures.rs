//! Pictures of tokens: norms, likeness and attention of some photos, and the norms of all blocks.

use std::path::Path;

use anyhow::Context as _;
use densevit::{
    norms::Histogram,
    picture::{Panel, heat, histograms, side_by_side, stacked, write_png},
    tensor::RgbImage,
};
use tch::{Kind, Tensor};

use crate::tokens::survey::Seen;

/// Writes a row a photo: the photo, norms of its patches after the block, likeness to the patches around, attention of the class token and of
/// each register. Each map goes from its lowest value to its highest.
///
/// # Errors
/// When the file cannot be written.
pub fn draw_photos(path: &Path, seen: &[Seen], block: usize) -> anyhow::Result<()> {
    let row = |seen: &Seen| -> anyhow::Result<_> {
        let mut panels = vec![Panel { caption: "photo".into(), image: seen.image.clone() }];
        let norms = seen.norms.get(i64::try_from(block)?);
        panels.push(panel("norm", &norms, seen.grid)?);
        panels.push(panel("likeness", &seen.likeness, seen.grid)?);
        for (idx, attention) in (0..seen.attention.size()[0]).map(|idx| (idx, seen.attention.get(idx))) {
            let is_cls = seen.has_cls && idx == 0;
            let caption = if is_cls { "class token".to_owned() } else { format!("register {}", idx + i64::from(!seen.has_cls)) };
            panels.push(panel(&caption, &attention, seen.grid)?);
        }
        Ok(side_by_side(&panels))
    };
    let rows = seen.iter().map(row).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(write_png(path, &stacked(&rows))?)
}

/// Writes the histograms of all blocks.
///
/// # Errors
/// When the file cannot be written.
pub fn draw_histograms(path: &Path, of_blocks: &[Histogram]) -> anyhow::Result<()> {
    let panel = histograms(of_blocks).context("there are no norms")?;
    Ok(write_png(path, &side_by_side(&[panel]))?)
}

fn panel(caption: &str, values: &Tensor, grid: [i64; 2]) -> anyhow::Result<Panel> {
    let caption = format!("{caption} {:.3} to {:.3}", values.min().double_value(&[]), values.max().double_value(&[]));
    Ok(Panel { caption, image: paint(values, grid)? })
}

fn paint(values: &Tensor, grid: [i64; 2]) -> anyhow::Result<RgbImage> {
    let values: Vec<f32> = Vec::try_from(values.to_kind(Kind::Float).view([-1]))?;
    let [rows, cols] = grid.map(|side| usize::try_from(side).unwrap_or_default());
    heat(&values, [rows, cols], None).context("a map does not fill its grid")
}
