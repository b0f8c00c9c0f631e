//! `densevit import` and `densevit --version`.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use crate::support::{fixture, run};

#[test]
fn an_import_says_what_it_recognised_and_refuses_to_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let weights = fixture("backbones/dinov2_s14_reg4.safetensors");
    let import = |more: &[&str]| run(&[&["import", &weights, "--name", "reg", "--out", out], more].concat());
    let first = import(&[]).expect_success().stdout;
    for words in ["recognised dinov2", "registers 4", "patch 14", "backbone.onnx", "model.toml"] {
        assert!(first.contains(words), "{words:?} is missing in\n{first}");
    }
    let again = import(&[]).expect_failure();
    assert!(again.contains("exists already") && again.contains("--force"), "{again}");
    import(&["--force", "--precision", "fp16"]).expect_success();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["reg"], "nothing else is left");
    // Whoever may read new files may read a model: servers often run as another user.
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    let usual = folder.path().join("new");
    std::fs::write(&usual, "").unwrap();
    for entry in std::fs::read_dir(folder.path().join("reg/1")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), mode(&usual), "{}", path.display());
    }
}

#[test]
fn weights_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    for (source, words) in
        [("nowhere.safetensors", "nowhere.safetensors"), ("README.md", "README.md"), ("Cargo.toml", "safetensors")]
    {
        let error = run(&["import", source, "--name", "x", "--out", out]).expect_failure();
        assert!(error.contains(words), "{error}");
    }
    let error = run(&["import", &fixture("backbones/dino_s16.safetensors"), "--name", "../up", "--out", out]).expect_failure();
    assert!(error.contains("--name"), "{error}");
}

#[test]
fn a_pytorch_checkpoint_is_imported_and_one_with_a_command_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let (weights, head) = (fixture("pth/vit.pth"), fixture("pth/lift.pth"));
    let import = |weights: &str, more: &[&str]| run(&[&["import", weights, "--name", "tiny", "--out", out], more].concat());
    let text = import(&weights, &["--heads", "2", "--lift", &head]).expect_success().stdout;
    for words in ["recognised dino ", "prefix \"teacher.backbone.\" stripped", "lift.onnx"] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    for (file, words) in [("pth/command.pth", "holds posix.system"), ("pth/namespace.pth", "holds argparse.Namespace")] {
        let error = import(&fixture(file), &["--force"]).expect_failure();
        assert!(error.contains(words) && error.contains("torch.save("), "{error}");
    }
    assert!(!Path::new(env!("CARGO_MANIFEST_DIR")).join("the-command-was-run").exists());
}

#[test]
fn the_version_names_crate_binding_runtime_and_providers() {
    let text = run(&["--version"]).expect_success().stdout;
    for words in ["densevit 0.1.0", "ort 2.0.0-rc.15", "ONNX Runtime 1.31.1", "cpu"] {
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
}

#[test]
fn what_is_said_of_a_head_needs_a_head() {
    let weights = fixture("backbones/dino_s16.safetensors");
    for flags in [["--lift-tap", "token:1"], ["--lift-order", "natural"], ["--lift-license", "MIT"]] {
        let error = run(&[&["import", &weights, "--name", "x"], flags.as_slice()].concat()).expect_failure();
        assert!(error.contains("--lift <FILE>"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none").display().to_string();
    let error = run(&["head", &missing, &fixture("lift/lift_c64_p16.safetensors"), "--lift-tap", "key:1"]).expect_failure();
    assert!(error.contains("cannot use the model in"), "{error}");
}

#[test]
fn a_segmentation_head_comes_with_its_backbone_or_later_and_keeps_the_other_head() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let (lift, linear) = (fixture("lift/lift_c64_p16.safetensors"), fixture("segvit/linear.safetensors"));
    let import = |name: &str, weights: &str, more: &[&str]| {
        run(&[&["import", &fixture(weights), "--name", name, "--out", out], more].concat())
    };
    let shrunk = ["--segment", &fixture("segvit/shrunk.safetensors"), "--query-downsample", "1"];
    let text = import("halved", "backbones/dinov2_s14_reg4.safetensors", &shrunk).expect_success().stdout;
    assert!(
        text.contains("segment.onnx") && text.contains("(shrunk, 42310 parameters, 5 classes, takes token of block 0, token"),
        "{text}"
    );

    import("dino", "backbones/dino_s16.safetensors", &["--lift", &lift]).expect_success();
    let model = folder.path().join("dino/1").display().to_string();
    let text = run(&["head", &model, &linear]).expect_success().stdout;
    assert!(text.contains("lift.onnx") && text.contains("takes key of block 1 after LiFT"), "both heads are named: {text}");
    let text = run(&["head", &model, &lift]).expect_success().stdout;
    assert!(text.contains("segment.onnx"), "the segmentation head stays: {text}");
    let segvit = [&fixture("segvit/segvit_s2.safetensors"), "--segment-taps", "token:1,token:0", "--segment-heads", "2"];
    let text = run(&[["head", &model].as_slice(), &segvit].concat()).expect_success().stdout;
    assert!(text.contains("(segvit, 28726 parameters, 5 classes, takes token of block 1, token of block 0)"), "{text}");
}

#[test]
fn what_is_said_of_the_wrong_kind_of_head_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().display().to_string();
    let (lift, linear) = (fixture("lift/lift_c64_p16.safetensors"), fixture("segvit/linear.safetensors"));
    for (file, flags, words) in
        [(&lift, ["--segment-heads", "2"], "is a LiFT head"), (&linear, ["--lift-license", "MIT"], "is a segmentation head")]
    {
        let error = run(&[["head", &model, file].as_slice(), &flags].concat()).expect_failure();
        assert!(error.contains(words), "{error}");
    }
    let error = run(&["head", &model, &fixture("backbones/dino_s16.safetensors")]).expect_failure();
    assert!(error.contains("cannot use the weights in"), "{error}");
    let weights = fixture("backbones/dino_s16.safetensors");
    for flags in [["--segment-taps", "token:1"], ["--segment-heads", "2"], ["--segment-license", "MIT"]] {
        let error = run(&[&["import", &weights, "--name", "x"], flags.as_slice()].concat()).expect_failure();
        assert!(error.contains("--segment <FILE>"), "{error}");
    }
}
