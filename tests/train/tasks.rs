//! Evaluations of tasks, from composed sets to tables, with a tiny model.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use train::checkpoint;

use crate::{
    compose::compose,
    support::{lifted_model, street, tensors},
};

/// Runs an evaluation of the lifted tiny model and gives what it printed and its numbers.
fn evaluated(what: &str, data: &Path, flags: &str) -> (String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let entry = lifted_model(&folder.path().join("models"));
    let lift = folder.path().join("models/tiny/lift.safetensors");
    checkpoint::write(&lift, &tensors("lift/lift_c64_p16.safetensors"), &[]).unwrap();
    let (json, pictures) = (folder.path().join("numbers.json"), folder.path().join("pictures"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.current_dir(format!("{}/../..", env!("CARGO_MANIFEST_DIR"))).args(["eval", what]).args(flags.split_whitespace());
    for (flag, path) in [("--model", entry.dir.as_path()), ("--data", data), ("--json", &json), ("--pictures", &pictures)] {
        command.arg(flag).arg(path);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        return (said, Value::Null);
    }
    assert!(fs::read_dir(&pictures).unwrap().next().is_some(), "{said}");
    (said, serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap())
}

fn names(scores: &Value) -> Vec<&str> {
    scores.as_array().unwrap().iter().map(|score| score["row"].as_str().unwrap()).collect()
}

/// Rows of the tiny model, whose head doubles tokens of its last block.
const ROWS: [&str; 8] = [
    "key of block 1, coarse",
    "key of block 1, bilinear, 2 x",
    "key of block 1, bilinear, 4 x",
    "token of block 1, coarse",
    "token of block 1, bilinear, 2 x",
    "token of block 1, bilinear, 4 x",
    "token of block 1, official (tiny), 2 x",
    "token of block 1, official (tiny), 4 x",
];

#[test]
fn corloc_has_every_row_in_both_protocols() {
    let set = compose("voc", "--val 3");
    let (said, scores) = evaluated("corloc", set.path(), "--protocol native,square --sizes 64 --split val");
    assert!(
        said.contains("native size, padded to whole patches, 3 images") && said.contains("64 x 64 px, squeezed (LiFT)"),
        "{said}"
    );
    let rows = names(&scores);
    // Two blind boxes, and each row by three finders, for each protocol.
    assert_eq!(rows.len(), 2 * (2 + 3 * ROWS.len()));
    assert_eq!([rows[0], rows[2], rows[4], rows[5]], ["the whole image", ROWS[0], ROWS[0], ROWS[1]]);
    let finders: Vec<&str> = scores.as_array().unwrap()[2..5].iter().map(|score| score["finder"].as_str().unwrap()).collect();
    assert_eq!(finders, ["LOST (bias 0)", "TokenCut (tau 0.2)", "TokenCut (tau 0.2), corners"]);
    let shares: Vec<f64> = scores.as_array().unwrap().iter().map(|score| score["corloc"].as_f64().unwrap()).collect();
    assert!(
        shares.iter().all(|share| [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0].iter().any(|third| (share - third).abs() < 1e-9)),
        "{shares:?}"
    );
    let coco = compose("coco", "--test 2");
    let (said, scores) = evaluated("corloc", coco.path(), "--layout coco --sizes 32 --passes 1 --finders tokencut --no-head");
    assert_eq!(names(&scores)[2..], ROWS[..2], "{said}");
}

#[test]
fn grids_that_are_too_large_to_search_have_no_number() {
    let set = compose("voc", "--val 1");
    let (said, scores) = evaluated("corloc", set.path(), "--sizes 528 --split val --no-head --passes 1 --finders lost");
    assert!(said.contains("more than 4096 cells"), "{said}");
    let shares: Vec<bool> = scores.as_array().unwrap().iter().map(|score| score["corloc"].is_null()).collect();
    assert_eq!(shares, [false, false, false, true], "33 x 33 cells are searched, 66 x 66 are not");
}

#[test]
fn keypoints_are_scored_in_both_protocols() {
    let set = compose("spair", "--test 3");
    let (said, report) = evaluated("spair", set.path(), "--sizes 64");
    assert_eq!(report["protocol"], "all pairs, squeezed, distance <= tolerance, mean over category");
    assert_eq!(names(&report["scores"]), [&["the same place"], &ROWS[..]].concat());
    let lift = "2 pairs a category, seed 0, letterboxed, distance < tolerance, mean over category";
    let (_, other) = evaluated("spair", set.path(), "--sizes 64 --protocol lift --pairs 2");
    assert_eq!(other["protocol"], lift, "{said}");
    for score in report["scores"].as_array().unwrap().iter().chain(other["scores"].as_array().unwrap()) {
        let pck: Vec<f64> = score["pck"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect();
        assert!(pck[0] >= pck[1] && pck[1] >= pck[2] && pck[0] <= 1.0, "{score}");
    }
}

#[test]
fn masks_of_objects_are_scored_in_both_protocols() {
    let set = compose("davis", "--val 2 --frames 4");
    for (flags, label, first) in [
        ("--sizes 64 --passes 1 --radius 3", "64 x 64 px, squeezed (LiFT)", ROWS[0]),
        ("--protocol dino --passes 1 --limit 1 --no-head", "480p (DINO)", "norm_token of block 1, coarse"),
    ] {
        let (said, scores) = evaluated("davis", set.path(), flags);
        assert_eq!(names(&scores)[..2], ["the first masks", first], "{said}");
        for score in scores.as_array().unwrap() {
            assert_eq!(score["protocol"], label);
            let (j, f) = (score["j"][0].as_f64().unwrap(), score["f"][0].as_f64().unwrap());
            assert!((score["j_and_f"].as_f64().unwrap() - (j + f) / 2.0).abs() < 1e-9 && j <= 1.0 && f <= 1.0);
        }
    }
}

#[test]
fn labels_of_a_labelled_video_are_carried_along() {
    let data = street(3);
    let (said, scores) = evaluated("video", data.path(), "--layout generic --split train --rows 4 --cols 6 --passes 1");
    assert_eq!(names(&scores)[..2], ["the first labels", ROWS[0]], "{said}");
    let miou = |idx: usize| scores[idx]["miou"].as_f64().unwrap();
    assert!(miou(0) > 0.3 && (0..names(&scores).len()).all(|idx| miou(idx) <= 1.0), "sky and road stay where they are: {said}");
}

#[test]
fn sizes_that_are_no_whole_patches_are_refused() {
    let set = compose("spair", "--test 1");
    let (said, _) = evaluated("spair", set.path(), "--sizes 64,100");
    assert!(said.contains("--sizes: 100 is no positive multiple of the patch, 16"), "{said}");
}
