//! Masks of the first frame of a video in its later ones, for all rows side by side.

use anyhow::Context as _;
use densevit::correspond::{Directions, PropagateOptions, Propagator};
use tch::Tensor;

use crate::{eval::rows::cells, segmentation::data::labels::Labels};

/// Propagators of all rows.
#[derive(Debug)]
pub struct Propagators {
    rows: Vec<Propagator>,
    /// Pixels a coarse cell of the backbone's input.
    patch: usize,
    /// Rows and columns of the coarse grid.
    coarse: [usize; 2],
}

impl Propagators {
    /// Begins with the maps of the first frame and its masks, which are given to cells by the label at each cell's middle. `maps` begin with
    /// a coarse one.
    ///
    /// # Errors
    /// When a map is empty.
    pub fn new(maps: &[Tensor], first: &Labels, options: PropagateOptions, patch: u32) -> anyhow::Result<Self> {
        let row = |map: &Tensor| {
            let directions = directions(map)?;
            let [rows, cols] = directions.grid();
            let labels = nearest(first, [rows, cols]);
            Ok(Propagator::new(options, directions, &labels.data)?)
        };
        let (_, _, rows, cols) = maps.first().context("there are no rows")?.size4()?;
        let coarse = [usize::try_from(rows)?, usize::try_from(cols)?];
        Ok(Self { rows: maps.iter().map(row).collect::<anyhow::Result<_>>()?, patch: patch as usize, coarse })
    }

    /// Labels of the next frame of each row, at `size` (rows, columns). As in the protocol: soft masks upsampled by the patch (so that doubled
    /// maps give twice the input's size), the largest label, and then the nearest one.
    ///
    /// # Errors
    /// When the maps are not those of a frame of the same size.
    pub fn next(&mut self, maps: &[Tensor], size: [u32; 2]) -> anyhow::Result<Vec<Labels>> {
        let mut labels = Vec::with_capacity(maps.len());
        for (propagator, map) in self.rows.iter_mut().zip(maps) {
            let directions = directions(map)?;
            let upsampled = directions.grid().map(|cells| cells * self.patch);
            let soft = propagator.next(directions)?;
            let [height, width] = [u32::try_from(upsampled[0])?, u32::try_from(upsampled[1])?];
            let full = Labels { height, width, data: soft.labels(upsampled) };
            labels.push(nearest(&full, size.map(|side| side as usize)));
        }
        Ok(labels)
    }

    /// Rows and columns of the coarse grid.
    #[must_use]
    pub fn coarse(&self) -> [usize; 2] {
        self.coarse
    }
}

fn directions(map: &Tensor) -> anyhow::Result<Directions> {
    let (values, grid) = cells(map)?;
    Directions::new(&values, grid).context("a map is empty")
}

/// Labels at another size: of each new pixel the one that its middle lies in.
#[must_use]
pub fn nearest(labels: &Labels, [rows, cols]: [usize; 2]) -> Labels {
    let place = |index: usize, n: usize, extent: u32| (index as f64 + 0.5) * f64::from(extent) / n as f64;
    let at = |row: usize, col: usize| labels.at(place(row, rows, labels.height), place(col, cols, labels.width));
    let data = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))).map(|(row, col)| at(row, col)).collect();
    let [height, width] = [rows, cols].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    Labels { height, width, data }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn labels_are_those_at_the_middle_of_new_pixels() {
        let labels = Labels { height: 2, width: 4, data: vec![0, 1, 2, 3, 4, 5, 6, 7] };
        assert_eq!(nearest(&labels, [1, 2]).data, [5, 7]);
        assert_eq!(nearest(&labels, [2, 8]).data[..8], [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(nearest(&labels, [2, 4]), labels);
    }

    #[test]
    fn a_still_frame_keeps_its_masks_at_every_resolution() {
        let labels = Labels { height: 8, width: 8, data: (0..64).map(|place| u8::from(place % 8 >= 4)).collect() };
        let map = |side: i64| {
            let right =
                Tensor::from_slice(&[0.0f32, 1.0]).repeat_interleave_self_int(side / 2, 0, None).expand([side, side], false);
            Tensor::stack(&[&right, &(1.0 - &right)], 0).unsqueeze(0).to_kind(Kind::Float).to_device(Device::Cpu)
        };
        let maps = [map(2), map(4)];
        let mut propagators = Propagators::new(&maps, &labels, PropagateOptions::default(), 4).unwrap();
        assert_eq!(propagators.coarse(), [2, 2]);
        for found in propagators.next(&maps, [8, 8]).unwrap() {
            assert_eq!(found, labels);
        }
    }
}
