//! k nearest neighbours and a linear classifier on one vector an image: how well a backbone tells kinds of images apart, and so a judge of
//! pre-training.
//!
//! # Design
//! k-NN as DINO's authors do it (Caron et al., ICCV 2021, after Wu et al., CVPR 2018): cosines, the k nearest vote with `exp(cos / 0.07)`;
//! images with the short side at 8/7 of the size, of which the middle is taken. The linear classifier learns on the same vectors, computed once, without
//! augmentation, so that its numbers are not those of papers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::{
    backbone::Backbone,
    data::{photos, square::middle},
    linear::{Standard, learn},
};

/// Temperature of the votes.
const TEMPERATURE: f64 = 0.07;
/// Part of the short side that is looked at.
const MIDDLE: f64 = 7.0 / 8.0;
/// Steps of the linear classifier.
const STEPS: u64 = 500;

/// What stands for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Vector {
    /// The class token.
    Cls,
    /// The mean of the patches.
    Mean,
}

/// A folder with a folder of images for each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFolder {
    /// Names of the folders, sorted.
    pub classes: Vec<String>,
    /// Images, with the index of their class.
    pub images: Vec<(PathBuf, i64)>,
}

/// Vectors of images.
///
/// # Shapes
/// - `vectors`: `[N, D]` f32
/// - `classes`: `[N]` i64
#[derive(Debug)]
pub struct Described {
    /// One an image.
    pub vectors: Tensor,
    /// Their classes.
    pub classes: Tensor,
}

/// Share of images whose class was told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassifyScore {
    /// Neighbours, and the share, for every k that is not above the number of images.
    pub knn: Vec<(i64, f64)>,
    /// Of the linear classifier, one a seed.
    pub linear: Vec<f64>,
}

impl ImageFolder {
    /// Lists `FOLDER/CLASS/` for every class; images of a class lie at any depth below.
    ///
    /// # Errors
    /// When there are fewer than two classes, a class without images, or a folder cannot be read.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
        folders.sort();
        ensure!(
            folders.len() >= 2,
            "{} holds {} folders of images; at least two classes are needed",
            folder.display(),
            folders.len()
        );
        let mut found = Self { classes: Vec::new(), images: Vec::new() };
        for (class, folder) in (0i64..).zip(&folders) {
            let photos =
                photos::find(std::slice::from_ref(folder), 0.0).with_context(|| format!("reading {}", folder.display()))?.train;
            ensure!(!photos.is_empty(), "{} holds no images", folder.display());
            found.classes.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
            found.images.extend(photos.into_iter().map(|photo| (photo.path, class)));
        }
        Ok(found)
    }
}

/// Runs the backbone on the images of a folder.
///
/// # Errors
/// When an image cannot be read, or the model has no class token and one is wanted.
pub fn describe(backbone: &mut Backbone, folder: &ImageFolder, size: u32, vector: Vector) -> anyhow::Result<Described> {
    let mut vectors = Vec::with_capacity(folder.images.len());
    for (path, _) in &folder.images {
        let image = middle(path, MIDDLE, size, backbone.patch())?;
        let (map, cls) = backbone.described(&image, vector == Vector::Cls)?;
        let vector = match cls {
            Some(cls) => Tensor::from_slice(&cls),
            None => {
                let channels = i64::try_from(map.channels())?;
                Tensor::from_slice(map.data()).view([-1, channels]).mean_dim([0i64].as_slice(), false, Kind::Float)
            }
        };
        vectors.push(vector);
    }
    let classes: Vec<i64> = folder.images.iter().map(|(_, class)| *class).collect();
    Ok(Described { vectors: Tensor::stack(&vectors, 0), classes: Tensor::from_slice(&classes) })
}

/// Tells the classes of `test` from `train`.
#[must_use]
pub fn score(train: &Described, test: &Described, neighbours: &[i64], seeds: u64) -> ClassifyScore {
    let n = train.classes.size()[0];
    let right = |told: &Tensor| told.eq_tensor(&test.classes).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    let knn = neighbours.iter().filter(|k| **k <= n).map(|k| (*k, right(&vote(train, &test.vectors, *k)))).collect();
    let standard = Standard::of(&train.vectors);
    let (learned, asked) = (standard.apply(&train.vectors), standard.apply(&test.vectors));
    let linear = (0..seeds).map(|seed| right(&learn(&learned, &train.classes, STEPS, seed)(&asked))).collect();
    ClassifyScore { knn, linear }
}

/// Classes by the votes of the `k` nearest.
fn vote(train: &Described, asked: &Tensor, k: i64) -> Tensor {
    let unit = |of: &Tensor| of / of.norm_scalaropt_dim(2, [1i64].as_slice(), true).clamp_min(1e-12);
    let cosines = unit(asked).matmul(&unit(&train.vectors).transpose(0, 1));
    let (nearest, idx) = cosines.topk(k, 1, true, true);
    let n_classes = train.classes.max().int64_value(&[]) + 1;
    let classes = train.classes.index_select(0, &idx.view([-1])).view_as(&idx);
    let votes = Tensor::zeros([asked.size()[0], n_classes], (Kind::Float, asked.device()));
    votes.scatter_add(1, &classes, &(nearest / TEMPERATURE).exp()).argmax(1, false)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn described(vectors: &[[f32; 2]], classes: &[i64]) -> Described {
        Described { vectors: Tensor::from_slice(&vectors.concat()).view([-1, 2]), classes: Tensor::from_slice(classes) }
    }

    #[test]
    fn the_nearest_by_angle_votes_and_near_ones_weigh_more() {
        // Class 0 once at an angle of 0, class 1 twice at right angles.
        let train = described(&[[5.0, 0.0], [0.0, 1.0], [0.0, 2.0]], &[0, 1, 1]);
        let asked = Tensor::from_slice(&[1f32, 0.1]).view([1, 2]);
        assert_eq!(vote(&train, &asked, 1).int64_value(&[0]), 0);
        // exp(.995 / .07) against 2 exp(.0995 / .07).
        assert_eq!(vote(&train, &asked, 3).int64_value(&[0]), 0);
        let between = Tensor::from_slice(&[1f32, 0.98]).view([1, 2]);
        assert_eq!(vote(&train, &between, 3).int64_value(&[0]), 1);
    }

    #[test]
    fn classes_that_lie_apart_are_told_and_more_neighbours_than_images_are_left_out() {
        let around = |x: f32, y: f32| [[x + 0.1, y], [x - 0.1, y], [x, y + 0.1], [x, y - 0.1]];
        let vectors = [around(1.0, 3.0), around(3.0, 1.0)].concat();
        let classes = [0, 0, 0, 0, 1, 1, 1, 1];
        let score = score(&described(&vectors, &classes), &described(&vectors, &classes), &[3, 200], 2);
        assert_eq!(score.knn, [(3, 1.0)]);
        assert_eq!(score.linear, [1.0, 1.0]);
    }

    #[test]
    fn classes_are_the_sorted_folders_and_one_without_images_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let pixel = image::RgbImage::new(2, 2);
        for (class, colour) in [("cat", 1), ("ant", 2)] {
            let inside = folder.path().join(class).join("deep");
            std::fs::create_dir_all(&inside).unwrap();
            let mut image = pixel.clone();
            image.put_pixel(0, 0, image::Rgb([colour; 3]));
            image.save(inside.join("a.png")).unwrap();
        }
        let found = ImageFolder::open(folder.path()).unwrap();
        assert_eq!(found.classes, ["ant", "cat"]);
        assert_eq!(found.images.iter().map(|(_, class)| *class).collect::<Vec<_>>(), [0, 1]);
        std::fs::create_dir(folder.path().join("bee")).unwrap();
        let error = ImageFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("bee"), "{error}");
    }
}
