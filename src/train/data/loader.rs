//! Examples in batches, made and stacked on another thread while the step before runs.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use half::f16;
use tch::{Device, Kind, Tensor};

use crate::data::{cache::Example, normalisation::Normalisation};

/// Batches that wait for the step.
const AHEAD: usize = 2;

/// What the loader must know to make tensors of examples.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Cells on a side of the full image's grid.
    pub grid: i64,
    /// Pixels on a side of the full image.
    pub size: i64,
    /// Doublings that an example teaches.
    pub scales: u32,
    /// Channels of a descriptor.
    pub channels: i64,
    /// Of the images.
    pub normalisation: Normalisation,
    /// Where the steps run.
    pub device: Device,
}

/// Examples of one step.
///
/// # Shapes
/// - `images`: half, quarter and so on, `[B, 3, S / 2, S / 2]` f32, normalised; one a scale
/// - `features`: full, half, quarter and so on, `[B, C, h, w]` f32; one more
#[derive(Debug)]
pub struct Batch {
    /// Smaller images.
    pub images: Vec<Tensor>,
    /// Features of all images.
    pub features: Vec<Tensor>,
    /// Files of the examples, for messages.
    pub names: Vec<PathBuf>,
}

/// Makes batches, in order.
#[derive(Debug)]
pub struct Loader<B> {
    batches: Receiver<anyhow::Result<B>>,
    waited: Duration,
}

impl<B: Send + 'static> Loader<B> {
    /// Starts to make the batches of a range of numbers, which is all that a batch depends on: batch `n` holds the same examples in a
    /// run that was interrupted as in one that was not.
    #[must_use]
    pub fn start((first, end): (u64, u64), mut make: impl FnMut(u64) -> anyhow::Result<B> + Send + 'static) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        thread::spawn(move || (first..end).all(|step| sender.send(make(step)).is_ok()));
        Self { batches, waited: Duration::ZERO }
    }
}

impl<B> Loader<B> {
    /// The batch of the next step.
    ///
    /// # Errors
    /// When an example cannot be read, or after the last step.
    pub fn next_batch(&mut self) -> anyhow::Result<B> {
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

/// Epoch and index of each example of a step. The order is a fresh shuffle of the examples each epoch, given by `seed` alone. Epochs
/// follow each other without a gap; a batch may span two.
#[must_use]
pub fn order(n_examples: usize, step: u64, batch: usize, seed: u64) -> Vec<(u64, usize)> {
    let n = n_examples as u64;
    let mut shuffled: Option<(u64, Vec<usize>)> = None;
    let mut picked = Vec::with_capacity(batch);
    for position in step * batch as u64..(step + 1) * batch as u64 {
        let epoch = position / n;
        if shuffled.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut indices: Vec<usize> = (0..n_examples).collect();
            fastrand::Rng::with_seed(seed ^ epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15)).shuffle(&mut indices);
            shuffled = Some((epoch, indices));
        }
        let within = usize::try_from(position % n).unwrap_or_default();
        picked.extend(shuffled.as_ref().and_then(|(_, indices)| indices.get(within)).map(|idx| (epoch, *idx)));
    }
    picked
}

/// Stacks examples.
///
/// # Errors
/// When one holds fewer scales than `shape` says.
pub fn stack(examples: Vec<Example>, shape: Shape) -> anyhow::Result<Batch> {
    let n = i64::try_from(examples.len())?;
    let fits =
        |example: &&Example| example.images.len() + 1 == example.features.len() && example.images.len() >= shape.scales as usize;
    let odd = examples.iter().find(|example| !fits(example));
    ensure!(odd.is_none(), "{:?} holds fewer scales", odd.map(|example| &example.name));
    let image = |scale: u32| {
        let (idx, side) = (scale as usize - 1, shape.size >> scale);
        let bytes: Vec<u8> = examples.iter().flat_map(|example| example.images[idx].iter().copied()).collect();
        shape.normalisation.apply(&Tensor::from_slice(&bytes).view([n, side, side, 3]).to_device(shape.device))
    };
    let map = |scale: u32| {
        let (idx, side) = (scale as usize, shape.grid >> scale);
        let values: Vec<f16> = examples.iter().flat_map(|example| example.features[idx].iter().copied()).collect();
        let map = Tensor::from_slice(&values).view([n, side, side, shape.channels]).to_device(shape.device);
        map.to_kind(Kind::Float).permute([0, 3, 1, 2]).contiguous()
    };
    Ok(Batch {
        images: (1..=shape.scales).map(image).collect(),
        features: (0..=shape.scales).map(map).collect(),
        names: examples.into_iter().map(|example| example.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_every_file_once_in_another_order() {
        let epoch = |first: u64| (first..first + 5).flat_map(|step| order(10, step, 2, 7)).collect::<Vec<_>>();
        let (mut one, mut two) = (epoch(0), epoch(5));
        let indices = |epoch: &[(u64, usize)]| epoch.iter().map(|(_, idx)| *idx).collect::<Vec<_>>();
        assert_ne!(indices(&one), indices(&two));
        one.sort_unstable();
        two.sort_unstable();
        let all = |epoch| (0..10).map(|idx| (epoch, idx)).collect::<Vec<_>>();
        assert_eq!((one, two), (all(0), all(1)));
        assert_eq!(order(10, 3, 4, 7), order(10, 3, 4, 7));
    }
}
