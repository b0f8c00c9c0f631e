//! Features of views on disk, for a frozen backbone, which costs far more than the head.
//!
//! # Design
//! Each image has a few fixed views, and epoch `n` sees view `n` modulo their number. A file's name holds the contents that it came from,
//! the folder's all else that an example depends on, so that nothing stale can be read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use densevit::manifest::{sha256, sha256_file};

use crate::{
    data::threads::make_and_take,
    segmentation::{
        data::{
            DataError,
            example::{Content, Example, Map},
            layout::{Dataset, Sample},
            recipe::Recipe,
            view::View,
        },
        features::Features,
    },
};

/// Where features are kept.
#[derive(Clone, Debug)]
pub struct Place {
    /// Folder of all caches.
    pub folder: PathBuf,
    /// Most bytes of one run.
    pub max_bytes: u64,
    /// What the features depend on beside the images: backbone, taps and so on.
    pub key: String,
}

/// Which examples are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// So many random views of each image.
    Views(u32),
    /// The whole image.
    Whole,
}

/// Makes every example that is not there yet. Returns the files of each sample.
///
/// # Errors
/// When an image or its labels cannot be used, the folder would exceed its bytes or cannot be written, or the backbone fails.
pub fn fill(
    dataset: &Dataset,
    features: &mut Features,
    recipe: &Recipe,
    place: &Place,
    kind: Kind,
) -> anyhow::Result<Vec<Vec<PathBuf>>> {
    let folder = place.folder.join(folder_name(dataset, recipe, place, kind));
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let n_views = if let Kind::Views(n_views) = kind { n_views } else { 1 };
    let mut files: Vec<Vec<PathBuf>> = Vec::with_capacity(dataset.samples.len());
    for (idx, sample) in dataset.samples.iter().enumerate() {
        let digest = digest(sample)?;
        files.push((0..n_views).map(|view| folder.join(format!("{digest}-{idx}-{view}.safetensors"))).collect());
    }
    let wanted = files.iter().enumerate().flat_map(|(idx, files)| (0u64..).zip(files).map(move |(view, file)| (idx, view, file)));
    let missing: Vec<(usize, u64, &PathBuf)> = wanted.filter(|(_, _, file)| !file.is_file()).collect();
    let make = |(idx, view, _): &(usize, u64, &PathBuf)| {
        let sample = &dataset.samples[*idx];
        match kind {
            Kind::Views(_) => recipe.view(sample, &dataset.classes, (*view, *idx)),
            Kind::Whole => recipe.whole(sample, &dataset.classes),
        }
    };
    make_and_take(&missing, make, |(idx, _, file), view: Result<View, DataError>, _bar| {
        let example = make_example(view?, features, &dataset.samples[*idx].image)?;
        let n_bytes = example.n_bytes() * (dataset.samples.len() as u64) * u64::from(n_views);
        ensure!(
            n_bytes <= place.max_bytes,
            "{} examples need about {n_bytes} bytes in {}, the limit is {} (--cache-bytes)",
            dataset.samples.len() * n_views as usize,
            folder.display(),
            place.max_bytes
        );
        example.write(file)
    })?;
    Ok(files)
}

/// Runs the backbone on a view.
///
/// # Errors
/// When it fails.
pub fn make_example(view: View, features: &mut Features, name: &Path) -> anyhow::Result<Example> {
    let maps = features.maps(&view.image)?.iter().map(Map::new).collect::<anyhow::Result<_>>()?;
    Ok(Example { name: name.to_path_buf(), content: Content::Maps(maps), labels: view.labels })
}

/// Of the contents of an image and its labels.
fn digest(sample: &Sample) -> anyhow::Result<String> {
    let part = |file: &Path| -> anyhow::Result<String> {
        let digest = sha256_file(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(digest.get(..12).unwrap_or_default().to_owned())
    };
    Ok(format!("{}-{}", part(&sample.image)?, part(&sample.labels)?))
}

fn folder_name(dataset: &Dataset, recipe: &Recipe, place: &Place, kind: Kind) -> String {
    let text = match kind {
        Kind::Views(_) => format!("{} {recipe:?} {:?}", place.key, dataset.classes),
        // Whole images depend on the size alone.
        Kind::Whole => format!("{} {:?} {:?} {:?}", place.key, recipe.augmentation.size, recipe.pixels, dataset.classes),
    };
    let name = if kind == Kind::Whole { "whole" } else { "views" };
    format!("segment-{name}-{}", sha256(text.as_bytes()).get(..16).unwrap_or_default())
}
