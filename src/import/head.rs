//! LiFT heads: what their files say of themselves, and how one joins a model that was imported before.

use std::{fs, path::Path};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::{
    import::{CheckError, HeadOptions, ImportError, publish, write, write_failed},
    manifest::{Facet, LiftScore, Manifest, ModelEntry, Tap, load_dir},
    mmap::map_file,
};

/// Key of the card in the metadata of a safetensors file.
const CARD: &str = "densevit.lift";

/// What a trainer writes into the file of a head, so that nobody has to type it: JSON in the metadata of the safetensors header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftCard {
    /// What the head was trained on.
    pub tap: Tap,
    /// SHA-256 of the file of weights that the backbone was imported from.
    pub backbone_source_sha256: String,
    /// Licence of the weights.
    pub license: String,
    /// What its trainer measured.
    pub scores: Vec<LiftScore>,
}

impl LiftCard {
    /// The card of a file; none if it has none or is of another format.
    ///
    /// # Errors
    /// When the file cannot be read, or the card is not one.
    pub fn read(path: &Path) -> Result<Option<Self>, ImportError> {
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            return Ok(None);
        }
        let bad = |problem: String| ImportError::Option { option: "--lift", problem: format!("{}: {problem}", path.display()) };
        let map = map_file(path).map_err(|error| bad(error.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&map).map_err(|error| bad(format!("is no safetensors file: {error}")))?;
        let Some(text) = header.metadata().as_ref().and_then(|metadata| metadata.get(CARD)) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| bad(format!("its {CARD} cannot be read: {error}")))
    }

    /// Key and value for the metadata of a file.
    #[must_use]
    pub fn metadata(&self) -> (&'static str, String) {
        (CARD, serde_json::to_string(self).unwrap_or_default())
    }
}

/// A head whose file and options agree.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) options: &'a HeadOptions,
    /// The only activations it accepts.
    pub(super) tap: Tap,
    pub(super) license: String,
    pub(super) scores: Vec<LiftScore>,
}

impl<'a> Head<'a> {
    /// Reads the card and compares it with the options and with the backbone's weights.
    pub(super) fn open(options: &'a HeadOptions, depth: u32, backbone_source_sha256: &str) -> Result<Self, ImportError> {
        let published = Tap { facet: Facet::Key, layer: depth.saturating_sub(1) };
        let license = options.license.clone();
        let Some(card) = LiftCard::read(&options.source)? else {
            let license = license.unwrap_or_else(|| "unknown".to_owned());
            return Ok(Self { options, tap: options.tap.unwrap_or(published), license, scores: Vec::new() });
        };
        if let Some(tap) = options.tap.filter(|tap| *tap != card.tap) {
            let problem = format!("the head was trained on the {}, not on the {tap}", card.tap);
            return Err(ImportError::Option { option: "--lift-tap", problem });
        }
        if card.backbone_source_sha256 != backbone_source_sha256 && !options.any_backbone {
            let problem = format!(
                "the head was trained on the backbone of the weights with SHA-256 {}, these have {backbone_source_sha256} \
                 (--lift-any-backbone takes it all the same: for the same weights in another file)",
                card.backbone_source_sha256
            );
            return Err(ImportError::Option { option: "--lift", problem });
        }
        Ok(Self { options, tap: card.tap, license: license.unwrap_or(card.license), scores: card.scores })
    }
}

/// Gives a model a head, or another one. `check` opens the new directory as a server would, before it takes the old one's place.
///
/// # Errors
/// See [`ImportError`]; the old directory stays as it was then.
pub fn install_head(
    dir: &Path,
    options: &HeadOptions,
    check: impl FnOnce(&ModelEntry) -> Result<(), CheckError>,
) -> Result<ModelEntry, ImportError> {
    // The place by its real name: `.` and `..` have no parents to put a new directory in.
    let dir = dir.canonicalize().map_err(|source| ImportError::Model { path: dir.to_path_buf(), source: source.into() })?;
    let invalid = |source: crate::manifest::RepositoryError| ImportError::Model { path: dir.clone(), source: source.into() };
    let entry = load_dir(&dir).map_err(invalid)?;
    entry.verify().map_err(invalid)?;
    let manifest = Manifest { lift: None, ..entry.manifest };
    let head = Head::open(options, manifest.architecture.depth, &manifest.provenance.source_sha256)?;
    let repository = dir.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let write = |written: &Path| {
        for (file, _digest) in manifest.files() {
            link(&dir.join(file), &written.join(file))?;
        }
        let lift = Some(write::lift(&manifest.architecture, &manifest.backbone, &head, written)?);
        write::manifest(&Manifest { lift, ..manifest }, written)
    };
    publish((repository, &dir, true), write, check)
}

/// A second name for a file, or a copy where file systems know none.
fn link(from: &Path, to: &Path) -> Result<(), ImportError> {
    let linked = fs::hard_link(from, to).or_else(|_no_links| fs::copy(from, to).map(drop));
    linked.map_err(|source| write_failed(to, source))
}
