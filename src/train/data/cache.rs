//! Training examples on disk: the images that the head sees, and the backbone's features of all three scales.
//!
//! # Design
//! The backbone costs a hundred times the head, and it is frozen: every example is run once, whatever the number of epochs, forms and
//! widths that are tried on it. Features are kept in half precision; what that loses (about 2^-11 of a value) is far below the
//! distances that are trained. The folder's name holds all that an example depends on, so that nothing stale can be read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use densevit::tensor::FeatureMap;
use half::f16;
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use sha2::{Digest as _, Sha256};

use crate::{
    backbone::Backbone,
    checkpoint,
    config::LiftConfig,
    data::{
        photos::Photo,
        threads::make_and_take,
        view::{View, make_view},
    },
};

/// One example. Images are `[S, S, 3]` u8, features `[h, w, C]` f16.
#[derive(Clone, Debug)]
pub struct Example {
    /// The file that it comes from, for messages.
    pub name: PathBuf,
    /// Pixels of the half-size image, the quarter-size image and so on, one a scale.
    pub images: Vec<Vec<u8>>,
    /// Features of the full image, then of those.
    pub features: Vec<Vec<f16>>,
}

/// Makes every example that is not there yet; returns the files, by photo and view. Photos that cannot be read are reported and left
/// out; when none can be read, that is an error.
///
/// # Errors
/// When the folder would exceed `max_bytes`, cannot be written, or the backbone fails.
pub fn fill(
    photos: &[Photo],
    backbone: &mut Backbone,
    config: &LiftConfig,
    (folder, max_bytes): (&Path, u64),
) -> anyhow::Result<Vec<PathBuf>> {
    let folder = folder.join(key(backbone, config));
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let n_bytes = (photos.len() as u64) * u64::from(config.views) * example_bytes(backbone, config);
    ensure!(
        n_bytes <= max_bytes,
        "{} examples need {n_bytes} bytes in {}, the limit is {max_bytes} (--cache-bytes)",
        photos.len(),
        folder.display()
    );
    let file =
        |photo: &Photo, idx: u32| folder.join(format!("{}-{idx}.safetensors", photo.digest.get(..24).unwrap_or(&photo.digest)));
    let wanted: Vec<(&Photo, u32, PathBuf)> = photos
        .iter()
        .flat_map(|photo| (0..config.views).map(move |idx| (photo, idx)))
        .map(|(photo, idx)| (photo, idx, file(photo, idx)))
        .collect();
    let missing: Vec<_> = wanted.iter().filter(|(_, _, file)| !file.is_file()).collect();
    run_missing(&missing, backbone, config)?;
    let files: Vec<PathBuf> = wanted.into_iter().map(|(_, _, file)| file).filter(|file| file.is_file()).collect();
    if files.is_empty() && !photos.is_empty() {
        bail!("none of the {} photos can be used", photos.len());
    }
    Ok(files)
}

/// The order of arrival does not matter, each example has its own file.
fn run_missing(missing: &[&(&Photo, u32, PathBuf)], backbone: &mut Backbone, config: &LiftConfig) -> anyhow::Result<()> {
    let make = |(photo, idx, _): &&(&Photo, u32, PathBuf)| make_view(&photo.path, &photo.digest, *idx, config);
    make_and_take(missing, make, |(photo, _, file), view, bar| {
        match view {
            Ok(view) => write(&make_example(&view, backbone, &photo.path)?, file)?,
            Err(problem) => bar.suspend(|| eprintln!("train: {} is skipped: it {problem}", photo.path.display())),
        }
        Ok(())
    })
}

/// Runs the backbone on the images of a view.
///
/// # Errors
/// When the backbone fails.
pub fn make_example(view: &View, backbone: &mut Backbone, name: &Path) -> anyhow::Result<Example> {
    let halves = |map: FeatureMap| map.data().iter().map(|value| f16::from_f32(*value)).collect();
    let all = std::iter::once(&view.full).chain(&view.smaller);
    Ok(Example {
        name: name.to_path_buf(),
        images: view.smaller.iter().map(|image| image.data().to_vec()).collect(),
        features: all.map(|image| backbone.features(image).map(halves)).collect::<anyhow::Result<_>>()?,
    })
}

fn write(example: &Example, file: &Path) -> anyhow::Result<()> {
    let images = example.images.iter().enumerate().map(|(idx, pixels)| (image_name(idx), Dtype::U8, pixels.as_slice()));
    let maps = example.features.iter().enumerate();
    let maps = maps.map(|(idx, values)| (map_name(idx), Dtype::F16, bytemuck::cast_slice(values)));
    // The shapes follow from the settings that name the folder; the file need not know them.
    let views = images.chain(maps).map(|(name, dtype, bytes)| {
        let n_values = bytes.len() / if dtype == Dtype::F16 { 2 } else { 1 };
        Ok((name, TensorView::new(dtype, vec![n_values], bytes)?))
    });
    let bytes = serialize(views.collect::<anyhow::Result<Vec<_>>>()?, None)?;
    checkpoint::write_bytes(file, &bytes)
}

fn image_name(idx: usize) -> String {
    format!("image_{}", 2 << idx)
}

fn map_name(idx: usize) -> String {
    format!("features_{}", 1 << idx)
}

/// Reads an example.
///
/// # Errors
/// When the file is not what [`fill`] wrote.
pub fn read(file: &Path) -> anyhow::Result<Example> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let tensors = SafeTensors::deserialize(&bytes).with_context(|| format!("reading {}", file.display()))?;
    let find = |name: String| tensors.tensor(&name).ok();
    let images = (0..).map_while(|idx| find(image_name(idx))).map(|pixels| pixels.data().to_vec());
    let half = |pair: &[u8]| f16::from_le_bytes([pair[0], pair[1]]);
    let maps = (0..).map_while(|idx| find(map_name(idx))).map(|map| map.data().chunks_exact(2).map(half).collect());
    Ok(Example { name: file.to_path_buf(), images: images.collect(), features: maps.collect() })
}

/// Name of the folder: digest of all that an example depends on.
fn key(backbone: &Backbone, config: &LiftConfig) -> String {
    let LiftConfig { size, scales, downscale, framing, jitter, seed, .. } = config;
    let (graph, tap) = (&backbone.entry().manifest.backbone.sha256, backbone.tap());
    let text = format!("{graph} {tap} {size} {scales} {downscale:?} {framing:?} {jitter} {seed}");
    let digest: String = Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{digest}", backbone.entry().manifest.name)
}

fn example_bytes(backbone: &Backbone, config: &LiftConfig) -> u64 {
    let n_cells: u64 = (0..=config.scales).map(|scale| u64::from((config.size >> scale) / backbone.patch()).pow(2)).sum();
    let n_pixels: u64 = (1..=config.scales).map(|scale| u64::from(config.size >> scale).pow(2)).sum();
    n_cells * backbone.channels() as u64 * 2 + n_pixels * 3 + 1024
}
