//! Puts a trained segmentation head where the server finds it.

use std::path::Path;

use densevit::{
    import::{SegmentOptions, install_segmenter},
    manifest::ModelEntry,
    tensor::RgbImage,
};
use tch::Device;

use crate::{
    install,
    segmentation::{
        features::{Model, Reading},
        head,
        segmenter::inferred,
    },
};

/// Writes the head in `file` into the model directory `model`, after the written graph gave, on `image`, the scores that the head gives in
/// the training framework. Returns the model and the largest difference, as a share of the largest score.
///
/// # Errors
/// When both differ, or a file cannot be read or written; the model stays as it was then.
pub fn install(model: &Path, file: &Path, image: &RgbImage) -> anyhow::Result<(ModelEntry, f64)> {
    let mut difference = f64::NAN;
    let entry = install_segmenter(model, &SegmentOptions::new(file.to_path_buf()), |entry| {
        difference = compare(entry, file, image)?;
        install::agrees(difference)
    })?;
    Ok((entry, difference))
}

/// Largest difference between the scores of the model's head and of the one in `file` on an image, as a share of the largest score.
fn compare(entry: &ModelEntry, file: &Path, image: &RgbImage) -> anyhow::Result<f64> {
    let opened = head::open(file, i64::from(entry.manifest.architecture.width), Device::Cpu)?;
    let reading = Reading { taps: opened.card.taps, input: opened.card.input, downsample: None, drop_path: 0.0 };
    let mut features = Model { entry: entry.clone() }.served(reading, Device::Cpu)?;
    // The same sessions give both.
    let got = features.scores(image)?;
    let output = inferred(&opened.head, &features.maps(image)?);
    let expected = output.scores(output.grid().map(|cells| cells * i64::from(opened.card.upscale))).permute([0, 2, 3, 1]);
    install::difference(&got, &expected)
}
