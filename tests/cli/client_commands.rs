//! `densevit extract`, `view` and `models`, with a server of their own and with one that runs.

use std::fs;

use crate::support::{Serving, fixture, models, photos, run};

/// `numpy.load` sees this shape.
fn npy_shape(path: &std::path::Path) -> String {
    let bytes = fs::read(path).unwrap();
    let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    header.split("'shape': ").nth(1).unwrap().split_once(')').unwrap().0.to_owned() + ")"
}

#[test]
fn a_folder_is_extracted_once_and_resumed_and_a_broken_image_fails_alone() {
    let (input, output) = (photos(3, true), tempfile::tempdir().unwrap());
    let (images, out, models) = (input.path().to_str().unwrap(), output.path().to_str().unwrap(), models().to_str().unwrap());
    let extract = || run(&["extract", images, "-o", out, "--native", "--models", models]);
    let first = extract();
    assert!(!first.is_success && first.stdout.contains("extracted 3 image(s)") && first.stdout.contains("failed 1"), "{first:?}");
    assert!(first.stderr.contains("broken.jpg") && first.stderr.contains("image.encoded"), "{first:?}");
    // 48 x 64 pixels, patch 16, one LiFT pass: 6 x 8 cells.
    assert_eq!(npy_shape(&output.path().join("photo_0.npy")), "(6, 8, 64)");
    let written = fs::metadata(output.path().join("photo_0.npy")).unwrap().modified().unwrap();
    let second = extract();
    assert!(second.stdout.contains("skipped 3"), "{second:?}");
    assert_eq!(fs::metadata(output.path().join("photo_0.npy")).unwrap().modified().unwrap(), written);
}

#[test]
fn a_running_server_answers_all_three_commands() {
    let (serving, output, input) = (Serving::start(), tempfile::tempdir().unwrap(), photos(1, false));
    let server = serving.address.as_str();
    let photo = input.path().join("photo_0.png");
    let (photo, out) = (photo.to_str().unwrap(), |name: &str| output.path().join(name).to_str().unwrap().to_owned());
    let listed = run(&["models", "--server", server]).expect_success().stdout;
    assert!(listed.contains("* tiny/1") && listed.contains("LiFT official"), "{listed}");
    assert_eq!(run(&["health", "--server", server]).expect_success().stdout.trim(), "SERVING");
    run(&["health", "--server", server, "--service", "models/tiny"]).expect_success();
    let unknown = run(&["health", "--server", server, "--service", "models/huge"]).expect_failure();
    assert!(unknown.contains("unknown service") || unknown.contains("not found"), "{unknown}");
    let arrays = out("all.safetensors");
    run(&["extract", photo, "-o", &arrays, "--cls", "--dtype", "f16", "--chw", "--native", "--server", server]).expect_success();
    let bytes = fs::read(&arrays).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("features").unwrap().shape(), [64, 6, 8]);
    assert_eq!(file.tensor("cls_token").unwrap().shape(), [64]);
    let picture = out("picture.png");
    run(&["view", photo, "-o", &picture, "--native", "--server", server]).expect_success();
    let picture = image::open(&picture).unwrap();
    // Four panels of 448 pixels' height and 4 : 3, five margins of 8.
    assert_eq!((picture.width(), picture.height()), (4 * 597 + 5 * 8, 448 + 24 + 8));
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let input = photos(2, false);
    let (images, models) = (input.path().to_str().unwrap(), models().to_str().unwrap());
    let readme = fixture("../../README.md");
    let cases: [(&[&str], &str); 7] = [
        (&["health", "--server", "127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
        (&["extract", images, "-o", "one.npy", "--models", models], "give a folder"),
        (&["extract", "nowhere.jpg", "-o", "x.npy", "--models", models], "nowhere.jpg"),
        (&["extract", images, "-o", "out", "--cls", "--models", models], "--format safetensors"),
        (&["models", "--server", "127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
        (&["models", "--models", "/nowhere"], "/nowhere"),
        (&["view", &readme, "-o", "x.png", "--models", models], "README.md"),
    ];
    for (arguments, words) in cases {
        let error = run(arguments).expect_failure();
        assert!(error.starts_with("densevit: ") && error.contains(words), "{arguments:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}
