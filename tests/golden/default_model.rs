//! The default model against an independent PyTorch forward of the same weights, at three sizes, in both precisions.

use std::path::Path;

use densevit::{
    import::{ImportOptions, Preset, import},
    manifest::{Facet, ModelEntry, Precision, Tap, load_dir},
    runtime::{FeatureKey, ModelRunner, RunKey},
    tensor::RgbImage,
};

use crate::support::{Tensor, features, image, root, runner, tensors};

/// What `make setup` imported.
fn default_model() -> ModelEntry {
    load_dir(&root().join("models/dinov2-vits14-imgfocus/1")).expect("run `make setup` first")
}

fn run(runner: &mut ModelRunner, facet: Facet, image: &RgbImage) -> Vec<f32> {
    let tap = Tap { facet, layer: 11 };
    let key = RunKey::features([image.height(), image.width()], tap, 0);
    features(runner.run(&key, std::slice::from_ref(image)).unwrap().remove(0)).map.data().to_vec()
}

const FACETS: [(Facet, &str); 2] = [(Facet::Key, "key"), (Facet::NormToken, "x_norm_patchtokens")];

#[test]
fn keys_and_normed_tokens_agree_with_the_reference() {
    let mut runner = runner(&default_model());
    for name in ["astronaut_224x224", "chelsea_238x322"] {
        let golden = tensors(&format!("dinov2_vits14/{name}.safetensors"));
        for (facet, tensor) in FACETS {
            let got = run(&mut runner, facet, &image(&format!("dinov2_vits14/{name}.png")));
            golden[tensor].channels_last().assert_close(&got, &format!("{name} {tensor}"));
        }
    }
}

#[test]
fn the_native_size_agrees_in_its_mean_and_its_corner() {
    let golden = tensors("dinov2_vits14/astronaut_518x518.safetensors");
    let mut runner = runner(&default_model());
    for (facet, tensor) in [(Facet::Key, "key"), (Facet::NormToken, "token")] {
        let got = run(&mut runner, facet, &image("dinov2_vits14/astronaut_518x518.png"));
        let corner: Vec<f32> = [0, 1, 37, 38].iter().flat_map(|cell| got[cell * 384..(cell + 1) * 384].to_vec()).collect();
        golden[&format!("{tensor}_corner")].channels_last().assert_close(&corner, tensor);
        let mean =
            |channel: usize| got.iter().skip(channel).step_by(384).map(|value| f64::from(*value)).sum::<f64>() / (37.0 * 37.0);
        #[expect(clippy::cast_possible_truncation, reason = "compared in single precision")]
        let mean: Vec<f32> = (0..384).map(|channel| mean(channel) as f32).collect();
        golden[&format!("{tensor}_mean")].assert_close(&mean, tensor);
    }
}

#[test]
fn an_image_gives_the_same_features_alone_and_in_a_batch() {
    let mut runner = runner(&default_model());
    let first = image("dinov2_vits14/astronaut_224x224.png");
    let second = RgbImage::new(224, 224, first.data().iter().rev().copied().collect()).unwrap();
    let tap = Tap { facet: Facet::Key, layer: 11 };
    let key = FeatureKey { tap, lift_passes: 0, cls: true, registers: false };
    let key = RunKey { height: 224, width: 224, features: Some(key), segment: false };
    let both: Vec<_> = runner.run(&key, &[second, first.clone()]).unwrap().into_iter().map(features).collect();
    let alone = features(runner.run(&key, &[first]).unwrap().remove(0));
    let tensor = Tensor { shape: vec![16, 16, 384], values: alone.map.data().to_vec() };
    tensor.assert_close(both[1].map.data(), "in a batch");
    Tensor { shape: vec![384], values: alone.cls.unwrap().to_vec() }
        .assert_close(both[1].cls.as_ref().unwrap(), "CLS in a batch");
}

fn import_variant(out: &Path, change: impl FnOnce(&mut ImportOptions)) -> ModelEntry {
    let source = root().join("third_party/weights/vit_s_focus.onnx");
    let mut options = ImportOptions::new(source, out.to_path_buf(), "variant");
    Preset::ImgFocus.apply(&mut options);
    change(&mut options);
    import(&options, |_entry| Ok(())).unwrap().entry
}

#[test]
fn half_precision_keeps_the_direction_of_every_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let entry = import_variant(folder.path(), |options| options.precision = Precision::Fp16);
    let mut runner = runner(&entry);
    for name in ["astronaut_224x224", "chelsea_238x322"] {
        let golden = tensors(&format!("dinov2_vits14/{name}.safetensors"));
        for (facet, tensor) in FACETS {
            let got = run(&mut runner, facet, &image(&format!("dinov2_vits14/{name}.png")));
            let cosine = golden[tensor].channels_last().smallest_cosine(&got);
            assert!(cosine >= 0.999, "{name} {tensor}: {cosine}");
        }
    }
}

/// Smallest mean cosine of 8-bit features to the reference: the aim of the export. The committed ranges are of other photos.
const INT8_MEAN: f32 = 0.998;
/// Smallest one of a single descriptor; measured: 0.97 to 0.99. A wrong step or scale leaves less than 0.5.
const INT8_WORST: f32 = 0.93;

fn int8(out: &Path) -> ModelEntry {
    import_variant(out, |options| {
        options.precision = Precision::Int8;
        options.ranges = Some(root().join("models/dinov2-vits14-imgfocus/ranges.safetensors"));
    })
}

#[test]
fn eight_bits_keep_the_direction_of_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = runner(&int8(folder.path()));
    for name in ["astronaut_224x224", "chelsea_238x322"] {
        let golden = tensors(&format!("dinov2_vits14/{name}.safetensors"));
        for (facet, tensor) in FACETS {
            let got = run(&mut runner, facet, &image(&format!("dinov2_vits14/{name}.png")));
            let golden = golden[tensor].channels_last();
            let (mean, worst) = (golden.mean_cosine(&got), golden.smallest_cosine(&got));
            assert!(mean >= INT8_MEAN && worst >= INT8_WORST, "{name} {tensor}: mean {mean}, worst {worst}");
        }
    }
}

#[test]
fn the_values_of_an_eight_bit_graph_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (mut exact, mut int8) = (runner(&default_model()), runner(&int8(folder.path())));
    let image = image("dinov2_vits14/astronaut_224x224.png");
    let expected = run(&mut exact, Facet::Value, &image);
    let got = run(&mut int8, Facet::Value, &image);
    let error: f32 = got.iter().zip(&expected).map(|(got, expected)| (got - expected).powi(2)).sum();
    let size: f32 = expected.iter().map(|value| value.powi(2)).sum();
    // Scaled and shifted values would be wrong by more than their own size.
    assert!((error / size).sqrt() < 0.1, "{}", (error / size).sqrt());
}

#[test]
fn a_neighbour_in_the_batch_does_not_change_eight_bit_features() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = runner(&int8(folder.path()));
    let first = image("dinov2_vits14/astronaut_224x224.png");
    let glaring = RgbImage::new(224, 224, [255, 0, 0].repeat(224 * 224)).unwrap();
    let key = RunKey::features([224; 2], Tap { facet: Facet::Key, layer: 11 }, 0);
    let alone = features(runner.run(&key, std::slice::from_ref(&first)).unwrap().remove(0));
    let both = features(runner.run(&key, &[glaring, first]).unwrap().remove(1));
    let tensor = Tensor { shape: vec![16, 16, 384], values: alone.map.data().to_vec() };
    tensor.assert_close(both.map.data(), "in a batch");
}

#[test]
fn a_graph_baked_for_one_size_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let entry = import_variant(folder.path(), |options| {
        options.baked_size = Some([238, 322]);
        options.layers = Some(vec![11]);
        options.default = Some(Tap { facet: Facet::Key, layer: 11 });
    });
    let golden = tensors("dinov2_vits14/chelsea_238x322.safetensors");
    let mut runner = runner(&entry);
    let got = run(&mut runner, Facet::Key, &image("dinov2_vits14/chelsea_238x322.png"));
    golden["key"].channels_last().assert_close(&got, "baked");
    let other = RunKey::features([224; 2], Tap { facet: Facet::Key, layer: 11 }, 0);
    assert!(runner.run(&other, &[image("dinov2_vits14/astronaut_224x224.png")]).is_err(), "another size is refused");
}
