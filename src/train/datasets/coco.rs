//! Boxes in the layout of COCO20k: `coco_20k_filenames.txt` names some of the images of `images/train2014`, whose objects are in
//! `annotations/instances_train2014.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::datasets::{BoxedImage, read_text};

/// The images that count.
pub const LIST: &str = "coco_20k_filenames.txt";
/// Objects of all images.
pub const INSTANCES: &str = "annotations/instances_train2014.json";
/// Folder of the images, and its name in the list.
pub const IMAGES: [&str; 2] = ["images", "train2014"];

/// `instances_train2014.json`, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instances {
    /// The images.
    pub images: Vec<ImageEntry>,
    /// Objects of all images.
    pub annotations: Vec<ObjectEntry>,
    /// What objects are.
    pub categories: Vec<CategoryEntry>,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageEntry {
    /// Its number.
    pub id: u64,
    /// File name.
    pub file_name: String,
    /// Columns, in pixels.
    pub width: u32,
    /// Rows, in pixels.
    pub height: u32,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its number.
    pub id: u64,
    /// The image that it is in.
    pub image_id: u64,
    /// What it is.
    pub category_id: u64,
    /// Left, top, width and height.
    pub bbox: [f64; 4],
    /// Pixels of its mask.
    pub area: f64,
    /// 1 for many objects in one box, which do not count.
    pub iscrowd: u8,
    /// Its mask: run lengths of columns, written only.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<RunLengths>,
}

/// A mask as COCO writes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunLengths {
    /// Rows and columns.
    pub size: [u32; 2],
    /// Lengths of runs, in COCO's letters.
    pub counts: String,
}

/// What an object can be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CategoryEntry {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// The images of the list by their numbers, crowds left out.
///
/// # Errors
/// When a file cannot be read, or the list names an image that has no entry.
pub fn read(root: &Path) -> anyhow::Result<Vec<BoxedImage>> {
    let list = root.join(LIST);
    let ids = read_text(&list)?.lines().filter(|line| !line.trim().is_empty()).map(id).collect::<anyhow::Result<BTreeSet<u64>>>();
    let ids = ids.with_context(|| format!("reading {}", list.display()))?;
    ensure!(!ids.is_empty(), "{} names no images", list.display());
    let path = root.join(INSTANCES);
    let file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
    let instances: Instances =
        serde_json::from_reader(BufReader::new(file)).with_context(|| format!("reading {}", path.display()))?;
    let folder = root.join(IMAGES[0]).join(IMAGES[1]);
    let entries = instances.images.into_iter().filter(|entry| ids.contains(&entry.id));
    let image = |entry: ImageEntry| (entry.id, BoxedImage { image: folder.join(entry.file_name), boxes: Vec::new() });
    let mut images: BTreeMap<u64, BoxedImage> = entries.map(image).collect();
    let missing = ids.iter().find(|id| !images.contains_key(id));
    ensure!(
        missing.is_none(),
        "{} names image {}, {} does not",
        list.display(),
        missing.copied().unwrap_or_default(),
        path.display()
    );
    for object in instances.annotations.iter().filter(|object| object.iscrowd == 0) {
        if let Some(image) = images.get_mut(&object.image_id) {
            let [left, top, width, height] = object.bbox;
            image.boxes.push([left, top, left + width, top + height]);
        }
    }
    Ok(images.into_values().collect())
}

/// File name of the image of a number.
#[must_use]
pub fn file_name(id: u64) -> PathBuf {
    PathBuf::from(format!("COCO_{}_{id:012}.jpg", IMAGES[1]))
}

/// The number in `train2014/COCO_train2014_000000000009.jpg`.
fn id(line: &str) -> anyhow::Result<u64> {
    let stem = line.trim().rsplit('_').next().unwrap_or_default().split('.').next().unwrap_or_default();
    stem.parse().with_context(|| format!("\"{}\" ends in no number", line.trim()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn numbers_are_read_from_names_of_files() {
        assert_eq!(id("train2014/COCO_train2014_000000000009.jpg").unwrap(), 9);
        assert_eq!(file_name(9).to_str().unwrap(), "COCO_train2014_000000000009.jpg");
        assert!(id("train2014/nine.jpg").is_err());
    }

    #[test]
    fn crowds_and_images_outside_the_list_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("annotations")).unwrap();
        let image = |id: u64| format!(r#"{{"id":{id},"file_name":"{id}.jpg","width":8,"height":6,"license":3}}"#);
        let object = |image_id: u64, iscrowd: u8| {
            format!(
                r#"{{"id":1,"image_id":{image_id},"category_id":1,"bbox":[1,2,3,4.5],"area":9,"iscrowd":{iscrowd},"segmentation":[[1,2]]}}"#
            )
        };
        let json = format!(
            r#"{{"info":{{}},"images":[{},{}],"annotations":[{},{},{}],"categories":[{{"id":1,"name":"cat","supercategory":"pet"}}]}}"#,
            image(9),
            image(25),
            object(9, 0),
            object(9, 1),
            object(25, 0)
        );
        std::fs::write(root.path().join(INSTANCES), json).unwrap();
        std::fs::write(root.path().join(LIST), "train2014/COCO_train2014_000000000009.jpg\n").unwrap();
        let images = read(root.path()).unwrap();
        assert_eq!(images.len(), 1);
        assert!(images[0].image.ends_with("images/train2014/9.jpg"));
        assert_eq!(images[0].boxes, [[1.0, 2.0, 4.0, 6.5]]);
        std::fs::write(root.path().join(LIST), "COCO_train2014_000000000077.jpg\n").unwrap();
        assert!(format!("{:#}", read(root.path()).unwrap_err()).contains("names image 77"));
    }
}
