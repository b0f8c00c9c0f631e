//! Every source that `densevit import` reads, against timm, transformers and a PyTorch forward: tiny random models, every facet of
//! both blocks, CLS and registers, at the native size and at one that needs interpolation.

use std::path::Path;

use densevit::{
    import::{ImportError, ImportOptions, Imported, import},
    manifest::{Facet, FfnKind, PositionVariant, Tap},
    runtime::RunKey,
    tensor::RgbImage,
};
use safetensors::SafeTensors;

use crate::support::{Tensor, features, fixture, run, runner, tensors};

/// Channels of the tiny models.
const C: usize = 64;

struct Case {
    name: &'static str,
    file: &'static str,
    key_map: &'static str,
    patch: u32,
    registers: u32,
    variant: PositionVariant,
    ffn: FfnKind,
}

const CASES: [Case; 13] = [
    case("dino_s16", "dino_s16.safetensors", "official", 16, PositionVariant::Offset),
    case("dino_s8", "dino_s8.safetensors", "official", 8, PositionVariant::Offset),
    case("dinov2_s14", "dinov2_s14.safetensors", "official", 14, PositionVariant::Offset),
    Case { registers: 4, ..case("dinov2_s14_reg4", "dinov2_s14_reg4.safetensors", "official", 14, PositionVariant::Antialias) },
    Case { ffn: FfnKind::Swiglu, ..case("dinov2_swiglu", "dinov2_swiglu.safetensors", "official", 14, PositionVariant::Offset) },
    case("timm_s14", "timm_s14.safetensors", "official", 14, PositionVariant::Antialias),
    Case { registers: 4, ..case("timm_s14_reg4", "timm_s14_reg4.safetensors", "official", 14, PositionVariant::Antialias) },
    case("selfpatch_s16", "selfpatch_s16.safetensors", "selfpatch", 16, PositionVariant::Offset),
    Case {
        registers: 4,
        ..case("selfpatch_s16_reg4", "selfpatch_s16_reg4.safetensors", "selfpatch", 16, PositionVariant::Antialias)
    },
    case("hf_vit", "hf_vit/model.safetensors", "hf-vit", 14, PositionVariant::Exact),
    case("hf_dinov2", "hf_dinov2/model.safetensors.index.json", "hf-dinov2", 14, PositionVariant::Exact),
    Case {
        ffn: FfnKind::Swiglu,
        ..case("hf_dinov2_swiglu", "hf_dinov2_swiglu/model.safetensors", "hf-dinov2", 14, PositionVariant::Exact)
    },
    Case {
        registers: 4,
        ..case("hf_dinov2_reg4", "hf_dinov2_reg4/model.safetensors", "hf-dinov2", 14, PositionVariant::Antialias)
    },
];

const fn case(name: &'static str, file: &'static str, key_map: &'static str, patch: u32, variant: PositionVariant) -> Case {
    Case { name, file, key_map, patch, registers: 0, variant, ffn: FfnKind::Mlp }
}

fn options(file: &str, out: &Path) -> ImportOptions {
    ImportOptions::new(fixture("backbones").join(file), out.to_path_buf(), "tiny")
}

fn imported(file: &str, out: &Path) -> Imported {
    import(&options(file, out), |_entry| Ok(())).unwrap_or_else(|error| panic!("{file}: {error:?}"))
}

/// The u8 image of a golden file.
fn golden_image(name: &str, size: &str) -> RgbImage {
    let bytes = std::fs::read(fixture(&format!("backbones/{name}.golden.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(&format!("{size}.image")).unwrap();
    let side = |axis: usize| u32::try_from(view.shape()[axis]).unwrap();
    RgbImage::new(side(0), side(1), view.data().to_vec()).unwrap()
}

#[test]
fn every_source_is_recognised_and_computes_what_its_own_library_computes() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let imported = imported(case.file, folder.path());
        let manifest = &imported.entry.manifest;
        let arch = &manifest.architecture;
        assert_eq!(imported.key_map, case.key_map, "{}", case.name);
        assert_eq!(manifest.position.variant, case.variant, "{}", case.name);
        assert_eq!((arch.patch, arch.registers, arch.ffn), (case.patch, case.registers, case.ffn), "{}", case.name);
        assert_eq!((arch.width, arch.depth, arch.heads), (64, 2, 1), "{}", case.name);
        let golden = tensors(&format!("backbones/{}.golden.safetensors", case.name));
        let mut runner = runner(&imported.entry);
        for size in ["native", "other"] {
            let image = golden_image(case.name, size);
            for facet in manifest.backbone.facets.iter().copied() {
                for layer in [0, 1] {
                    let output = run(&mut runner, &image, Tap { facet, layer }, case.registers > 0);
                    let what = format!("{} {size} {facet} {layer}", case.name);
                    golden[&format!("{size}.{facet}.{layer}")].assert_close(output.map.data(), &what);
                    if facet == Facet::Token {
                        let cls = golden.get(&format!("{size}.cls.token.{layer}"));
                        assert_eq!((cls.is_some(), output.cls.is_some()), (arch.has_cls(), arch.has_cls()), "{what}");
                        cls.zip(output.cls).inspect(|(golden, cls)| golden.assert_close(cls, &format!("{what} CLS")));
                        if let Some(registers) = output.registers {
                            golden[&format!("{size}.registers.token.{layer}")]
                                .assert_close(&registers, &format!("{what} registers"));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_backbone_without_final_norm_offers_no_normed_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let entry = imported("selfpatch_s16.safetensors", folder.path()).entry;
    let backbone = &entry.manifest.backbone;
    assert_eq!(backbone.facets, [Facet::Key, Facet::Query, Facet::Value, Facet::Token]);
    assert_eq!(backbone.default, Tap { facet: Facet::Token, layer: 1 });
    let mut normed = options("selfpatch_s16.safetensors", &folder.path().join("other"));
    normed.facets = vec![Facet::NormToken];
    let error = import(&normed, |_entry| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "--facets: the backbone has no final norm");
}

#[test]
fn half_precision_keeps_the_direction_of_every_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("dinov2_s14_reg4.safetensors", folder.path());
    options.precision = densevit::manifest::Precision::Fp16;
    let imported = import(&options, |_entry| Ok(())).unwrap();
    let golden = tensors("backbones/dinov2_s14_reg4.golden.safetensors");
    let mut runner = runner(&imported.entry);
    for facet in Facet::ALL {
        let output = run(&mut runner, &golden_image("dinov2_s14_reg4", "other"), Tap { facet, layer: 1 }, true);
        let tensor: &Tensor = &golden[&format!("other.{facet}.1")];
        let cosine = tensor.smallest_cosine(output.map.data());
        assert!(cosine >= 0.999, "{facet}: {cosine}");
    }
}

#[test]
fn a_head_is_fitted_to_a_patch_size_that_is_not_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("dinov2_s14.safetensors", folder.path());
    let source = fixture("lift/lift_c64_p16.safetensors");
    options.head = Some(densevit::import::HeadOptions::new(source));
    let imported = import(&options, |_entry| Ok(())).unwrap();
    let lift = imported.entry.manifest.lift.clone().unwrap();
    assert_eq!((lift.tap, lift.guidance), (Tap { facet: Facet::Key, layer: 1 }, 16));
    let image = golden_image("dinov2_s14", "other");
    let key = RunKey::features([image.height(), image.width()], lift.tap, 2);
    let output = features(runner(&imported.entry).run(&key, &[image]).unwrap().remove(0));
    assert_eq!((output.map.rows(), output.map.cols(), output.map.channels()), (12, 20, C));
}

#[test]
fn an_option_overrides_the_interpolation_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("timm_s14.safetensors", folder.path());
    options.position = Some(PositionVariant::Offset);
    assert_eq!(import(&options, |_entry| Ok(())).unwrap().entry.manifest.position.variant, PositionVariant::Offset);
}

#[test]
fn a_failed_import_leaves_nothing_and_says_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("models");
    let import_of = |file: &str| import(&options(file, &out), |_entry| Ok(()));
    // A head is no backbone.
    let head = ImportOptions::new(fixture("lift/lift_c64_p16.safetensors"), out.clone(), "tiny");
    let error = import(&head, |_entry| Ok(())).unwrap_err();
    assert!(format!("{error:?}").contains("image_convs_1.0.bias"), "names what it found: {error:?}");
    // A file with one tensor too many and one missing.
    let bytes = std::fs::read(fixture("backbones/dinov2_s14.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = file.iter().map(|(name, view)| (name.replace("blocks.1.attn.proj.bias", "blocks.1.attn.bogus"), view));
    let broken = folder.path().join("broken.safetensors");
    safetensors::serialize_to_file(renamed, None, &broken).unwrap();
    let error = import(&ImportOptions::new(broken, out.clone(), "tiny"), |_entry| Ok(())).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("blocks.1.attn.proj.bias") && text.contains("blocks.1.attn.bogus"), "{text}");
    // A model that does not run.
    let error = import(&options("dino_s16.safetensors", &out), |_entry| Err("does not run".into())).unwrap_err();
    assert!(matches!(error, ImportError::Check(_)), "{error:?}");
    let left: Vec<_> =
        std::fs::read_dir(&out).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
    // A place that is taken.
    import_of("dino_s16.safetensors").unwrap();
    assert!(matches!(import_of("dino_s16.safetensors"), Err(ImportError::Exists { .. })));
}

#[test]
fn a_head_is_refused_on_a_backbone_or_activation_that_is_not_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("dino_s16.safetensors", folder.path());
    let source = fixture("lift/lift_c64_p16.safetensors");
    options.head = Some(densevit::import::HeadOptions::new(source));
    let entry = import(&options, |_entry| Ok(())).unwrap().entry;
    let path = entry.dir.join("model.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = "0".repeat(64);
    std::fs::write(
        &path,
        text.replace(
            &format!("backbone_sha256 = \"{}\"", entry.manifest.backbone.sha256),
            &format!("backbone_sha256 = \"{other}\""),
        ),
    )
    .unwrap();
    let error = densevit::manifest::load_dir(&entry.dir).unwrap_err();
    assert!(error.to_string().contains("belongs to backbone"), "{error}");
    std::fs::write(&path, text).unwrap();
    let mut runner = runner(&entry);
    let tap = Tap { facet: Facet::Token, layer: 1 };
    let key = RunKey::features([32; 2], tap, 1);
    assert!(runner.run(&key, &[RgbImage::new(32, 32, vec![0; 3072]).unwrap()]).is_err());
}

#[test]
fn a_file_that_changed_after_the_import_is_found_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let entry = imported("dino_s16.safetensors", folder.path()).entry;
    entry.verify().unwrap();
    let path = entry.dir.join("position.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(entry.verify().unwrap_err().to_string().contains("position.safetensors"));
}
