//! Puts a trained head where the server finds it.

use std::path::Path;

use anyhow::{Context as _, ensure};
use densevit::{
    import::{CheckError, HeadOptions, install_head},
    manifest::{ModelEntry, Tap},
    tensor::RgbImage,
};
use tch::{Device, Tensor};

use crate::{
    backbone::Backbone,
    data::{cache, loader::Shape},
    eval::to_tensor,
    head,
};

/// Largest difference between the head as trained and as served, as a share of the largest value: single precision in another order.
const PARITY: f64 = 1e-4;

/// Writes the head in `file` into the model directory `model`, after the written graph gave, on a cached example, what the head gives
/// in the training framework. Returns the model and the largest difference, as a share of the largest value.
///
/// # Errors
/// When both differ, or a file cannot be read or written; the model stays as it was then.
pub fn install(model: &Path, file: &Path, example: &Path, shape: Shape, tap: Tap) -> anyhow::Result<(ModelEntry, f64)> {
    let mut difference = f64::NAN;
    // The head that was asked for goes in; one for masks that read through the old one has to be trained again.
    let options = HeadOptions { drop_reader: true, ..HeadOptions::new(file.to_path_buf()) };
    let entry = install_head(model, &options, |entry| {
        difference = compare(entry, file, example, shape, tap)?;
        agrees(difference)
    })?;
    Ok((entry, difference))
}

/// Refuses a served head that is further from the trained one than [`PARITY`].
pub(crate) fn agrees(difference: f64) -> Result<(), CheckError> {
    let agrees = difference <= PARITY;
    agrees.then_some(()).ok_or_else(|| format!("served, the head differs from the trained one by {difference:.1e}").into())
}

/// Largest difference between what the served head gives and what is expected, as a share of the largest expected value.
///
/// # Errors
/// When they differ in shape.
pub(crate) fn difference(got: &Tensor, expected: &Tensor) -> anyhow::Result<f64> {
    ensure!(got.size() == expected.size(), "served, the head gives {:?}, expected {:?}", got.size(), expected.size());
    Ok((got - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]))
}

/// Largest difference between the model's head and the one in `file` on the half-size image of an example, as a share of the largest
/// value.
fn compare(entry: &ModelEntry, file: &Path, example: &Path, shape: Shape, tap: Tap) -> anyhow::Result<f64> {
    let mut served = Backbone::open(&entry.dir, |_default| tap, Device::Cpu)?;
    let side = u32::try_from(shape.size / 2)?;
    let pixels = cache::read(example)?.images.into_iter().next();
    let image = pixels.and_then(|pixels| RgbImage::new(side, side, pixels)).context("the example holds another image")?;
    let (head, _shape) = head::open(file, served.channels(), served.patch())?;
    let features = to_tensor(&served.features(&image)?);
    let expected = tch::no_grad(|| head.forward(&served.normalisation().of(&image), &features, false));
    difference(&to_tensor(&served.doubled(&image)?), &expected)
}
