//! `train compose`: the same seed gives the same bytes, no cut-out is in two splits, and the readers of the layouts find what was composed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use train::{
    datasets::{coco, davis, indexed, spair, voc},
    segmentation::data::{labels::Labels, layout::Layout},
};

use crate::support::{cut_outs, photos};

/// Composes a set and gives its folder.
pub fn compose(layout: &str, flags: &str) -> TempDir {
    let (cut_outs, photos, out) = (cut_outs(24), photos(12), tempfile::tempdir().unwrap());
    composed(layout, flags, [cut_outs.path(), photos.path()], out.path());
    out
}

fn composed(layout: &str, flags: &str, [cut_outs, photos]: [&Path; 2], out: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.args(["compose", layout, "--size", "64,96", "--min-side", "16", "--min-colours", "0"]).args(flags.split_whitespace());
    for (flag, path) in [("--cut-outs", cut_outs), ("--photos", photos), ("--out", out)] {
        command.arg(flag).arg(path);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() || said.starts_with("train:"), "{said}");
    said
}

/// All files below a folder and their bytes.
fn bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The box around a value.
fn bounds(labels: &Labels, value: u8) -> [f64; 4] {
    let places: Vec<[u32; 2]> = (0..labels.height)
        .flat_map(|y| (0..labels.width).map(move |x| [x, y]))
        .filter(|[x, y]| labels.data[(y * labels.width + x) as usize] == value)
        .collect();
    let along = |axis: usize| places.iter().map(move |place| place[axis]);
    [along(0).min().unwrap(), along(1).min().unwrap(), along(0).max().unwrap() + 1, along(1).max().unwrap() + 1].map(f64::from)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let (cut_outs, photos) = (cut_outs(24), photos(12));
    for (layout, flags) in
        [("voc", "--train 2 --test 1"), ("coco", "--test 2"), ("spair", "--val 1 --test 1"), ("davis", "--val 1 --frames 3")]
    {
        let make = |seed: u32| {
            let out = tempfile::tempdir().unwrap();
            let said = composed(layout, &format!("{flags} --seed {seed}"), [cut_outs.path(), photos.path()], out.path());
            assert!(said.contains("24 cut-outs"), "{said}");
            let files = bytes(out.path());
            assert!(files.contains_key(Path::new("sheet.png")), "{layout}");
            files
        };
        let first = make(7);
        assert!(first == make(7), "{layout}");
        let other = make(8);
        let is_image = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "jpg");
        assert!(first.keys().filter(is_image).all(|path| first.get(path) != other.get(path)), "{layout}");
    }
}

#[test]
fn no_cut_out_is_in_two_splits() {
    let set = compose("spair", "--train 1 --val 1 --test 1");
    let record: Value = serde_json::from_str(&fs::read_to_string(set.path().join("composed.json")).unwrap()).unwrap();
    let of = |split: &str| -> BTreeSet<String> {
        record["cut_outs"][split].as_array().unwrap().iter().map(|own| own[1].as_str().unwrap().to_owned()).collect()
    };
    let splits = ["train", "val", "test"].map(of);
    assert_eq!(splits.iter().map(BTreeSet::len).sum::<usize>(), 24);
    assert!(splits.iter().all(|split| !split.is_empty()));
    assert_eq!(splits.iter().flatten().collect::<BTreeSet<_>>().len(), 24);
}

#[test]
fn boxes_and_masks_of_voc_are_read_back_to_the_same_truth() {
    let set = compose("voc", "--train 3 --val 2 --test 2");
    let counts = ["train", "val", "trainval", "test"].map(|split| voc::read(set.path(), split, false).unwrap().len());
    assert_eq!(counts, [3, 2, 5, 2]);
    for boxed in voc::read(set.path(), "trainval", false).unwrap() {
        let id = boxed.image.file_stem().unwrap().to_str().unwrap().to_owned();
        let mask = |kind: &str| indexed::read(&set.path().join(kind).join(format!("{id}.png"))).unwrap();
        let (objects, classes) = (mask("SegmentationObject"), mask("SegmentationClass"));
        assert_eq!(image::image_dimensions(&boxed.image).unwrap(), (objects.width, objects.height));
        let numbers: Vec<u8> = (1..=u8::try_from(boxed.boxes.len()).unwrap()).collect();
        assert_eq!(boxed.boxes, numbers.iter().map(|number| bounds(&objects, *number)).collect::<Vec<_>>(), "{id}");
        assert!(objects.data.iter().zip(&classes.data).all(|(object, class)| (*object == 0) == (*class == 0)), "{id}");
        let xml = fs::read_to_string(set.path().join("Annotations").join(format!("{id}.xml"))).unwrap();
        assert!(xml.contains("<name>round</name>") || xml.contains("<name>square</name>"), "{xml}");
    }
    let layout: Layout = "voc-own".parse().unwrap();
    let dataset = layout.read(set.path(), "train").unwrap();
    let names: Vec<&str> = dataset.classes.list().iter().map(|class| class.name.as_str()).collect();
    assert_eq!((names, dataset.samples.len()), (vec!["background", "round", "square"], 3));
    let (_, labels) = dataset.samples[0].open(&dataset.classes).unwrap();
    assert!(labels.data.iter().all(|label| *label <= 2) && labels.data.iter().any(|label| *label > 0));
}

#[test]
fn boxes_of_coco_are_those_of_the_masks() {
    let set = compose("coco", "--test 4");
    let images = coco::read(set.path()).unwrap();
    assert_eq!(images.len(), 4);
    let json: Value = serde_json::from_str(&fs::read_to_string(set.path().join(coco::INSTANCES)).unwrap()).unwrap();
    let mut n_objects = 0;
    for object in json["annotations"].as_array().unwrap() {
        let size = object["segmentation"]["size"].as_array().unwrap();
        let [rows, cols] = [0, 1].map(|axis| usize::try_from(size[axis].as_u64().unwrap()).unwrap());
        let counts = object["segmentation"]["counts"].as_str().unwrap();
        let mask = densevit::masks::Rle::from_coco_string(rows, cols, counts).unwrap().decode().unwrap();
        let (ys, xs) = mask.bounds().unwrap();
        let expected = [xs.start, ys.start, xs.end, ys.end].map(|corner| f64::from(u32::try_from(corner).unwrap()));
        let image = usize::try_from(object["image_id"].as_u64().unwrap()).unwrap() - 1;
        assert!(images[image].boxes.contains(&expected));
        assert_eq!(object["area"].as_f64().unwrap(), f64::from(u32::try_from(mask.area_px()).unwrap()));
        n_objects += 1;
    }
    assert_eq!(images.iter().map(|image| image.boxes.len()).sum::<usize>(), n_objects);
}

#[test]
fn keypoints_of_pairs_lie_on_the_object_and_go_through_its_map() {
    let set = compose("spair", "--test 6");
    let pairs = spair::read(set.path(), "test").unwrap();
    assert_eq!(pairs.len(), 6);
    for pair in &pairs {
        let annotation = &pair.annotation;
        assert!(annotation.kps_ids.len() >= 4 && annotation.mirror == 0);
        assert_eq!(annotation.src_imsize, [96, 64, 3]);
        for (image, corners, points, kps) in [
            (&pair.source, annotation.src_bndbox, &annotation.src_kps, &annotation.src_imname),
            (&pair.target, annotation.trg_bndbox, &annotation.trg_kps, &annotation.trg_imname),
        ] {
            let own = spair::read_image(set.path(), &annotation.category, kps.strip_suffix(".jpg").unwrap()).unwrap();
            assert_eq!((own.bndbox, own.kps.len(), own.image_width), (corners, 12, 96));
            let picture = image::open(image).unwrap().into_rgb8();
            for (id, [x, y]) in annotation.kps_ids.iter().zip(points) {
                assert_eq!(own.kps[id.as_str().unwrap()], Some([*x, *y]));
                assert!(*x >= corners[0] && *x <= corners[2] && *y >= corners[1] && *y <= corners[3]);
                // Objects are red, darkened by a quarter at most.
                let [red, green, blue] = picture.get_pixel(*x as u32, *y as u32).0;
                assert!(red > 140 && green.max(blue) < 90, "{} at {x} {y}: {red} {green} {blue}", image.display());
            }
        }
        // Both are affine maps of the same points, so that one is an affine map of the other.
        let residual = affine_residual(&annotation.src_kps, &annotation.trg_kps);
        // Points are rounded to hundredths of a pixel.
        assert!(residual < 0.1, "{residual}");
    }
}

/// Largest distance to the best affine map of one list of points to another.
fn affine_residual(from: &[[f64; 2]], to: &[[f64; 2]]) -> f64 {
    use tch::Tensor;
    let rows = |points: &[[f64; 2]]| Tensor::from_slice(&points.concat()).view([-1, 2]);
    let ones = Tensor::ones([i64::try_from(from.len()).unwrap(), 1], (tch::Kind::Double, tch::Device::Cpu));
    let design = Tensor::cat(&[rows(from), ones], 1);
    let map = design.pinverse(1e-9).matmul(&rows(to));
    (design.matmul(&map) - rows(to)).abs().max().double_value(&[])
}

#[test]
fn videos_are_read_back_with_masks_of_objects_that_move() {
    let set = compose("davis", "--val 3 --frames 5");
    let videos = davis::read(set.path(), "val").unwrap();
    assert_eq!(videos.iter().map(|video| video.frames.len()).collect::<Vec<_>>(), [5; 3]);
    for video in &videos {
        let masks: Vec<Labels> = video.masks.iter().map(|mask| indexed::read(mask).unwrap()).collect();
        let n_objects = masks[0].data.iter().copied().max().unwrap();
        assert!((1..=3).contains(&n_objects));
        assert!((1..=n_objects).all(|object| masks[0].data.contains(&object)));
        let middle = |mask: &Labels| bounds(mask, 1)[0] + bounds(mask, 1)[2];
        assert!((middle(&masks[0]) - middle(&masks[4])).abs() > 10.0, "the first object goes through the image");
        assert!(
            masks
                .iter()
                .zip(&video.frames)
                .all(|(mask, frame)| { image::image_dimensions(frame).unwrap() == (mask.width, mask.height) })
        );
    }
}

#[test]
fn what_cannot_be_composed_is_named() {
    let (cut_outs, photos, out) = (cut_outs(24), photos(12), tempfile::tempdir().unwrap());
    let said = |layout: &str, flags: &str, own: &Path| composed(layout, flags, [own, photos.path()], out.path());
    assert!(said("voc", "", cut_outs.path()).contains("nothing to compose"));
    assert!(said("coco", "--train 5", cut_outs.path()).contains("(coco: --test)"));
    assert!(said("voc", "--test 1", photos.path()).contains("no cut-outs among 12 files"));
    fs::write(out.path().join("mine.txt"), "").unwrap();
    assert!(said("voc", "--test 1", cut_outs.path()).contains("holds files already"));
}
