//! Cards: what a trainer writes into the file of a head, so that nobody has to type it. JSON in the metadata of the safetensors header.

use std::{collections::HashMap, path::Path};

use safetensors::SafeTensors;
use serde::de::DeserializeOwned;

use crate::{import::ImportError, mmap::map_file};

/// The card under `key` in a file; none if it has none or is of another format. `option` is the one that named the file.
///
/// # Errors
/// When the file cannot be read, or the card is not one.
pub(super) fn read<T: DeserializeOwned>(path: &Path, key: &str, option: &'static str) -> Result<Option<T>, ImportError> {
    let Some(text) = metadata(path, option)?.remove(key) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| ImportError::Option {
        option,
        problem: format!("{}: its {key} cannot be read: {error}", path.display()),
    })
}

/// All metadata of a safetensors file; nothing of other formats.
pub(super) fn metadata(path: &Path, option: &'static str) -> Result<HashMap<String, String>, ImportError> {
    if path.extension().is_none_or(|extension| extension != "safetensors") {
        return Ok(HashMap::new());
    }
    let bad = |problem: String| ImportError::Option { option, problem: format!("{}: {problem}", path.display()) };
    let map = map_file(path).map_err(|error| bad(error.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&map).map_err(|error| bad(format!("is no safetensors file: {error}")))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Refuses a head whose card names another file of weights than the one that the backbone was imported from.
pub(super) fn check_backbone((named, found): (&str, &str), any_backbone: bool, option: &'static str) -> Result<(), ImportError> {
    if named == found || any_backbone {
        return Ok(());
    }
    let problem = format!(
        "the head was trained on the backbone of the weights with SHA-256 {named}, these have {found} \
         ({option}-any-backbone takes it all the same: for the same weights in another file)"
    );
    Err(ImportError::Option { option, problem })
}
