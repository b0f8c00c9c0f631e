//! Turns files of weights into a model directory that can be served.
//!
//! In: an [`ImportOptions`]. Out: `OUT/NAME/VERSION/` with `backbone.onnx`, `position.safetensors`, `lift.onnx` and `segment.onnx` if such
//! heads were given, and `model.toml`. [`install_head`] and [`install_segmenter`] give a head to a directory that is there. Called by
//! `commands::import`, `commands::head` and the trainer.
//!
//! # Design
//! The directory is written under a hidden name beside its place, opened and run once by a check that the caller brings (this module
//! does not know the runtime), and renamed: it is there whole or not at all.

mod baked;
mod card;
mod head;
mod install;
mod options;
mod ranges;
mod segment;
mod write;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use head::LiftCard;
pub use install::{HeadKind, install_head, install_segmenter};
pub use options::{HeadOptions, ImportOptions, Preset, SegmentOptions};
pub use ranges::{CalibrationGraph, RangesCard, calibration_graph};
pub use segment::SegmentCard;

use crate::{
    manifest::{ModelEntry, RepositoryError, is_valid_name, load_dir, sha256_file},
    onnx::OnnxError,
    weights::{self, Recognised, VitHints, WeightsError, assemble_vit},
};

/// Boxed reason of a failed check.
pub type CheckError = Box<dyn std::error::Error + Send + Sync>;

/// Why an import failed. Nothing is left behind then.
#[derive(Debug, Error)]
pub enum ImportError {
    /// An option cannot be used.
    #[error("{option}: {problem}")]
    Option {
        /// Which option.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The place is taken.
    #[error("{path} exists already (--force replaces it)")]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// The backbone's weights cannot be used.
    #[error("cannot use the weights in {path}")]
    Weights {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: WeightsError,
    },
    /// A model directory that was to get a head cannot be used.
    #[error("cannot use the model in {path}")]
    Model {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: CheckError,
    },
    /// A graph cannot be made.
    #[error("cannot write the graph")]
    Graph(#[source] OnnxError),
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why: no space, no permission.
        #[source]
        source: io::Error,
    },
    /// What was written cannot be read back.
    #[error("the written model is not in order")]
    Written(#[source] RepositoryError),
    /// What was written does not run.
    #[error("the written model does not run")]
    Check(#[source] CheckError),
}

/// A model directory that was written.
#[derive(Debug)]
pub struct Imported {
    /// The model.
    pub entry: ModelEntry,
    /// Key map that fitted.
    pub key_map: &'static str,
    /// Prefix that was stripped from the names.
    pub prefix: String,
}

/// Imports a model. `check` opens the directory as a server would, before it gets its final name.
///
/// # Errors
/// See [`ImportError`].
pub fn import(
    options: &ImportOptions,
    check: impl FnOnce(&ModelEntry) -> Result<(), CheckError>,
) -> Result<Imported, ImportError> {
    if !is_valid_name(&options.name) {
        let problem = format!("\"{}\" cannot be a model's name: letters, digits, '.', '_' and '-'", options.name);
        return Err(ImportError::Option { option: "--name", problem });
    }
    let place = options.out.join(&options.name).join(options.version.to_string());
    if !options.force && fs::symlink_metadata(&place).is_ok() {
        return Err(ImportError::Exists { path: place });
    }
    let recognised = recognise(options)?;
    let (key_map, prefix) = (recognised.key_map, recognised.prefix.clone());
    let entry = publish((&options.out, &place, options.force), |dir| write::model(&recognised, options, dir), check)?;
    Ok(Imported { entry, key_map, prefix })
}

/// Reads the weights that an import would take.
///
/// # Errors
/// [`ImportError::Weights`] when they cannot be used, [`ImportError::Option`] for a `config.json` beside them that is none.
pub fn recognise(options: &ImportOptions) -> Result<Recognised, ImportError> {
    let failed = |source| ImportError::Weights { path: options.source.clone(), source };
    let tensors = weights::read(&options.source).map_err(failed)?;
    let hints = hints(options)?;
    let mut recognised = assemble_vit(tensors, &hints).map_err(failed)?;
    recognised.variant = options.position.unwrap_or(recognised.variant);
    Ok(recognised)
}

/// What `config.json` beside Hugging Face weights says, overridden by the options.
fn hints(options: &ImportOptions) -> Result<VitHints, ImportError> {
    let mut hints = VitHints { heads: options.heads, norm_eps: options.norm_eps, native_grid: options.native_grid };
    let path = options.source.with_file_name("config.json");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(hints) };
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| ImportError::Option { option: "SOURCE", problem: format!("{} is no JSON: {error}", path.display()) })?;
    let heads = json.get("num_attention_heads").and_then(serde_json::Value::as_u64).and_then(|heads| u32::try_from(heads).ok());
    hints.heads = hints.heads.or(heads);
    hints.norm_eps = hints.norm_eps.or_else(|| json.get("layer_norm_eps").and_then(serde_json::Value::as_f64));
    Ok(hints)
}

/// Lets `write` make a model directory out of sight, checks it, and puts it at `place`, two folders below the repository `out`.
fn publish(
    (out, place, force): (&Path, &Path, bool),
    write: impl FnOnce(&Path) -> Result<(), ImportError>,
    check: impl FnOnce(&ModelEntry) -> Result<(), CheckError>,
) -> Result<ModelEntry, ImportError> {
    fs::create_dir_all(out).map_err(|source| write_failed(out, source))?;
    let scratch = tempfile::Builder::new().prefix(".import-").tempdir_in(out).map_err(|source| write_failed(out, source))?;
    // Inside a folder of the model's name, because a manifest must lie where it says.
    let written = scratch.path().join(place.strip_prefix(out).unwrap_or(place));
    fs::create_dir_all(&written).map_err(|source| write_failed(&written, source))?;
    write(&written)?;
    let entry = load_dir(&written).map_err(ImportError::Written)?;
    check(&entry).map_err(ImportError::Check)?;
    put_in_place(&written, place, force)?;
    Ok(ModelEntry { dir: place.to_path_buf(), ..entry })
}

fn put_in_place(written: &Path, place: &Path, force: bool) -> Result<(), ImportError> {
    let parent = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|source| write_failed(parent, source))?;
    // The old version leaves with the scratch folder, after the new one is in place.
    let old = written.with_extension("old");
    let had_old = force && fs::rename(place, &old).is_ok();
    fs::rename(written, place).map_err(|source| {
        if had_old {
            let _restored = fs::rename(&old, place);
        }
        write_failed(place, source)
    })
}

/// SHA-256 of a file, hexadecimal.
fn digest(path: &Path) -> Result<String, ImportError> {
    sha256_file(path).map_err(|source| write_failed(path, source))
}

fn write_failed(path: &Path, source: io::Error) -> ImportError {
    ImportError::Write { path: path.to_path_buf(), source }
}
