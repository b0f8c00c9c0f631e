//! Keypoints of pairs in the layout of SPair-71k (Min et al., 2019): `PairAnnotation/SPLIT/*.json`, `ImageAnnotation/CATEGORY/*.json`,
//! `JPEGImages/CATEGORY/*.jpg`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::datasets::{Corners, read_text};

/// `PairAnnotation/SPLIT/*.json`, as far as it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairAnnotation {
    /// What both images show.
    pub category: String,
    /// 1 where the target is to be mirrored, which no pair of the data set asks for.
    pub mirror: u8,
    /// File name of the source.
    pub src_imname: String,
    /// File name of the target.
    pub trg_imname: String,
    /// Width, height and depth of the source.
    pub src_imsize: Vec<u32>,
    /// Width, height and depth of the target.
    pub trg_imsize: Vec<u32>,
    /// Box of the object in the source.
    pub src_bndbox: Corners,
    /// Box of the object in the target.
    pub trg_bndbox: Corners,
    /// Names of the keypoints that both show.
    pub kps_ids: Vec<serde_json::Value>,
    /// `[x, y]` of each in the source.
    pub src_kps: Vec<[f64; 2]>,
    /// `[x, y]` of each in the target.
    pub trg_kps: Vec<[f64; 2]>,
}

/// `ImageAnnotation/CATEGORY/*.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageAnnotation {
    /// File name.
    pub filename: String,
    /// Columns, in pixels.
    pub image_width: u32,
    /// Rows, in pixels.
    pub image_height: u32,
    /// Channels.
    pub image_depth: u32,
    /// What it shows.
    pub category: String,
    /// Box of the object.
    pub bndbox: Corners,
    /// Every keypoint of the category; nothing where it is not seen.
    pub kps: BTreeMap<String, Option<[f64; 2]>>,
}

/// A pair of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Where the points are.
    pub annotation: PairAnnotation,
    /// The source.
    pub source: PathBuf,
    /// The target.
    pub target: PathBuf,
}

/// The pairs of a split, by category and then by file name, whatever the file system's order.
///
/// # Errors
/// When a file cannot be read, or its points do not belong to each other.
pub fn read(root: &Path, split: &str) -> anyhow::Result<Vec<Pair>> {
    let folder = pair_folder(root, split);
    let mut pairs = Vec::new();
    for path in json_files(&folder)? {
        let annotation: PairAnnotation = parse(&path)?;
        check(&annotation).with_context(|| path.display().to_string())?;
        let image = |name: &str| image_folder(root, &annotation.category).join(name);
        let (source, target) = (image(&annotation.src_imname), image(&annotation.trg_imname));
        pairs.push(Pair { annotation, source, target });
    }
    ensure!(!pairs.is_empty(), "{} holds no pairs", folder.display());
    pairs.sort_by(|a, b| a.annotation.category.cmp(&b.annotation.category));
    Ok(pairs)
}

/// Annotation of an image.
///
/// # Errors
/// When it cannot be read.
pub fn read_image(root: &Path, category: &str, stem: &str) -> anyhow::Result<ImageAnnotation> {
    parse(&image_annotation_folder(root, category).join(format!("{stem}.json")))
}

/// Where the pairs of a split are.
#[must_use]
pub fn pair_folder(root: &Path, split: &str) -> PathBuf {
    root.join("PairAnnotation").join(split)
}

/// Where the images of a category are.
#[must_use]
pub fn image_folder(root: &Path, category: &str) -> PathBuf {
    root.join("JPEGImages").join(category)
}

/// Where the annotations of the images of a category are.
#[must_use]
pub fn image_annotation_folder(root: &Path, category: &str) -> PathBuf {
    root.join("ImageAnnotation").join(category)
}

fn json_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    Ok(paths)
}

fn parse<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    serde_json::from_str(&read_text(path)?).with_context(|| format!("reading {}", path.display()))
}

fn check(annotation: &PairAnnotation) -> anyhow::Result<()> {
    ensure!(annotation.mirror == 0, "mirrored pairs are not supported");
    ensure!(annotation.src_imsize.len() >= 2 && annotation.trg_imsize.len() >= 2, "an image has no width and height");
    let counts = [annotation.kps_ids.len(), annotation.src_kps.len(), annotation.trg_kps.len()];
    ensure!(counts[0] == counts[1] && counts[1] == counts[2], "{counts:?} names and points in source and target");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn pair(category: &str) -> String {
        format!(
            r#"{{"pair_id":1,"category":"{category}","mirror":0,"src_imname":"a.jpg","trg_imname":"b.jpg","src_imsize":[60,40,3],
                "trg_imsize":[50,40,3],"src_bndbox":[1,2,30,40],"trg_bndbox":[1,2,30,40],"kps_ids":["0","3"],
                "src_kps":[[1,2],[3,4]],"trg_kps":[[5,6],[7,8.5]],"viewpoint_variation":2}}"#
        )
    }

    #[test]
    fn pairs_come_in_the_order_of_their_categories() {
        let root = tempfile::tempdir().unwrap();
        let folder = pair_folder(root.path(), "test");
        fs::create_dir_all(&folder).unwrap();
        for (file, category) in [("000000-a-b:dog.json", "dog"), ("000001-a-b:cat.json", "cat"), ("000002-a-b:dog.json", "dog")] {
            fs::write(folder.join(file), pair(category)).unwrap();
        }
        fs::write(folder.join("notes.txt"), "").unwrap();
        let pairs = read(root.path(), "test").unwrap();
        let categories: Vec<&str> = pairs.iter().map(|pair| pair.annotation.category.as_str()).collect();
        assert_eq!(categories, ["cat", "dog", "dog"]);
        assert!(pairs[0].target.ends_with("JPEGImages/cat/b.jpg"));
        assert_eq!(pairs[0].annotation.trg_kps, [[5.0, 6.0], [7.0, 8.5]]);
        let spoilt = pair("cat").replace("[3,4]],\"trg", "[3,4],[5,6]],\"trg");
        fs::write(folder.join("000003-a-b:cat.json"), spoilt).unwrap();
        let problem = format!("{:#}", read(root.path(), "test").unwrap_err());
        assert!(problem.contains("000003-a-b:cat.json: [2, 3, 2] names and points"), "{problem}");
    }
}
