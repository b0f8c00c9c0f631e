//! Runs photos through a backbone and gathers what tells of its tokens.

use std::path::Path;

use densevit::tensor::RgbImage;
use tch::{Device, Kind, Tensor};

use crate::{
    data::{normalisation::Normalisation, square::middle},
    tokens::probes::Asked,
    vit::{Vit, Watched},
};

/// How photos are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Side of the square from the middle of a photo, in pixels; a multiple of the patch.
    pub size: u32,
    /// What the backbone does to pixels first.
    pub normalisation: Normalisation,
    /// Where it runs.
    pub device: Device,
}

/// Of one photo.
///
/// # Shapes
/// - `norms`: `[L, h * w]` f32, of the patches after each block
/// - `likeness`: `[h * w]` f32, mean cosine of a patch to the four around it, at the patch embedding
/// - `attention`: `[T, h * w]` f32, of class token and registers in the last block, mean of the heads
/// - `tokens`: `[h * w, D]` f32, after the final norm
/// - `pixels`: `[h * w, 3 p p]` f32, normalised
#[derive(Debug)]
pub struct Seen {
    /// What was looked at.
    pub image: RgbImage,
    /// Norms of the patches after each block.
    pub norms: Tensor,
    /// Likeness of each patch to those around it.
    pub likeness: Tensor,
    /// Where class token and registers look.
    pub attention: Tensor,
    /// Whether the first of them is the class token.
    pub has_cls: bool,
    /// Final tokens of the patches.
    pub tokens: Tensor,
    /// The patches themselves.
    pub pixels: Tensor,
    /// Rows and columns of patches.
    pub grid: [i64; 2],
}

/// Looks at one photo.
///
/// # Errors
/// When it cannot be read.
pub fn see(vit: &mut Vit, path: &Path, look: Look) -> anyhow::Result<Seen> {
    let image = middle(path, 1.0, look.size, vit.arch().patch)?;
    let pixels = look.normalisation.of(&image).to_device(look.device);
    let patch = i64::from(vit.arch().patch);
    tch::no_grad(|| {
        let watched = vit.watch(&pixels);
        let [rows, cols] = watched.grid;
        let norm = |tokens: &Tensor| watched.patches(tokens).get(0).norm_scalaropt_dim(2, [1i64].as_slice(), false);
        let norms: Vec<Tensor> = watched.blocks.iter().map(norm).collect();
        let of_patches = pixels.view([1, 3, rows, patch, cols, patch]).permute([0, 2, 4, 1, 3, 5]);
        let cpu = |tensor: Tensor| tensor.to_device(Device::Cpu).contiguous();
        Ok(Seen {
            image,
            norms: cpu(Tensor::stack(&norms, 0)),
            likeness: cpu(likeness(&watched.embedded.get(0)).view([-1])),
            attention: cpu(attention(&watched)),
            tokens: cpu(watched.patches(&watched.normed).get(0)),
            pixels: cpu(of_patches.reshape([rows * cols, 3 * patch * patch])),
            grid: watched.grid,
            has_cls: watched.has_cls,
        })
    })
}

/// All patches of some photos, for the probes. `is_outlier` tells of the norms `[h * w]` of a photo after one block.
#[must_use]
pub fn asked(seen: &[Seen], is_outlier: impl Fn(&Seen) -> Tensor) -> Asked {
    let join = |of: &dyn Fn(&Seen) -> Tensor| Tensor::cat(&seen.iter().map(of).collect::<Vec<_>>(), 0);
    Asked {
        tokens: join(&|seen| seen.tokens.shallow_clone()),
        cells: join(&|seen| Tensor::arange(seen.grid[0] * seen.grid[1], (Kind::Int64, Device::Cpu))),
        pixels: join(&|seen| seen.pixels.shallow_clone()),
        is_outlier: join(&is_outlier),
    }
}

/// Mean cosine of each cell to those beside, above and below it, `[h, w]`, of a map `[h, w, D]`.
fn likeness(map: &Tensor) -> Tensor {
    let unit = map / map.norm_scalaropt_dim(2, [2i64].as_slice(), true).clamp_min(1e-12);
    let size = unit.size();
    let sum = Tensor::zeros([size[0], size[1]], (Kind::Float, map.device()));
    let n = sum.zeros_like();
    for dim in [0i64, 1] {
        let extent = size[usize::from(dim == 1)];
        let (ahead, behind) = (unit.narrow(dim, 1, extent - 1), unit.narrow(dim, 0, extent - 1));
        let cosine = (ahead * behind).sum_dim_intlist([2i64].as_slice(), false, Kind::Float);
        for begin in [0, 1] {
            let _ = sum.narrow(dim, begin, extent - 1).g_add_(&cosine);
            let _ = n.narrow(dim, begin, extent - 1).g_add_scalar_(1);
        }
    }
    sum / n.clamp_min(1.0)
}

/// Attention of the first tokens to the patches, `[T, h * w]`.
fn attention(watched: &Watched) -> Tensor {
    let of_heads = watched.attention.get(0).mean_dim([0i64].as_slice(), false, Kind::Float);
    of_heads.narrow(1, watched.n_prefix, watched.grid[0] * watched.grid[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_compared_with_the_two_to_four_around_them() {
        // Columns of equal cells; those of the middle column are orthogonal to the others.
        let [a, b] = [[1f32, 0.0], [0.0, 2.0]].map(|cell| Tensor::from_slice(&cell));
        let row = Tensor::stack(&[a.shallow_clone(), b, a], 0);
        let map = Tensor::stack(&[row.shallow_clone(), row.shallow_clone(), row], 0);
        let likeness = likeness(&map);
        // A corner: below 1, beside 0. An edge of an outer column: above and below 1, beside 0. The middle: above and below 1, beside 0.
        let expected = [[0.5, 1.0 / 3.0, 0.5], [2.0 / 3.0, 0.5, 2.0 / 3.0]];
        for (row, values) in expected.iter().enumerate() {
            for (col, value) in values.iter().enumerate() {
                let found = likeness.double_value(&[i64::from(row as u8), i64::from(col as u8)]);
                assert!((found - value).abs() < 1e-6, "{row} {col}: {found}");
            }
        }
    }
}
