//! The images that a command was given: files, and folders searched for image files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::preprocess::DecodeLimits;

/// What the client itself decodes: the server's limits do not bind it.
pub const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 30, max_pixels: 1 << 29 };
/// File extensions that a folder is searched for.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "jfif"];

/// An image and the name that its results get, relative to the output folder and without extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputImage {
    /// Where the image is.
    pub path: PathBuf,
    /// `holiday/beach` for `beach.jpg` in the sub-folder `holiday` of a folder that was given; the file's stem for a single file.
    pub name: PathBuf,
}

/// Lists the images, folders recursively and in alphabetical order.
///
/// # Errors
/// A path that does not exist, a folder without images, and two images with the same name.
pub fn collect(paths: &[PathBuf]) -> anyhow::Result<Vec<InputImage>> {
    let mut images = Vec::new();
    for path in paths {
        let about = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if !about.is_dir() {
            let name = path.file_stem().with_context(|| format!("{} has no file name", path.display()))?;
            images.push(InputImage { path: path.clone(), name: name.into() });
            continue;
        }
        let n_before = images.len();
        search(path, path, &mut images)?;
        if images.len() == n_before {
            bail!("{} holds no images ({})", path.display(), EXTENSIONS.join(", "));
        }
    }
    refuse_twins(&images)?;
    Ok(images)
}

fn search(root: &Path, folder: &Path, images: &mut Vec<InputImage>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            search(root, &path, images)?;
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
        if EXTENSIONS.contains(&extension.as_str()) {
            let name = path.strip_prefix(root).unwrap_or(&path).with_extension("");
            images.push(InputImage { path, name });
        }
    }
    Ok(())
}

fn refuse_twins(images: &[InputImage]) -> anyhow::Result<()> {
    let mut seen = std::collections::HashMap::new();
    for image in images {
        if let Some(twin) = seen.insert(&image.name, &image.path) {
            bail!("{} and {} would get the same output name", twin.display(), image.path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn folders_are_searched_in_order_and_keep_their_structure() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["b.JPG", "a.png", "notes.txt", "sub/c.webp"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let found = collect(&[folder.path().to_path_buf()]).unwrap();
        let names: Vec<_> = found.iter().map(|image| image.name.to_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "sub/c"]);
    }

    #[test]
    fn images_that_would_overwrite_each_other_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "a.jpg"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let error = collect(&[folder.path().to_path_buf()]).unwrap_err();
        assert!(error.to_string().contains("same output name"), "{error}");
    }

    #[test]
    fn an_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(collect(&[folder.path().to_path_buf()]).unwrap_err().to_string().contains("holds no images"));
    }
}
