//! `densevit segment` and `view --masks`: files that other programs read, for one image and for folders.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{fixture, models, photos, run};

/// A repository with the model "tiny" that has a segmentation head of 5 classes.
fn segmenting() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (weights, head) = (fixture("backbones/dino_s16.safetensors"), fixture("segvit/segvit_s2.safetensors"));
    let taps = ["--segment-taps", "token:1,token:0", "--segment-heads", "2"];
    let names = ["import", &weights, "--name", "tiny", "--segment", &head, "--out", folder.path().to_str().unwrap()];
    run(&[&names[..], &taps].concat()).expect_success();
    folder
}

/// Pixels of a mask in run lengths, as COCO's tools count them: every second run, of 5-bit groups from `'0'` on, from the third on as a
/// difference to the one before last.
fn area(counts: &str) -> i64 {
    let mut runs: Vec<i64> = Vec::new();
    let mut characters = counts.bytes().map(|byte| i64::from(byte) - 48);
    while let Some(first) = characters.next() {
        let (mut value, mut shift, mut group) = (first & 31, 5, first);
        while group & 32 != 0 {
            group = characters.next().unwrap();
            value |= (group & 31) << shift;
            shift += 5;
        }
        if group & 16 != 0 {
            value |= -1 << shift;
        }
        let before = if runs.len() > 2 { runs[runs.len() - 2] } else { 0 };
        runs.push(value + before);
    }
    runs.iter().skip(1).step_by(2).sum()
}

#[test]
fn an_image_becomes_labels_an_overlay_run_lengths_or_scores() {
    let (models, output, input) = (segmenting(), tempfile::tempdir().unwrap(), photos(1, false));
    let photo = input.path().join("photo_0.png");
    let at = |name: &str| output.path().join(name).to_str().unwrap().to_owned();
    let segment = |name: &str, flags: &[&str]| {
        let out = at(name);
        let names = ["segment", photo.to_str().unwrap(), "-o", &out, "--models", models.path().to_str().unwrap()];
        run(&[&names[..], flags].concat()).expect_success();
        out
    };
    let labels = image::open(segment("labels.png", &[])).unwrap();
    assert_eq!((labels.width(), labels.height()), (64, 48));
    let drawn = image::open(segment("overlay.png", &["--overlay"])).unwrap().into_rgb8();
    assert_eq!(drawn.dimensions(), (64, 48));
    assert_ne!(drawn, image::open(&photo).unwrap().into_rgb8());

    let read = |file: String| -> Value { serde_json::from_slice(&fs::read(file).unwrap()).unwrap() };
    let found = read(segment("masks.json", &[]));
    let classes = found["classes"].as_array().unwrap();
    let areas: Vec<i64> = classes.iter().map(|class| class["area"].as_i64().unwrap()).collect();
    assert_eq!((areas.iter().sum::<i64>(), found["size"].as_array().unwrap().len()), (64 * 48, 2));
    for class in classes {
        assert_eq!(area(class["segmentation"]["counts"].as_str().unwrap()), class["area"].as_i64().unwrap(), "{class}");
    }
    let outlines = read(segment("outlines.json", &["--polygons", "--classes", "class_0,class_1"]));
    let is_outlined = |class: &Value| class["segmentation"][0]["outer"].as_array().is_some_and(|outer| outer.len() >= 8);
    let classes = outlines["classes"].as_array().unwrap();
    assert!(!classes.is_empty() && classes.len() <= 2 && classes.iter().all(is_outlined), "{outlines}");

    let scores = fs::read(segment("scores.npy", &[])).unwrap();
    let header = String::from_utf8_lossy(&scores[..128]).into_owned();
    assert!(header.contains("(48, 64, 5)") && header.contains("f2"), "{header}");

    let listed = run(&["models", "--models", models.path().to_str().unwrap()]).expect_success().stdout;
    assert!(listed.contains("masks segvit of 5 classes"), "{listed}");
    let picture = at("view.png");
    let names = ["view", photo.to_str().unwrap(), "-o", &picture, "--masks", "--models", models.path().to_str().unwrap()];
    let said = run(&names).expect_success().stdout;
    assert!(said.contains("tiny/1") && said.contains(" classes"), "{said}");
    // Two panels of 448 pixels' height and 4 : 3, and a legend.
    let picture = image::open(&picture).unwrap();
    assert!(picture.width() > 2 * 597 + 3 * 8 && picture.height() == 448 + 24 + 8, "{}", picture.width());
}

#[test]
fn a_folder_is_segmented_image_by_image_and_a_broken_one_is_named() {
    let (models, output, input) = (segmenting(), tempfile::tempdir().unwrap(), photos(3, true));
    let names = ["segment", input.path().to_str().unwrap(), "-o", output.path().to_str().unwrap(), "--format", "json"];
    let outcome = run(&[&names[..], &["--models", models.path().to_str().unwrap()]].concat());
    let said = outcome.expect_failure();
    assert!(said.contains("broken.jpg"), "{said}");
    let is_there = |name: &str| Path::new(output.path()).join(name).is_file();
    assert!((0..3).all(|idx| is_there(&format!("photo_{idx}.json"))) && !is_there("broken.json"));
}

#[test]
fn masks_that_cannot_be_had_are_refused_in_words() {
    let (segmenting, input) = (segmenting(), photos(1, false));
    let (photo, with_head) = (input.path().join("photo_0.png"), segmenting.path().to_str().unwrap().to_owned());
    let without_head = models().to_str().unwrap();
    let out = input.path().join("out");
    let out = |extension: &str| out.with_extension(extension).to_str().unwrap().to_owned();
    let cases: [(&str, &[&str], &str, &str); 6] = [
        ("segment", &["--overlay"], "json", "--overlay needs"),
        ("segment", &["--polygons"], "png", "--polygons and --threshold need"),
        ("segment", &["--overlay", "--crop", "0,0,32,32"], "png", "--region and --crop"),
        ("segment", &["--classes", "zebra"], "png", "zebra"),
        ("segment", &["--window", "15x16"], "png", "15"),
        ("view", &["--masks", "--layer", "1"], "png", "--layer"),
    ];
    for (command, flags, extension, expected) in cases {
        let names = [command, photo.to_str().unwrap(), "-o", &out(extension), "--models", &with_head];
        let said = run(&[&names[..], flags].concat()).expect_failure();
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
    for (command, flags) in [("segment", &[][..]), ("view", &["--masks"][..])] {
        let names = [command, photo.to_str().unwrap(), "-o", &out("png"), "--models", without_head];
        let said = run(&[&names[..], flags].concat()).expect_failure();
        assert!(said.contains("segmentation head"), "{said}");
    }
}
