//! Makes a model that can be served of a backbone that was trained.

use std::path::Path;

use densevit::{
    import::{CheckError, ImportOptions, import},
    manifest::{Facet, ModelEntry, Tap},
    tensor::RgbImage,
};
use tch::Device;

use crate::{
    backbone::Backbone,
    eval::to_tensor,
    install::{agrees, difference},
    pretrain::data::batch::NORMALISATION,
    vit::Vit,
};

/// Rows and columns of patches that served and trained backbone are compared on: a grid that neither was trained on.
const GRID: [u32; 2] = [3, 5];

/// Imports the backbone as `options` say, after the written graph gave what it gives in the training framework. Returns the model and the
/// largest difference, as a share of the largest value.
///
/// # Errors
/// When both differ, or a file cannot be read or written; nothing is left behind then.
pub fn install(options: &ImportOptions, vit: &mut Vit) -> anyhow::Result<(ModelEntry, f64)> {
    let mut found = f64::NAN;
    let imported = import(options, |entry| {
        found = compare(&entry.dir, vit)?;
        agrees(found)
    })?;
    Ok((imported.entry, found))
}

fn compare(dir: &Path, vit: &mut Vit) -> Result<f64, CheckError> {
    let layer = vit.arch().depth.saturating_sub(1);
    let image = pattern(vit.arch().patch).ok_or("the patch is too large")?;
    let mut served = Backbone::open(dir, |_default| Tap { facet: Facet::Token, layer }, Device::Cpu)?;
    let got = to_tensor(&served.features(&image)?).permute([0, 2, 3, 1]);
    let pixels = NORMALISATION.of(&image).to_device(vit.device());
    let expected = tch::no_grad(|| vit.taps(&pixels, &[layer], false));
    let expected = expected.into_iter().next().ok_or("the backbone has no blocks")?;
    Ok(difference(&got, &expected.to_device(Device::Cpu))?)
}

/// An image in which no two patches are alike.
fn pattern(patch: u32) -> Option<RgbImage> {
    let [height, width] = GRID.map(|cells| cells * patch);
    let value = |idx: u32| u8::try_from(idx.wrapping_mul(2_654_435_761) >> 24).unwrap_or_default();
    let data = (0..height * width * 3).map(value).collect();
    // As many values as the image has places.
    RgbImage::new(height, width, data)
}
