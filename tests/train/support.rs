//! A tiny model, tiny photos, tensors of fixtures.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use densevit::{
    import::{HeadOptions, ImportOptions, import},
    manifest::{Facet, ModelEntry, Tap},
};
use tch::Tensor;
use tempfile::TempDir;
use train::{checkpoint, config::LiftConfig};

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

pub fn tensors(path: &str) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(fixture(path)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // Counters of BatchNorm are integers, which no head reads.
    let floats = file.iter().filter(|(_, view)| view.dtype() == safetensors::Dtype::F32);
    floats
        .map(|(name, view)| {
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
            let shape: Vec<i64> = view.shape().iter().map(|&extent| i64::try_from(extent).unwrap()).collect();
            (name.to_owned(), Tensor::from_slice(&values).view(shape.as_slice()))
        })
        .collect()
}

pub fn head_file(path: &Path) -> BTreeMap<String, Tensor> {
    checkpoint::read(path).unwrap().0
}

/// The largest difference relative to the largest value of the reference.
pub fn error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.size(), expected.size());
    (got - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[])
}

/// The model "tiny" (DINO, patch 16, 64 channels) as `OUT/tiny/1`.
pub fn tiny_model(out: &Path) -> ModelEntry {
    let options = ImportOptions::new(fixture("backbones/dino_s16.safetensors"), out.to_path_buf(), "tiny");
    import(&options, |_entry| Ok(())).unwrap().entry
}

/// The same with a LiFT head for tokens of its last block.
pub fn lifted_model(out: &Path) -> ModelEntry {
    let mut options = ImportOptions::new(fixture("backbones/dino_s16.safetensors"), out.to_path_buf(), "tiny");
    let mut head = HeadOptions::new(fixture("lift/lift_c64_p16.safetensors"));
    head.tap = Some(Tap { facet: Facet::Token, layer: 1 });
    options.head = Some(head);
    import(&options, |_entry| Ok(())).unwrap().entry
}

/// Another model as `OUT/other/1`.
pub fn other_model(out: &Path) -> ModelEntry {
    let options = ImportOptions::new(fixture("backbones/timm_s14.safetensors"), out.to_path_buf(), "other");
    import(&options, |_entry| Ok(())).unwrap().entry
}

/// Photos of coloured blocks, each another.
pub fn photos(n: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for idx in 0..n {
        let colour = |part: u32| u8::try_from((part * 37 + idx * 53) % 256).unwrap();
        let picture =
            image::RgbImage::from_fn(96, 80, |x, y| image::Rgb([colour(x / 8), colour(y / 8), colour(x / 16 + y / 16)]));
        picture.save(folder.path().join(format!("{idx}.png"))).unwrap();
    }
    folder
}

/// Red cut-outs on nothing, each of another red: `round` ones and `square` ones.
pub fn cut_outs(n: u32) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for idx in 0..n {
        let is_round = idx % 2 == 0;
        let folder = root.path().join(if is_round { "round" } else { "square" });
        std::fs::create_dir_all(&folder).unwrap();
        let pixel = |x: u32, y: u32| {
            let is_inside = if is_round {
                x.abs_diff(20).pow(2) + y.abs_diff(20).pow(2) < 16 * 16
            } else {
                (6..34).contains(&x) && (4..36).contains(&y)
            };
            image::Rgba([u8::try_from(255 - 2 * idx).unwrap(), 30, 20, if is_inside { 255 } else { 0 }])
        };
        image::RgbaImage::from_fn(40, 40, pixel).save(folder.join(format!("{idx}.png"))).unwrap();
    }
    root
}

/// Pictures of a sky above a road with a car on it, which stands elsewhere in each; a border does not count.
pub fn street(n: u32) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let colours = [[120u8, 170, 250], [90, 90, 90], [220, 30, 30]];
    let row = |name: &str, [r, g, b]: [u8; 3]| format!("{{ name = \"{name}\", color = [{r}, {g}, {b}] }}");
    let rows: Vec<String> = ["sky", "road", "car"].into_iter().zip(colours).map(|(name, colour)| row(name, colour)).collect();
    std::fs::write(root.path().join("classes.toml"), format!("ignore = [9]\nclass = [{}]\n", rows.join(", "))).unwrap();
    for (split, first, n) in [("train", 0, n), ("val", 100, 4), ("test", 200, 2)] {
        for (kind, idx) in (first..first + n).flat_map(|idx| [("images", idx), ("masks", idx)]) {
            let left = idx * 29 % 48;
            let class =
                |x: u32, y: u32| usize::from(y >= 32) + usize::from((left..left + 32).contains(&x) && (40..60).contains(&y));
            let folder = root.path().join(kind).join(split);
            std::fs::create_dir_all(&folder).unwrap();
            let file = folder.join(format!("{idx}.png"));
            if kind == "images" {
                image::RgbImage::from_fn(96, 64, |x, y| image::Rgb(colours[class(x, y)])).save(file).unwrap();
            } else {
                let value = |x: u32, y: u32| if x == 0 { 9 } else { u8::try_from(class(x, y)).unwrap() };
                image::GrayImage::from_fn(96, 64, |x, y| image::Luma([value(x, y)])).save(file).unwrap();
            }
        }
    }
    root
}

/// Settings that take a moment.
pub fn quick() -> LiftConfig {
    LiftConfig {
        size: 64,
        scales: 2,
        width: 8,
        window: 3,
        batch: 2,
        steps: 6,
        warmup: 1,
        validation: 0.4,
        validate_every: 3,
        views: 1,
        ..LiftConfig::default()
    }
}
