//! `densevit calibrate`, and what an 8-bit import makes of it.

use crate::support::{fixture, photos, run};

#[test]
fn photos_become_ranges_and_ranges_an_int8_model_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (weights, images, ranges, out) =
        (fixture("backbones/dinov2_swiglu.safetensors"), photos(2, false), path("ranges.safetensors"), path("models"));
    let photos = images.path().display().to_string();
    let text = run(&["calibrate", &weights, &photos, "-o", &ranges, "--sizes", "56x56,70x84"]).expect_success().stdout;
    assert!(text.contains("8 layer inputs over 2 photos"), "{text}");
    let import = |weights: &str, more: &[&str]| run(&[&["import", weights, "--name", "tiny", "--out", &out], more].concat());
    let text = import(&weights, &["--precision", "int8", "--ranges", &ranges]).expect_success().stdout;
    assert!(text.contains("Int8"), "{text}");
    let manifest = std::fs::read_to_string(folder.path().join("models/tiny/1/model.toml")).unwrap();
    assert!(manifest.contains("precision = \"int8\"") && manifest.contains("ranges_sha256"), "{manifest}");
}

#[test]
fn int8_without_the_ranges_of_these_weights_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (weights, other) = (fixture("backbones/dino_s16.safetensors"), fixture("backbones/dinov2_s14.safetensors"));
    let (ranges, out, images) = (path("ranges.safetensors"), path("models"), photos(1, false));
    let import = |more: &[&str]| run(&[&["import", &weights, "--name", "tiny", "--out", &out], more].concat()).expect_failure();
    let error = import(&["--precision", "int8"]);
    assert!(error.contains("--ranges") && error.contains("densevit calibrate"), "{error}");
    let photos = images.path().display().to_string();
    run(&["calibrate", &other, &photos, "-o", &ranges, "--sizes", "56x56"]).expect_success();
    let error = import(&["--precision", "int8", "--ranges", &ranges]);
    assert!(error.contains("belongs to the weights with SHA-256"), "{error}");
    let error = import(&["--ranges", &ranges]);
    assert!(error.contains("is for --precision int8"), "{error}");
    let error = import(&["--precision", "int8", "--ranges", &weights]);
    assert!(error.contains("is not a file that `densevit calibrate` wrote"), "{error}");
}

#[test]
fn a_calibration_that_cannot_be_made_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("ranges.safetensors").display().to_string();
    let (weights, images, broken) = (fixture("backbones/dinov2_s14.safetensors"), photos(1, false), photos(1, true));
    let calibrate =
        |photos: &str, size: &str| run(&["calibrate", &weights, photos, "-o", &out, "--sizes", size]).expect_failure();
    let error = calibrate(&images.path().display().to_string(), "60x56");
    assert!(error.contains("60 x 56 are no multiples of the patch size, 14"), "{error}");
    let error = calibrate(&broken.path().display().to_string(), "56x56");
    assert!(error.contains("cannot use"), "{error}");
    assert!(!folder.path().join("ranges.safetensors").exists());
}
