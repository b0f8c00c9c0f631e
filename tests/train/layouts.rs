//! Every layout on a look-alike, and what is said of data that cannot be used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use image::{GrayImage, RgbImage};
use tempfile::TempDir;
use train::segmentation::data::{
    DataError,
    classes::IGNORED,
    layout::{Dataset, LAYOUTS, Layout},
};

fn layout(name: &str) -> Layout {
    name.parse().unwrap()
}

fn path(root: &Path, file: &str) -> PathBuf {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// An image of 4 x 2 pixels.
fn photo(root: &Path, file: &str) {
    RgbImage::from_pixel(4, 2, image::Rgb([9, 9, 9])).save(path(root, file)).unwrap();
}

/// Labels of 4 x 2 pixels, the values repeated.
fn labels(root: &Path, file: &str, values: &[u8]) {
    let data = values.iter().copied().cycle().take(8).collect();
    GrayImage::from_raw(4, 2, data).unwrap().save(path(root, file)).unwrap();
}

/// Labels of the first image of a split.
fn first(dataset: &Dataset) -> Vec<u8> {
    dataset.samples[0].open(&dataset.classes).unwrap().1.data
}

/// A look-alike of a layout: one image.
struct Case {
    layout: &'static str,
    split: &'static str,
    image: &'static str,
    labels: &'static str,
    /// File that names the image; nothing where there is none.
    list: &'static str,
    /// Values in the file of labels, and the classes that they are.
    values: [[u8; 3]; 2],
}

const CASES: [Case; 8] = [
    Case {
        layout: "camvid",
        split: "val",
        image: "images/val/a.png",
        labels: "annotations/val/a.png",
        list: "",
        values: [[0, 10, 11], [0, 10, 255]],
    },
    Case {
        layout: "ade20k",
        split: "training",
        image: "images/training/ADE_1.jpg",
        labels: "annotations/training/ADE_1.png",
        list: "",
        values: [[0, 1, 150], [255, 0, 149]],
    },
    Case {
        layout: "voc",
        split: "train",
        image: "JPEGImages/2007_1.jpg",
        labels: "SegmentationClass/2007_1.png",
        list: "ImageSets/Segmentation/train.txt",
        values: [[0, 20, 255], [0, 20, 255]],
    },
    Case {
        layout: "pascal-context",
        split: "val",
        image: "JPEGImages/2008_1.jpg",
        labels: "SegmentationClassContext/2008_1.png",
        list: "ImageSets/SegmentationContext/val.txt",
        values: [[0, 59, 255], [0, 59, 255]],
    },
    Case {
        layout: "coco-stuff-10k",
        split: "test2014",
        image: "images/test2014/COCO_1.jpg",
        labels: "annotations/test2014/COCO_1_labelTrainIds.png",
        list: "",
        values: [[0, 1, 171], [255, 0, 170]],
    },
    Case {
        layout: "coco-stuff-27",
        split: "val2017",
        image: "dataset/images/val2017/000001.jpg",
        labels: "dataset/annotations/val2017/000001.png",
        list: "curated/val2017/Coco164kFull_Stuff_Coarse.txt",
        values: [[0, 181, 255], [9, 24, 255]],
    },
    Case {
        layout: "cityscapes",
        split: "test",
        image: "leftImg8bit/test/berlin/berlin_1_leftImg8bit.png",
        labels: "gtFine/test/berlin/berlin_1_gtFine_labelIds.png",
        list: "",
        values: [[7, 33, 0], [0, 18, 255]],
    },
    Case {
        layout: "cityscapes-train-ids",
        split: "train",
        image: "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png",
        labels: "gtFine/train/ulm/ulm_1_gtFine_labelTrainIds.png",
        list: "",
        values: [[0, 18, 255], [0, 18, 255]],
    },
];

#[test]
fn every_layout_is_read_from_its_own_folders_with_its_own_values() {
    for Case { layout: name, split, image, labels: file, list, values: [values, classes] } in CASES {
        let root = tempfile::tempdir().unwrap();
        photo(root.path(), image);
        labels(root.path(), file, &values);
        if !list.is_empty() {
            // An image that no list names.
            photo(root.path(), &image.replace('1', "2"));
            let id = Path::new(image).file_stem().unwrap().to_str().unwrap();
            fs::write(path(root.path(), list), format!("{id}\n\n")).unwrap();
        }
        let dataset = layout(name).read(root.path(), split).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((dataset.samples.len(), &first(&dataset)[..3]), (1, classes.as_slice()), "{name}");
        assert!(dataset.classes.list().iter().all(|class| !class.name.is_empty()), "{name}");
    }
    // Those with a table of classes beside the folders have tests of their own.
    assert_eq!(LAYOUTS.len(), CASES.len() + 2);
}

#[test]
fn lists_of_coarse_coco_are_not_needed() {
    let root = tempfile::tempdir().unwrap();
    photo(root.path(), "dataset/images/train2017/1.jpg");
    labels(root.path(), "dataset/annotations/train2017/1.png", &[91]);
    let dataset = layout("coco-stuff-27").read(root.path(), "train2017").unwrap();
    assert_eq!(first(&dataset)[0], 17);
}

/// A generic data set with two images.
fn generic() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let classes = "ignore = [7]\n\
        class = [\n  { name = \"sky\", color = [0, 0, 255] },\n  { name = \"road\", color = [90, 90, 90], values = [3, 4] },\n]\n";
    fs::write(root.path().join("classes.toml"), classes).unwrap();
    for name in ["a", "b"] {
        photo(root.path(), &format!("images/test/{name}.png"));
        labels(root.path(), &format!("masks/test/{name}.png"), &[0, 3, 4, 7]);
    }
    root
}

fn refused(root: &Path, split: &str) -> String {
    let read = layout("generic").read(root, split);
    let opened = read.and_then(|dataset| {
        let opened: Result<Vec<_>, DataError> = dataset.samples.iter().map(|sample| sample.open(&dataset.classes)).collect();
        opened.map(drop)
    });
    opened.unwrap_err().to_string()
}

#[test]
fn anybodys_own_data_are_read_with_their_table_of_classes() {
    let root = generic();
    let dataset = layout("generic").read(root.path(), "test").unwrap();
    assert_eq!(first(&dataset), [0, 1, 1, IGNORED, 0, 1, 1, IGNORED]);
    assert_eq!(dataset.classes.list()[1].color, [90, 90, 90]);
    let names: Vec<_> = dataset.samples.iter().map(|sample| sample.image.file_name().unwrap()).collect();
    assert_eq!(names, ["a.png", "b.png"]);
}

#[test]
fn data_that_cannot_be_used_are_named() {
    let root = generic();
    labels(root.path(), "masks/test/b.png", &[0, 5]);
    assert!(refused(root.path(), "test").contains("b.png holds label 5 at row 0, column 1"), "{}", refused(root.path(), "test"));
    GrayImage::new(3, 2).save(root.path().join("masks/test/b.png")).unwrap();
    let size = refused(root.path(), "test");
    assert!(
        size.contains("masks/test/b.png has [2, 3] rows and columns") && size.contains("images/test/b.png has [2, 4]"),
        "{size}"
    );
    fs::write(root.path().join("images/test/b.png"), "no picture").unwrap();
    assert!(refused(root.path(), "test").contains("images/test/b.png: it"), "{}", refused(root.path(), "test"));
    fs::remove_file(root.path().join("masks/test/b.png")).unwrap();
    let missing = refused(root.path(), "test");
    assert!(
        missing.contains("images/test/b.png has no labels") && missing.contains("masks/test/b.png is not there"),
        "{missing}"
    );
    fs::create_dir_all(root.path().join("images/val")).unwrap();
    let empty = refused(root.path(), "val");
    assert!(empty.contains("\"val\" holds no images") && empty.contains("images/val has none"), "{empty}");
    assert!(refused(root.path(), "nothing").contains("images/nothing"), "{}", refused(root.path(), "nothing"));
    fs::write(root.path().join("classes.toml"), "class = []").unwrap();
    fs::remove_file(root.path().join("images/test/b.png")).unwrap();
    assert!(refused(root.path(), "test").contains("classes.toml: 0 classes"), "{}", refused(root.path(), "test"));
}

#[test]
fn lists_that_name_what_is_not_there_are_named() {
    let root = tempfile::tempdir().unwrap();
    let read = || layout("voc").read(root.path(), "train").unwrap_err().to_string();
    assert!(read().contains("ImageSets/Segmentation/train.txt"), "{}", read());
    fs::write(path(root.path(), "ImageSets/Segmentation/train.txt"), "2007_9\n").unwrap();
    assert!(read().contains("train.txt names 2007_9"), "{}", read());
    let unknown = "cityscape".parse::<Layout>().unwrap_err();
    assert!(unknown.contains("\"cityscape\" is no layout; known are generic, camvid"), "{unknown}");
}
