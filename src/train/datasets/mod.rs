//! Data sets of the tasks that features are measured on, in the layouts of their makers: boxes of VOC ([`voc`]) and COCO20k ([`coco`]),
//! keypoints of SPair-71k ([`spair`]), videos of DAVIS 2017 ([`davis`]).
//!
//! In: folders. Out: paths and annotations. Each module reads its layout for `eval` and writes it for `compose`, so that what composed sets
//! hold and what evaluations look for stand beside each other.

pub mod indexed;

pub mod voc;

pub mod coco;

pub mod spair;

pub mod davis;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A box in continuous coordinates of the image: `[x0, y0, x1, y1]`.
pub type Corners = [f64; 4];

/// An image and the boxes of its objects.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxedImage {
    /// The image.
    pub image: PathBuf,
    /// Its objects.
    pub boxes: Vec<Corners>,
}

/// A text file; the error names it.
fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Makes a folder and those above it; the error names it.
///
/// # Errors
/// When it cannot be made.
pub fn create_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))
}
