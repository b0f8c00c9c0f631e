//! Examples in batches, read and stacked on another thread while the step before runs.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use half::f16;
use tch::{Kind, Tensor};

use crate::data::cache::{Example, read};

/// Batches that wait for the step.
const AHEAD: usize = 2;

/// What the loader must know to make tensors of examples.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Cells on a side of the full image's grid.
    pub grid: i64,
    /// Pixels on a side of the full image.
    pub size: i64,
    /// Channels of a descriptor.
    pub channels: i64,
    /// Channel means of the images, RGB in \[0, 1\].
    pub mean: [f32; 3],
    /// Channel standard deviations.
    pub std: [f32; 3],
}

/// Examples of one step.
///
/// # Shapes
/// - `images`: half and quarter, `[B, 3, S / 2, S / 2]` and `[B, 3, S / 4, S / 4]` f32, normalised
/// - `features`: full, half and quarter, `[B, C, h, w]` f32
#[derive(Debug)]
pub struct Batch {
    /// Half and quarter images.
    pub images: [Tensor; 2],
    /// Features of the three scales.
    pub features: [Tensor; 3],
    /// Files of the examples, for messages.
    pub files: Vec<PathBuf>,
}

/// Reads the batches of the steps from `first` on, in order.
#[derive(Debug)]
pub struct Loader {
    batches: Receiver<anyhow::Result<Batch>>,
    waited: Duration,
}

impl Loader {
    /// Starts reading. The order is a fresh shuffle of `files` each epoch, given by `seed` alone: step `n` sees the same examples in a
    /// run that was interrupted as in one that was not.
    #[must_use]
    pub fn start(files: Vec<PathBuf>, batch: usize, (first, end): (u64, u64), seed: u64, shape: Shape) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        thread::spawn(move || {
            for step in first..end {
                let files = order(&files, step, batch, seed);
                if sender.send(stack(files, shape)).is_err() {
                    return;
                }
            }
        });
        Self { batches, waited: Duration::ZERO }
    }

    /// The batch of the next step.
    ///
    /// # Errors
    /// When an example cannot be read, or after the last step.
    pub fn next_batch(&mut self) -> anyhow::Result<Batch> {
        let began = Instant::now();
        let batch = self.batches.recv().context("there are no more batches")?;
        self.waited += began.elapsed();
        batch
    }

    /// Time that steps have waited for batches.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// Files of a step. Epochs follow each other without a gap; a batch may span two.
fn order(files: &[PathBuf], step: u64, batch: usize, seed: u64) -> Vec<PathBuf> {
    let n = files.len() as u64;
    let mut shuffled: Option<(u64, Vec<usize>)> = None;
    let mut picked = Vec::with_capacity(batch);
    for position in step * batch as u64..(step + 1) * batch as u64 {
        let epoch = position / n;
        if shuffled.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut indices: Vec<usize> = (0..files.len()).collect();
            fastrand::Rng::with_seed(seed ^ epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15)).shuffle(&mut indices);
            shuffled = Some((epoch, indices));
        }
        let within = usize::try_from(position % n).unwrap_or_default();
        picked.extend(shuffled.as_ref().and_then(|(_, indices)| files.get(*indices.get(within)?)).cloned());
    }
    picked
}

/// Reads and stacks examples.
///
/// # Errors
/// When one cannot be read.
pub fn stack(files: Vec<PathBuf>, shape: Shape) -> anyhow::Result<Batch> {
    let examples = files.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<Example>>>()?;
    let n = i64::try_from(examples.len())?;
    let image = |pixels: fn(&Example) -> &Vec<u8>, side: i64| {
        let bytes: Vec<u8> = examples.iter().flat_map(|example| pixels(example).iter().copied()).collect();
        normalised(&Tensor::from_slice(&bytes).view([n, side, side, 3]), shape)
    };
    let map = |scale: usize, side: i64| {
        let values: Vec<f16> = examples.iter().flat_map(|example| example.features[scale].iter().copied()).collect();
        Tensor::from_slice(&values).view([n, side, side, shape.channels]).to_kind(Kind::Float).permute([0, 3, 1, 2]).contiguous()
    };
    Ok(Batch {
        images: [image(|example| &example.half, shape.size / 2), image(|example| &example.quarter, shape.size / 4)],
        features: [map(0, shape.grid), map(1, shape.grid / 2), map(2, shape.grid / 4)],
        files,
    })
}

/// `[B, H, W, 3]` u8 as `[B, 3, H, W]` f32, normalised as the backbone's graph does it.
pub fn normalised(pixels: &Tensor, shape: Shape) -> Tensor {
    let mean = Tensor::from_slice(&shape.mean).view([1, 3, 1, 1]);
    let std = Tensor::from_slice(&shape.std).view([1, 3, 1, 1]);
    ((pixels.to_kind(Kind::Float).permute([0, 3, 1, 2]) / 255.0 - mean) / std).contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_every_file_once_in_another_order() {
        let files: Vec<PathBuf> = (0..10).map(|idx| PathBuf::from(idx.to_string())).collect();
        let epoch = |first: u64| (first..first + 5).flat_map(|step| order(&files, step, 2, 7)).collect::<Vec<_>>();
        let (mut one, mut two) = (epoch(0), epoch(5));
        assert_ne!(one, two);
        one.sort();
        two.sort();
        assert_eq!((&one, &two), (&files, &files));
        assert_eq!(order(&files, 3, 4, 7), order(&files, 3, 4, 7));
    }
}
