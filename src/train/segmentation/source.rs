//! Where examples come from, and batches of them.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, ensure};
use tch::{Device, Kind, Tensor};

use crate::{
    data::threads::make_all,
    segmentation::{
        cache::make_example,
        data::{
            example::{Content, Example},
            layout::Dataset,
            recipe::{Recipe, strided},
            view::View,
        },
        features::Features,
    },
};

/// Where examples come from.
#[derive(Debug)]
pub enum Supply {
    /// Features on disk, by sample and view.
    Cached(Vec<Vec<PathBuf>>),
    /// Features of new views in every epoch.
    Live(Features),
    /// Images of new views in every epoch, for a backbone that learns.
    Images,
}

/// A split of a data set as examples.
#[derive(Debug)]
pub struct Source {
    /// The split.
    pub dataset: Arc<Dataset>,
    /// How views are made.
    pub recipe: Recipe,
    /// Where they come from.
    pub supply: Supply,
}

/// What a run is given.
///
/// # Shapes
/// - pixels: `[B, H, W, 3]` u8
/// - maps: `[B, h, w, C]` f32 each
#[derive(Debug)]
pub enum Given {
    /// Images, for a backbone that learns.
    Pixels(Tensor),
    /// Features of a frozen one, one a tap.
    Maps(Vec<Tensor>),
}

/// Examples of one pass.
///
/// # Shapes
/// - `labels`: `[B, H', W']` i64
#[derive(Debug)]
pub struct Batch {
    /// What the run is given.
    pub given: Given,
    /// What should come out.
    pub labels: Tensor,
    /// The images, for messages.
    pub names: Vec<PathBuf>,
}

impl Source {
    /// Number of examples of an epoch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dataset.samples.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the examples with these epochs and indices.
    ///
    /// # Errors
    /// When an image or its labels cannot be used (the file is named), or the backbone fails.
    pub fn read(&mut self, picked: &[(u64, usize)]) -> anyhow::Result<Vec<Example>> {
        let name = |idx: usize| self.dataset.samples[idx].image.clone();
        if let Supply::Cached(files) = &self.supply {
            let file = |(epoch, idx): &(u64, usize)| {
                let views = &files[*idx];
                let view = usize::try_from(epoch % views.len().max(1) as u64)?;
                Example::read(&views[view], &name(*idx))
            };
            return picked.iter().map(file).collect();
        }
        let make =
            |(epoch, idx): &(u64, usize)| self.recipe.view(&self.dataset.samples[*idx], &self.dataset.classes, (*epoch, *idx));
        let views = make_all(picked, make);
        let mut examples = Vec::with_capacity(picked.len());
        for ((_, idx), view) in picked.iter().zip(views) {
            let name = self.dataset.samples[*idx].image.clone();
            let view: View = view.with_context(|| format!("{} broke the decoder", name.display()))??;
            examples.push(match &mut self.supply {
                Supply::Live(features) => make_example(view, features, &name)?,
                _ => Example { name, content: Content::Pixels(view.image), labels: view.labels },
            });
        }
        Ok(examples)
    }
}

/// Stacks examples; of the labels every `stride`-th row and column.
///
/// # Errors
/// When they differ in size or kind.
pub fn stack(examples: Vec<Example>, stride: u32, device: Device) -> anyhow::Result<Batch> {
    let labels: Vec<_> = examples.iter().map(|example| strided(&example.labels, stride)).collect();
    let first = labels.first().context("a batch has an example")?;
    let size = [i64::from(first.height), i64::from(first.width)];
    ensure!(labels.iter().all(|other| (other.height, other.width) == (first.height, first.width)), "examples differ in size");
    let labels: Vec<Tensor> = labels.iter().map(|labels| Tensor::from_slice(&labels.data).view(size)).collect();
    let labels = Tensor::stack(&labels, 0).to_device(device).to_kind(Kind::Int64);
    let given = given(&examples)?.on(device);
    Ok(Batch { given, labels, names: examples.into_iter().map(|example| example.name).collect() })
}

/// What a run is given of examples of one size.
///
/// # Errors
/// When they differ in kind.
pub fn given(examples: &[Example]) -> anyhow::Result<Given> {
    let mut pixels: Vec<Tensor> = Vec::new();
    let mut maps: Vec<Vec<Tensor>> = Vec::new();
    for example in examples {
        match &example.content {
            Content::Pixels(image) => {
                let size = [i64::from(image.height()), i64::from(image.width()), 3];
                pixels.push(Tensor::from_slice(image.data()).view(size));
            }
            Content::Maps(of_taps) => {
                maps.resize_with(maps.len().max(of_taps.len()), Vec::new);
                maps.iter_mut().zip(of_taps).for_each(|(stack, map)| stack.push(map.tensor()));
            }
        }
    }
    ensure!(pixels.is_empty() != maps.is_empty(), "examples differ in kind");
    if maps.is_empty() {
        return Ok(Given::Pixels(Tensor::stack(&pixels, 0)));
    }
    Ok(Given::Maps(maps.iter().map(|stack| Tensor::cat(stack, 0)).collect()))
}

impl Given {
    /// The same on a device.
    #[must_use]
    pub fn on(self, device: Device) -> Self {
        match self {
            Self::Pixels(pixels) => Self::Pixels(pixels.to_device(device)),
            Self::Maps(maps) => Self::Maps(maps.iter().map(|map| map.to_device(device)).collect()),
        }
    }
}
