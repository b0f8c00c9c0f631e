//! The model repository: folders `NAME/VERSION/` with a `model.toml`, read and checked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::manifest::{Manifest, sha256, sha256_file};

/// Name of the manifest in a model directory.
pub const MANIFEST_FILE: &str = "model.toml";
/// Layout of the manifest that this program reads and writes.
pub const FORMAT: u32 = 1;

/// What can be wrong with a model directory.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// A file or folder could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A manifest does not parse.
    #[error("{path} is no manifest")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A manifest contradicts itself or its place.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What.
        problem: String,
    },
    /// A file is not the one that the manifest describes.
    #[error("{path} has SHA-256 {found}, the manifest says {expected}: import the model again")]
    Digest {
        /// Which file.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
}

/// A model directory.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    /// `NAME/VERSION` inside the repository.
    pub dir: PathBuf,
    /// Its manifest, checked.
    pub manifest: Manifest,
    /// SHA-256 of `model.toml`. The manifest holds the digests of all other files, so this one stands for the whole model.
    pub digest: String,
}

/// Finds all models of a repository, by name and version. Hidden folders and files are passed over.
///
/// # Errors
/// [`RepositoryError`] for the first directory that is not in order; a folder without `model.toml` is one.
pub fn scan(repository: &Path) -> Result<Vec<ModelEntry>, RepositoryError> {
    let mut entries = model_dirs(repository)?.iter().map(|dir| load_dir(dir)).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|a, b| (&a.manifest.name, a.manifest.version).cmp(&(&b.manifest.name, b.manifest.version)));
    Ok(entries)
}

/// The folders `NAME/VERSION` of a repository, whatever is in them. Hidden ones are passed over.
///
/// # Errors
/// [`RepositoryError::Read`].
pub fn model_dirs(repository: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let mut dirs = Vec::new();
    for name in folders(repository)? {
        dirs.extend(folders(&name)?);
    }
    Ok(dirs)
}

/// Reads one model directory. Digests of the files are not compared yet; see [`ModelEntry::verify`].
///
/// # Errors
/// [`RepositoryError`], naming the file.
pub fn load_dir(dir: &Path) -> Result<ModelEntry, RepositoryError> {
    let path = dir.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).map_err(|source| RepositoryError::Read { path: path.clone(), source })?;
    let parsed: Result<Manifest, _> = toml::from_str(&text);
    let manifest = parsed.map_err(|source| RepositoryError::Parse { path: path.clone(), source: Box::new(source) })?;
    check(&manifest, dir).map_err(|problem| RepositoryError::Invalid { path, problem })?;
    Ok(ModelEntry { dir: dir.to_path_buf(), digest: sha256(text.as_bytes()), manifest })
}

impl ModelEntry {
    /// Compares every file with its digest in the manifest.
    ///
    /// # Errors
    /// [`RepositoryError::Digest`] for the first file that differs, [`RepositoryError::Read`] for one that is not there.
    pub fn verify(&self) -> Result<(), RepositoryError> {
        for (file, expected) in self.manifest.files() {
            let path = self.dir.join(file);
            let found = sha256_file(&path).map_err(|source| RepositoryError::Read { path: path.clone(), source })?;
            if found != *expected {
                return Err(RepositoryError::Digest { path, found, expected: expected.to_owned() });
            }
        }
        Ok(())
    }
}

/// Whether `name` can be a model's name: letters, digits, `.`, `_` and `-`, not beginning with a dot, at most 128.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(allowed)
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let read = |source| RepositoryError::Read { path: dir.to_path_buf(), source };
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// What the types cannot say. Returns the problem.
fn check(manifest: &Manifest, dir: &Path) -> Result<(), String> {
    let last = |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let place = (last(dir.parent()), last(Some(dir)));
    require(manifest.format == FORMAT, || {
        format!("format {} is not {FORMAT}: another version of this program wrote it", manifest.format)
    })?;
    require(is_valid_name(&manifest.name), || format!("\"{}\" cannot be a model's name", manifest.name))?;
    require(place.0.as_ref() == Some(&manifest.name), || {
        format!("the model is called \"{}\", its folder {:?}", manifest.name, place.0)
    })?;
    require(place.1 == Some(manifest.version.to_string()), || {
        format!("the version is {}, its folder {:?}", manifest.version, place.1)
    })?;
    check_files(manifest)?;
    check_taps(manifest)?;
    check_heads(manifest)
}

fn check_files(manifest: &Manifest) -> Result<(), String> {
    let names = manifest.files().into_iter().map(|(file, _digest)| file);
    let outside = names.into_iter().find(|file| Path::new(file).components().count() != 1 || *file == "..");
    require(outside.is_none(), || format!("names a file outside the directory: {outside:?}"))
}

fn check_taps(manifest: &Manifest) -> Result<(), String> {
    let (architecture, backbone) = (&manifest.architecture, &manifest.backbone);
    require(architecture.patch > 0 && architecture.width > 0 && architecture.heads > 0, || "a size is zero".to_owned())?;
    let too_deep = backbone.layers.iter().find(|layer| **layer >= architecture.depth);
    require(too_deep.is_none(), || format!("offers block {too_deep:?} of {}", architecture.depth))?;
    let halves_at = backbone.query_downsample.filter(|block| *block >= architecture.depth);
    require(halves_at.is_none(), || format!("halves its grid in block {halves_at:?} of {}", architecture.depth))?;
    require(backbone.offers(backbone.default), || format!("the default, {}, is not offered", backbone.default))
}

fn check_heads(manifest: &Manifest) -> Result<(), String> {
    let backbone = &manifest.backbone;
    if let Some(lift) = &manifest.lift {
        require(lift.backbone_sha256 == backbone.sha256, || {
            format!("the LiFT head belongs to backbone {}, this is {}", lift.backbone_sha256, backbone.sha256)
        })?;
        require(backbone.offers(lift.tap), || format!("the LiFT head takes the {}, which is not offered", lift.tap))?;
        require(!backbone.is_halved(lift.tap), || {
            format!("the LiFT head takes the {}, whose grid the backbone halves", lift.tap)
        })?;
    }
    manifest.segmenter.as_ref().map_or(Ok(()), |segmenter| segmenter.check(manifest))
}

/// The problem, unless `holds`.
pub(super) fn require(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}
