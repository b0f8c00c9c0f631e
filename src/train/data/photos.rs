//! Finds the photos, and splits them by their content.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use densevit::{
    manifest::sha256_file,
    preprocess::{DecodeLimits, decode},
    tensor::RgbImage,
};

/// File extensions that folders are searched for.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"];

/// Far above any photo; what exceeds it is refused before it is decoded.
const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 28, max_pixels: 1 << 27 };

/// A photo, known by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
}

/// Photos for training and for validation.
#[derive(Clone, Debug, Default)]
pub struct Split {
    /// To learn from.
    pub train: Vec<Photo>,
    /// To measure on.
    pub validation: Vec<Photo>,
}

/// Reads and decodes an image.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn open(path: &Path) -> Result<RgbImage, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    decode(&bytes, &LIMITS).map_err(|error| error.to_string())
}

/// Finds all photos under `folders`, recursively, each content once, and splits them. A photo stays on its side whatever its name and
/// whatever else is there.
///
/// # Errors
/// When a folder or a file cannot be read.
pub fn find(folders: &[PathBuf], validation: f64) -> io::Result<Split> {
    let mut paths = Vec::new();
    for folder in folders {
        search(folder, &mut paths)?;
    }
    let mut photos = Vec::with_capacity(paths.len());
    for path in paths {
        let digest = sha256_file(&path)?;
        photos.push(Photo { path, digest });
    }
    photos.sort_by(|a, b| a.digest.cmp(&b.digest));
    photos.dedup_by(|a, b| a.digest == b.digest);
    let (validation, train) = photos.into_iter().partition(|photo| is_validation(&photo.digest, validation));
    Ok(Split { train, validation })
}

/// Whether a content belongs to the `share` that is kept for validation.
fn is_validation(digest: &str, share: f64) -> bool {
    let leading = digest.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(u32::MAX);
    f64::from(leading) / 2f64.powi(32) < share
}

fn search(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, paths)?;
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
        if EXTENSIONS.contains(&extension.as_str()) {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_photo_stays_on_its_side_when_others_come_and_names_change() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        (0..40).for_each(|idx| write(&format!("{idx}.jpg"), &format!("photo {idx}")));
        let find = || find(&[folder.path().to_path_buf()], 0.3).unwrap();
        let digests = |photos: &[Photo]| photos.iter().map(|photo| photo.digest.clone()).collect::<Vec<_>>();
        let before = find();
        assert_eq!(before.train.len() + before.validation.len(), 40);
        assert!((5..20).contains(&before.validation.len()), "{}", before.validation.len());
        (0..40).for_each(|idx| {
            fs::rename(folder.path().join(format!("{idx}.jpg")), folder.path().join(format!("n{idx}.png"))).unwrap()
        });
        write("copy.jpg", "photo 0");
        write("notes.txt", "no photo");
        let after = find();
        assert_eq!(digests(&after.validation), digests(&before.validation));
        assert_eq!(digests(&after.train), digests(&before.train));
    }
}
