//! The backbone in the training framework: against the served graph, and through its own file.

use std::path::Path;

use densevit::{
    import::{ImportOptions, import},
    manifest::{Facet, ModelEntry, Tap},
    tensor::RgbImage,
};
use tch::{Device, Tensor, nn};
use train::{
    backbone::Backbone,
    data::normalisation::Normalisation,
    eval::to_tensor,
    vit::{Source, Vit, VitOptions},
};

use crate::support::{error, fixture};

/// Single precision on both sides, in different orders.
const FP32: f64 = 1e-4;

/// One file of each naming scheme and kind of network.
const KINDS: [&str; 9] = [
    "dino_s16.safetensors",
    "dinov2_s14.safetensors",
    "dinov2_s14_reg4.safetensors",
    "dinov2_swiglu.safetensors",
    "timm_s14.safetensors",
    "timm_s14_reg4.safetensors",
    "hf_dinov2/model.safetensors.index.json",
    "hf_dinov2_swiglu/model.safetensors",
    "hf_vit/model.safetensors",
];

fn imported(source: &Path, out: &Path, name: &str) -> ModelEntry {
    import(&ImportOptions::new(source.to_path_buf(), out.to_path_buf(), name), |_entry| Ok(())).unwrap().entry
}

fn image(patch: u32) -> RgbImage {
    let (height, width) = (3 * patch, 5 * patch);
    let value = |idx: u32| u8::try_from(idx * 7 % 251).unwrap();
    RgbImage::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
}

fn served(entry: &ModelEntry, layer: u32) -> Tensor {
    served_as(entry, Tap { facet: Facet::Token, layer })
}

fn served_as(entry: &ModelEntry, tap: Tap) -> Tensor {
    let mut backbone = Backbone::open(&entry.dir, |_default| tap, Device::Cpu).unwrap();
    to_tensor(&backbone.features(&image(backbone.patch())).unwrap()).permute([0, 2, 3, 1])
}

fn vit(entry: &ModelEntry, source: &Path, options: VitOptions) -> (nn::VarStore, Vit) {
    let store = nn::VarStore::new(Device::Cpu);
    let vit = Vit::new(&store.root(), Source::read(source, &entry.manifest).unwrap(), options);
    (store, vit)
}

fn pixels(entry: &ModelEntry) -> Tensor {
    let preprocess = &entry.manifest.preprocess;
    Normalisation { mean: preprocess.mean, std: preprocess.std }.of(&image(entry.manifest.architecture.patch))
}

#[test]
fn every_kind_of_backbone_computes_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    for (idx, kind) in KINDS.iter().enumerate() {
        let source = fixture(&format!("backbones/{kind}"));
        let entry = imported(&source, folder.path(), &format!("model{idx}"));
        let (_store, mut vit) = vit(&entry, &source, VitOptions::default());
        let got = tch::no_grad(|| vit.taps(&pixels(&entry), &[1, 0], false));
        for (layer, got) in [1, 0].into_iter().zip(got) {
            let error = error(&got, &served(&entry, layer));
            assert!(error <= FP32, "{kind}, block {layer}: {error}");
        }
    }
}

#[test]
fn the_default_model_computes_what_is_served() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let entry = densevit::manifest::load_dir(&root.join("models/dinov2-vits14-imgfocus/1")).unwrap();
    let (_store, mut vit) = vit(&entry, &root.join("third_party/weights/vit_s_focus.onnx"), VitOptions::default());
    let got = tch::no_grad(|| vit.taps(&pixels(&entry), &[11, 7], false));
    for (layer, got) in [11, 7].into_iter().zip(got) {
        let error = error(&got, &served(&entry, layer));
        assert!(error <= FP32, "block {layer}: {error}");
    }
}

#[test]
fn what_is_watched_is_what_is_served_with_and_without_registers() {
    let folder = tempfile::tempdir().unwrap();
    for (idx, kind) in KINDS.iter().enumerate() {
        let source = fixture(&format!("backbones/{kind}"));
        let entry = imported(&source, folder.path(), &format!("model{idx}"));
        let (_store, mut vit) = vit(&entry, &source, VitOptions::default());
        let watched = tch::no_grad(|| vit.watch(&pixels(&entry)));
        let arch = &entry.manifest.architecture;
        let [n_prefix, n_patches, heads] = [1 + arch.registers, 15, arch.heads].map(i64::from);
        assert_eq!((watched.n_prefix, watched.grid), (n_prefix, [3, 5]), "{kind}");
        assert_eq!(watched.attention.size(), [1, heads, n_prefix, n_prefix + n_patches], "{kind}");
        let last = arch.depth - 1;
        let cells = |tokens: &Tensor| watched.patches(tokens).view([1, 3, 5, i64::from(arch.width)]);
        for (got, facet) in [(watched.blocks.last().unwrap(), Facet::Token), (&watched.normed, Facet::NormToken)] {
            let error = error(&cells(got), &served_as(&entry, Tap { facet, layer: last }));
            assert!(error <= FP32, "{kind}, {facet}: {error}");
        }
    }
}

#[test]
fn a_backbone_that_learned_is_imported_under_the_names_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    for (idx, kind) in KINDS.iter().enumerate() {
        let source = fixture(&format!("backbones/{kind}"));
        let entry = imported(&source, folder.path(), &format!("model{idx}"));
        let (store, mut vit) = vit(&entry, &source, VitOptions::default());
        // A step anywhere: every tensor that a tap depends on has moved.
        tch::no_grad(|| store.variables().into_values().for_each(|mut tensor| drop(tensor.g_mul_scalar_(1.01))));
        let out = folder.path().join(format!("learned{idx}"));
        vit.write(&out).unwrap();
        let learned = imported(&out.join("model.safetensors"), folder.path(), &format!("learned-model{idx}"));
        assert_eq!(learned.manifest.architecture, entry.manifest.architecture, "{kind}");
        assert_eq!(learned.manifest.position.variant, entry.manifest.position.variant, "{kind}");
        assert_eq!(learned.manifest.provenance.key_map, entry.manifest.provenance.key_map);
        let got = tch::no_grad(|| vit.taps(&pixels(&entry), &[1], false)).remove(0);
        let error = error(&served(&learned, 1), &got);
        assert!(error <= FP32, "{kind}: {error}");
    }
}

#[test]
fn halving_the_grid_keeps_every_second_token_of_every_second_row() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("backbones/dinov2_s14_reg4.safetensors");
    let entry = imported(&source, folder.path(), "model");
    let options = VitOptions { downsample: Some(1), ..VitOptions::default() };
    let (_store, mut halved) = vit(&entry, &source, options);
    let (_whole, mut whole) = vit(&entry, &source, VitOptions::default());
    let run = |vit: &mut Vit| tch::no_grad(|| vit.taps(&pixels(&entry), &[0, 1], false));
    let (halved, whole) = (run(&mut halved), run(&mut whole));
    assert_eq!((halved[0].size(), halved[1].size()), (vec![1, 3, 5, 64], vec![1, 2, 3, 64]));
    // Keys and values are all tokens: what is kept of the last block is what it would have been.
    assert!(error(&halved[0], &whole[0]) <= 1e-6);
    assert!(error(&halved[1], &whole[1].slice(1, 0, 3, 2).slice(2, 0, 5, 2)) <= 1e-5);
}

#[test]
fn dropped_paths_change_training_only() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("backbones/dino_s16.safetensors");
    let entry = imported(&source, folder.path(), "model");
    let (_store, mut dropped) = vit(&entry, &source, VitOptions { drop_path: 0.5, ..VitOptions::default() });
    let (_plain, mut plain) = vit(&entry, &source, VitOptions::default());
    let images = pixels(&entry).expand([64, -1, -1, -1], false);
    tch::manual_seed(0);
    let run = |vit: &mut Vit, train| tch::no_grad(|| vit.taps(&images, &[1], train)).remove(0);
    let (kept, expected) = (run(&mut dropped, false), run(&mut plain, false));
    assert!(error(&kept, &expected) <= 1e-6);
    let varied = run(&mut dropped, true);
    let n_same = (0..64).filter(|idx| error(&varied.get(*idx), &varied.get(0)) < 1e-6).count();
    assert!((8..56).contains(&n_same), "{n_same} of 64 images went the same way");
}

#[test]
fn another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let entry = imported(&fixture("backbones/dino_s16.safetensors"), folder.path(), "model");
    let refused = |file: &str| format!("{:#}", Source::read(&fixture(file), &entry.manifest).unwrap_err());
    assert!(refused("backbones/dino_s8.safetensors").contains("dino_s8"), "{}", refused("backbones/dino_s8.safetensors"));
    let mut manifest = entry.manifest.clone();
    manifest.architecture.norm_eps = 1e-5;
    manifest.architecture.registers = 4;
    let other = Source::read(&fixture("backbones/dino_s16.safetensors"), &manifest).unwrap_err().to_string();
    assert!(other.contains("another network"), "{other}");
}
