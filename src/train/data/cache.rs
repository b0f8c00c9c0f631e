//! Training examples on disk: the images that the head sees, and the backbone's features of all three scales.
//!
//! # Design
//! The backbone costs a hundred times the head, and it is frozen: every example is run once, whatever the number of epochs, forms and
//! widths that are tried on it. Features are kept in half precision; what that loses (about 2^-11 of a value) is far below the
//! distances that are trained. The folder's name holds all that an example depends on, so that nothing stale can be read.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    thread,
};

use anyhow::{Context as _, bail, ensure};
use densevit::tensor::{FeatureMap, RgbImage};
use half::f16;
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use sha2::{Digest as _, Sha256};

use crate::{
    backbone::Backbone,
    checkpoint,
    config::LiftConfig,
    data::{
        photos::Photo,
        view::{View, make_view},
    },
};

/// Views that wait for the backbone.
const AHEAD: usize = 4;

/// One example. Images are `[S, S, 3]` u8, features `[h, w, C]` f16.
#[derive(Clone, Debug)]
pub struct Example {
    /// Pixels of the half-size image.
    pub half: Vec<u8>,
    /// Pixels of the quarter-size image.
    pub quarter: Vec<u8>,
    /// Features of the full, half and quarter image.
    pub features: [Vec<f16>; 3],
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

/// Decodes on another thread than the backbone runs on.
fn run_missing(missing: &[&(&Photo, u32, PathBuf)], backbone: &mut Backbone, config: &LiftConfig) -> anyhow::Result<()> {
    let bar = ProgressBar::new(missing.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("features {bar:30} {pos}/{len}  {per_sec}  eta {eta}") {
        bar.set_style(style);
    }
    thread::scope(|scope| {
        let (sender, views) = sync_channel(AHEAD);
        scope.spawn(move || {
            for (photo, idx, file) in missing {
                if sender.send((make_view(&photo.path, &photo.digest, *idx, config), photo, file)).is_err() {
                    return;
                }
            }
        });
        for (view, photo, file) in views {
            match view {
                Ok(view) => write(&view, backbone, file)?,
                Err(problem) => bar.suspend(|| eprintln!("train: {} is skipped: it {problem}", photo.path.display())),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    })
}

fn write(view: &View, backbone: &mut Backbone, file: &Path) -> anyhow::Result<()> {
    let features = [&view.full, &view.half, &view.quarter].map(|image| backbone.features(image));
    let [full, half, quarter] = features;
    let maps = [halves(&full?), halves(&half?), halves(&quarter?)];
    let image = |image: &RgbImage| (vec![image.height() as usize, image.width() as usize, 3], image.data().to_vec());
    let mut named = vec![("half", Dtype::U8, image(&view.half)), ("quarter", Dtype::U8, image(&view.quarter))];
    for (name, map) in ["features_1", "features_2", "features_4"].into_iter().zip(maps) {
        named.push((name, Dtype::F16, map));
    }
    let views = named.iter().map(|(name, dtype, (shape, bytes))| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let bytes = serialize(views.collect::<anyhow::Result<Vec<_>>>()?, None)?;
    checkpoint::write_bytes(file, &bytes)
}

fn halves(map: &FeatureMap) -> (Vec<usize>, Vec<u8>) {
    let values: Vec<f16> = map.data().iter().map(|value| f16::from_f32(*value)).collect();
    (vec![map.rows(), map.cols(), map.channels()], bytemuck::cast_slice(&values).to_vec())
}

/// Reads an example.
///
/// # Errors
/// When the file is not what [`fill`] wrote.
pub fn read(file: &Path) -> anyhow::Result<Example> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let tensors = SafeTensors::deserialize(&bytes).with_context(|| format!("reading {}", file.display()))?;
    let image = |name: &str| Ok::<_, anyhow::Error>(tensors.tensor(name)?.data().to_vec());
    let map = |name: &str| {
        let data = tensors.tensor(name)?.data();
        Ok::<_, anyhow::Error>(data.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect())
    };
    Ok(Example {
        half: image("half")?,
        quarter: image("quarter")?,
        features: [map("features_1")?, map("features_2")?, map("features_4")?],
    })
}

/// Name of the folder: digest of all that an example depends on.
fn key(backbone: &Backbone, config: &LiftConfig) -> String {
    let LiftConfig { size, downscale, framing, seed, .. } = config;
    let text =
        format!("{} {} {size} {downscale:?} {framing:?} {seed}", backbone.entry().manifest.backbone.sha256, backbone.tap());
    let digest: String = Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{digest}", backbone.entry().manifest.name)
}

fn example_bytes(backbone: &Backbone, config: &LiftConfig) -> u64 {
    let n_cells: u64 = [1, 2, 4].map(|factor| u64::from(config.size / factor / backbone.patch()).pow(2)).iter().sum();
    let n_pixels: u64 = [2, 4].map(|factor| u64::from(config.size / factor).pow(2)).iter().sum();
    n_cells * backbone.channels() as u64 * 2 + n_pixels * 3 + 1024
}
