//! `densevit view --discover`, `match` and `propagate`: pictures and label maps, and what is said of wrong input.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::{Serving, models, photos, run};

/// A folder with a mask of label 1 in the left half of a photo of [`photos`], and label 0 in the right one.
fn mask() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("first.png");
    image::GrayImage::from_fn(64, 48, |x, _y| image::Luma([u8::from(x < 32)])).save(&path).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// Pixels of a palette file, as they are stored.
fn values(path: &Path) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().unwrap();
    assert_eq!(reader.output_color_type(), (png::ColorType::Indexed, png::BitDepth::Eight));
    let mut values = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut values).unwrap();
    values
}

#[test]
fn each_command_leaves_its_picture() {
    let (serving, output, input) = (Serving::start(), tempfile::tempdir().unwrap(), photos(3, false));
    let (server, folder) = (serving.address.as_str(), input.path().to_str().unwrap());
    let photo = |idx: u32| input.path().join(format!("photo_{idx}.png")).to_str().unwrap().to_owned();
    let out = |name: &str| output.path().join(name).to_str().unwrap().to_owned();

    let objects = out("objects.png");
    let said = run(&["view", &photo(0), "-o", &objects, "--discover", "--objects", "2", "--native", "--server", server]);
    let said = said.expect_success().stdout;
    assert!(said.contains("tiny/1") && said.contains(" objects"), "{said}");
    let picture = image::open(&objects).unwrap();
    // Two panels of 448 pixels' height and 4 : 3, and a legend.
    assert!(picture.width() > 2 * 597 + 3 * 8 && picture.height() == 448 + 24 + 8, "{}", picture.width());
    run(&["view", &photo(0), "-o", &objects, "--discover", "--gram-bias", "-2.5", "--native", "--server", server])
        .expect_success();

    let norms = out("norms.png");
    let said = run(&["view", &photo(0), "-o", &norms, "--norms", "--native", "--server", server]).expect_success().stdout;
    assert!(said.starts_with("block  0: median ") && said.contains("block  1: ") && said.contains("outliers: none"), "{said}");
    // The photo beside the histograms, below them two maps of 3 x 4 cells.
    let picture = image::open(&norms).unwrap();
    assert!(picture.width() >= 2 * 597 + 3 * 8 && picture.height() == 2 * (448 + 24 + 8), "{}", picture.width());

    let matches = out("matches.png");
    let given = ["match", &photo(0), &photo(1), "-o", &matches, "--native", "--server", server];
    let said = run(&[&given[..], &["--points", "8,8", "40.5,24"]].concat()).expect_success().stdout;
    assert!(said.starts_with("8.0,8.0 -> ") && said.contains("40.5,24.0 -> ") && said.contains("2 points"), "{said}");
    let said = run(&[&given[..], &["--grid", "4"]].concat()).expect_success().stdout;
    assert!(said.contains("12 points") && said.lines().count() == 1, "4 x 3 on 64 x 48 pixels: {said}");
    let picture = image::open(&matches).unwrap();
    assert_eq!((picture.width(), picture.height()), (2 * 597 + 3 * 8, 448 + 24 + 8));

    let ((_kept, mask), labels) = (mask(), out("labels"));
    let said = run(&["propagate", folder, "--mask", &mask, "-o", &labels, "--native", "--radius", "2", "--server", server]);
    let said = said.expect_success().stdout;
    assert!(said.contains("labelled 3 frame(s)"), "{said}");
    for idx in 0..3 {
        let values = values(&output.path().join(format!("labels/photo_{idx}.png")));
        assert_eq!(values.len(), 64 * 48);
        assert_eq!((values[0], values[63]), (1, 0), "frame {idx}: the same photo again");
    }
    let sheet = image::open(output.path().join("labels/contact-sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (3 * 256 + 4 * 8, 192 + 24 + 8));
}

#[test]
fn a_part_of_the_frames_is_labelled_and_shown_alone() {
    let (output, input, (_kept, mask)) = (tempfile::tempdir().unwrap(), photos(2, false), mask());
    let (folder, out) = (input.path().to_str().unwrap(), output.path().to_str().unwrap());
    // One cell gives its label, of the first frame, which is the same photo: each cell finds itself.
    let names =
        ["propagate", folder, "--mask", &mask, "-o", out, "--native", "--crop", "16,0,32,48", "--top-k", "1", "--context", "0"];
    run(&[&names[..], &["--models", models().to_str().unwrap()]].concat()).expect_success();
    let values = values(&output.path().join("photo_1.png"));
    assert_eq!((values.len(), values[0], values[31]), (32 * 48, 1, 0));
}

#[test]
fn wrong_input_is_named() {
    let (input, broken, (_kept, mask)) = (photos(2, false), photos(1, true), mask());
    let models = models().to_str().unwrap();
    let photo = input.path().join("photo_0.png");
    let (photo, folder, broken) = (photo.to_str().unwrap(), input.path().to_str().unwrap(), broken.path().to_str().unwrap());
    let out = input.path().join("out.png");
    let out = out.to_str().unwrap();
    let cases: [(&[&str], &str); 12] = [
        (&["view", photo, "-o", out, "--discover", "--masks"], "--masks"),
        (&["view", photo, "-o", out, "--tau", "0.3"], "--discover"),
        (&["view", photo, "-o", out, "--discover", "--tau", "7", "--models", models], "token_cut.tau"),
        (&["view", photo, "-o", out, "--discover", "--objects", "99", "--models", models], "n_objects"),
        (&["match", photo, "nowhere.png", "-o", out, "--models", models], "nowhere.png"),
        (&["match", photo, photo, "-o", out, "--points", "8;8", "--models", models], "--points"),
        (&["match", photo, photo, "-o", out, "--points", "8,8", "80,2", "--models", models], "points[1]"),
        (&["match", photo, photo, "-o", out, "--grid", "0", "--models", models], "--grid"),
        (&["propagate", folder, "--mask", "nowhere.png", "-o", out, "--models", models], "--mask"),
        (&["propagate", folder, "--mask", photo, "-o", out, "--models", models], "--mask"),
        (&["propagate", folder, "--mask", &mask, "-o", out, "--top-k", "0", "--models", models], "start.options.top_k"),
        (&["propagate", broken, "--mask", &mask, "-o", out, "--models", models], "broken.jpg"),
    ];
    for (arguments, words) in cases {
        let error = run(arguments).expect_failure();
        assert!(error.contains(words) && !error.contains("panicked"), "{arguments:?}: {error}");
    }
}
