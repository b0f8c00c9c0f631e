//! Which patches speak for a patch: those of the eight around it that are most like it (SelfPatch, section 3.1).
//!
//! # Design
//! The authors' code counts rows and columns round the border, which makes patches of opposite sides neighbours; the paper speaks of
//! neighbours in the image. Both are here; what goes round the border is the default, as published. A patch is never its own neighbour and
//! none counts twice, which matters on grids of fewer than three rows or columns only.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// What lies beyond the border of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Border {
    /// The opposite side, as in the authors' code.
    Wrap,
    /// Nothing: patches at the border have fewer neighbours.
    Valid,
}

/// The patches around each patch of a grid.
///
/// # Shapes
/// - `indices`: `[N, 8]` i64, ascending; where there are fewer, the patch itself fills up
/// - `is_there`: `[N, 8]` bool
#[derive(Debug)]
pub struct Around {
    /// Patches, row by row.
    pub indices: Tensor,
    /// Which of them are neighbours.
    pub is_there: Tensor,
}

/// Neighbours that were chosen.
///
/// # Shapes
/// - `indices`: `[B, N, k]` i64
/// - `is_there`: `[B, N, k]` bool
#[derive(Debug)]
pub struct Chosen {
    /// Patches of the same image.
    pub indices: Tensor,
    /// Which of them are neighbours.
    pub is_there: Tensor,
}

impl Around {
    /// The patches around each of a grid of rows and columns.
    #[must_use]
    pub fn new(grid: [i64; 2], border: Border, device: Device) -> Self {
        let n = grid[0] * grid[1];
        let lists: Vec<Vec<i64>> = (0..n).map(|idx| around(idx, grid, border)).collect();
        let padded =
            |(idx, list): (i64, &Vec<i64>)| list.iter().copied().chain(std::iter::repeat(idx)).take(8).collect::<Vec<_>>();
        let indices: Vec<i64> = (0..).zip(&lists).flat_map(padded).collect();
        let is_there: Vec<bool> = lists.iter().flat_map(|list| (0..8).map(|place| place < list.len())).collect();
        Self {
            indices: Tensor::from_slice(&indices).view([n, 8]).to_device(device),
            is_there: Tensor::from_slice(&is_there).view([n, 8]).to_device(device),
        }
    }

    /// The `k` neighbours of each patch whose tokens are closest to its own in direction.
    ///
    /// # Shapes
    /// - `tokens`: `[B, N, D]` f32
    pub fn choose(&self, tokens: &Tensor, k: i64) -> Chosen {
        let size = tokens.size();
        let norms = tokens.norm_scalaropt_dim(2, [-1], true).clamp_min(1e-12);
        let directions = tokens / norms;
        let of_neighbours = directions.index_select(1, &self.indices.view([-1])).view([size[0], size[1], 8, size[2]]);
        let likeness = (of_neighbours * directions.unsqueeze(2)).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        let likeness = likeness.masked_fill(&self.is_there.logical_not(), f64::NEG_INFINITY);
        let (_likeness, places) = likeness.topk(k.min(8), -1, true, true);
        let pick = |of: &Tensor| of.unsqueeze(0).expand([size[0], -1, -1], false).gather(2, &places, false);
        Chosen { indices: pick(&self.indices), is_there: pick(&self.is_there) }
    }
}

/// Neighbours of a patch, each once, ascending.
fn around(idx: i64, [rows, cols]: [i64; 2], border: Border) -> Vec<i64> {
    let (row, col) = (idx / cols, idx % cols);
    let shifts = (-1..=1).flat_map(|down| (-1..=1).map(move |right| (row + down, col + right)));
    let is_inside = |(row, col): &(i64, i64)| (0..rows).contains(row) && (0..cols).contains(col);
    let inside = shifts.filter(|place| border == Border::Wrap || is_inside(place));
    let mut found: Vec<i64> = inside.map(|(row, col)| row.rem_euclid(rows) * cols + col.rem_euclid(cols)).collect();
    found.retain(|other| *other != idx);
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_wrap_to_the_other_sides_or_have_three_neighbours() {
        assert_eq!(around(0, [14, 14], Border::Wrap), [1, 13, 14, 15, 27, 182, 183, 195]);
        assert_eq!(around(0, [14, 14], Border::Valid), [1, 14, 15]);
        // 3 x 4: the second of the top row, and the one in the middle.
        assert_eq!(around(1, [3, 4], Border::Valid), [0, 2, 4, 5, 6]);
        assert_eq!(around(1, [3, 4], Border::Wrap), [0, 2, 4, 5, 6, 8, 9, 10]);
        assert_eq!(around(5, [3, 4], Border::Valid), [0, 1, 2, 4, 6, 8, 9, 10]);
    }

    #[test]
    fn small_grids_have_each_neighbour_once_and_never_the_patch_itself() {
        assert_eq!(around(0, [2, 2], Border::Wrap), [1, 2, 3]);
        assert_eq!(around(0, [1, 3], Border::Wrap), [1, 2]);
        assert!(around(0, [1, 1], Border::Wrap).is_empty() && around(0, [1, 1], Border::Valid).is_empty());
    }

    #[test]
    fn those_most_alike_are_chosen_and_missing_ones_come_last() {
        // A row of four patches that turn further and further away from the first.
        let angles = Tensor::from_slice(&[0f32, 0.2, 0.9, 1.5]);
        let tokens = Tensor::stack(&[angles.cos(), angles.sin()], -1).unsqueeze(0) * 3.0;
        let chosen = |border, k| {
            let Chosen { indices, is_there } = Around::new([1, 4], border, Device::Cpu).choose(&tokens, k);
            let flat = |tensor: &Tensor| Vec::<i64>::try_from(tensor.to_kind(Kind::Int64).view([-1])).unwrap_or_default();
            (flat(&indices), flat(&is_there))
        };
        assert_eq!(chosen(Border::Wrap, 1).0, [1, 0, 3, 2]);
        assert_eq!(chosen(Border::Valid, 1).0, [1, 0, 3, 2]);
        // At the ends there is one neighbour; the patch itself stands in the place of the other, and does not count.
        assert_eq!(chosen(Border::Valid, 2), (vec![1, 0, 0, 2, 3, 1, 2, 3], vec![1, 0, 1, 1, 1, 1, 1, 0]));
    }
}
