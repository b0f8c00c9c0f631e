//! Videos in the layout of DAVIS 2017 (Pont-Tuset et al., 2017): `JPEGImages/480p/SEQUENCE/00000.jpg`,
//! `Annotations/480p/SEQUENCE/00000.png` (a value an object), `ImageSets/2017/SPLIT.txt`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::datasets::read_text;

/// The resolution that is used; frames have 480 rows.
pub const RESOLUTION: &str = "480p";

/// A video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// Its frames, in order.
    pub frames: Vec<PathBuf>,
    /// Masks of each frame.
    pub masks: Vec<PathBuf>,
}

/// The videos of a split in the order of its list.
///
/// # Errors
/// When the list or a folder cannot be read, a video has no frames, or a frame no masks.
pub fn read(root: &Path, split: &str) -> anyhow::Result<Vec<Sequence>> {
    let list = list(root, split);
    let text = read_text(&list)?;
    let sequences = text.lines().map(str::trim).filter(|name| !name.is_empty()).map(|name| sequence(root, name));
    let sequences = sequences.collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!sequences.is_empty(), "{} names no videos", list.display());
    Ok(sequences)
}

/// The list of a split.
#[must_use]
pub fn list(root: &Path, split: &str) -> PathBuf {
    root.join("ImageSets/2017").join(format!("{split}.txt"))
}

/// Folders of the frames of a video, and of their masks.
#[must_use]
pub fn folders(root: &Path, name: &str) -> [PathBuf; 2] {
    ["JPEGImages", "Annotations"].map(|kind| root.join(kind).join(RESOLUTION).join(name))
}

fn sequence(root: &Path, name: &str) -> anyhow::Result<Sequence> {
    let [images, annotations] = folders(root, name);
    let entries = fs::read_dir(&images).with_context(|| format!("reading {}", images.display()))?;
    let mut frames = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    frames.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    frames.sort();
    ensure!(!frames.is_empty(), "{} holds no frames", images.display());
    let mask = |frame: &PathBuf| annotations.join(Path::new(frame.file_name().unwrap_or_default()).with_extension("png"));
    let masks: Vec<PathBuf> = frames.iter().map(mask).collect();
    let missing = masks.iter().find(|mask| !mask.is_file());
    ensure!(missing.is_none(), "{} is not there", missing.map(|path| path.display().to_string()).unwrap_or_default());
    Ok(Sequence { name: name.to_owned(), frames, masks })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn videos_of_the_list_have_a_mask_for_each_frame() {
        let root = tempfile::tempdir().unwrap();
        let [images, masks] = folders(root.path(), "bear");
        fs::create_dir_all(&images).unwrap();
        fs::create_dir_all(&masks).unwrap();
        fs::create_dir_all(list(root.path(), "val").parent().unwrap()).unwrap();
        fs::write(list(root.path(), "val"), "bear\n").unwrap();
        for frame in ["00001", "00000"] {
            fs::write(images.join(frame).with_extension("jpg"), "").unwrap();
            fs::write(masks.join(frame).with_extension("png"), "").unwrap();
        }
        let sequences = read(root.path(), "val").unwrap();
        assert_eq!(sequences[0].frames, [images.join("00000.jpg"), images.join("00001.jpg")]);
        assert_eq!(sequences[0].masks[1], masks.join("00001.png"));
        fs::remove_file(masks.join("00001.png")).unwrap();
        assert!(read(root.path(), "val").unwrap_err().to_string().contains("bear/00001.png is not there"));
    }
}
