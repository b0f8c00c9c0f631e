//! A LiFT head for 384 channels with random weights, under the official names.

use std::path::Path;

use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

/// Channels of the default backbone.
const C: usize = 384;

/// Writes the head as a safetensors file.
pub fn write(path: &Path) -> anyhow::Result<()> {
    let up = (C + 32) / 2;
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut conv_bn = |conv: &str, norm: &str, shape: [usize; 4], has_bias: bool| {
        shapes.push((format!("{conv}.weight"), shape.to_vec()));
        if has_bias {
            shapes.push((format!("{conv}.bias"), vec![shape[0]]));
        }
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{norm}.{part}"), vec![shape[0]]));
        }
    };
    conv_bn("image_convs_1.0", "image_convs_1.1", [32, 3, 3, 3], true);
    conv_bn("image_convs_1.3", "image_convs_1.4", [32, 32, 3, 3], true);
    conv_bn("image_convs_2.0", "image_convs_2.1", [32, 32, 3, 3], true);
    conv_bn("up1.conv_1.double_conv.0", "up1.conv_1.double_conv.1", [C / 2, up + 32, 3, 3], false);
    conv_bn("up1.conv_1.double_conv.3", "up1.conv_1.double_conv.4", [C / 2, C / 2, 3, 3], false);
    shapes.push(("up1.up.weight".into(), vec![C + 32, up, 2, 2]));
    shapes.push(("up1.up.bias".into(), vec![up]));
    shapes.push(("outc.weight".into(), vec![C, C / 2, 1, 1]));
    shapes.push(("outc.bias".into(), vec![C]));
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> =
        shapes.into_iter().map(|(name, shape)| (name.clone(), shape.clone(), values(&name, &shape))).collect();
    let views = tensors.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    serialize_to_file(views.collect::<anyhow::Result<Vec<_>>>()?, None, path)?;
    Ok(())
}

/// Small numbers around zero; variances around one.
fn values(name: &str, shape: &[usize]) -> Vec<u8> {
    let mut state = 7u32;
    let centre = if name.ends_with("running_var") { 1.0 } else { 0.0 };
    (0..shape.iter().product::<usize>())
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = f32::from((state >> 16) as u16) / 65_536.0 - 0.5;
            (centre + 0.1 * unit).to_le_bytes()
        })
        .collect()
}
