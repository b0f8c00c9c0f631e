//! Gives a model that is there a head, or another one.

use std::{fs, path::Path};

use crate::{
    import::{
        CheckError, HeadOptions, ImportError, SegmentOptions, card, head,
        head::Head,
        publish,
        segment::{self, Segmenter},
        write, write_failed,
    },
    manifest::{Manifest, ModelEntry, SegmentInput, load_dir},
    weights::{self, WeightsError, is_lift, recognise_segment},
};

/// What a file of weights is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// A LiFT head.
    Lift,
    /// A segmentation head.
    Segment,
}

impl HeadKind {
    /// Recognises the head in a file by its card, otherwise by the names of its tensors.
    ///
    /// # Errors
    /// [`ImportError`] when the file cannot be read, or holds no head that is known.
    pub fn of(path: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Weights { path: path.to_path_buf(), source };
        let tensors = weights::read(path).map_err(failed)?;
        let metadata = card::metadata(path, "FILE")?;
        if metadata.contains_key(head::CARD) || is_lift(&tensors) {
            return Ok(Self::Lift);
        }
        if metadata.contains_key(segment::CARD) || recognise_segment(&tensors).is_some() {
            return Ok(Self::Segment);
        }
        let found = tensors.names().take(12).collect::<Vec<_>>().join(", ");
        let expected = "a LiFT head: image_convs_1.0.weight; a segmentation head: class_embed.weight, or linear.weight and \
                        norm.running_mean"
            .to_owned();
        Err(failed(WeightsError::Unrecognised { expected, found }))
    }
}

/// Gives a model a LiFT head, or another one; a segmentation head that is there stays. `check` opens the new directory as a server would,
/// before it takes the old one's place.
///
/// # Errors
/// See [`ImportError`]; the old directory stays as it was then.
pub fn install_head(
    dir: &Path,
    options: &HeadOptions,
    check: impl FnOnce(&ModelEntry) -> Result<(), CheckError>,
) -> Result<ModelEntry, ImportError> {
    let with_head = |manifest: Manifest, written: &Path| {
        let head = Head::open(options, manifest.architecture.depth, &manifest.provenance.source_sha256)?;
        let lift = write::lift(&manifest.architecture, &manifest.backbone, &head, written)?;
        let reader = manifest.segmenter.as_ref().filter(|segmenter| segmenter.input == SegmentInput::Lift);
        let is_bound = reader.is_some_and(|segmenter| segmenter.lift_sha256.as_ref() != Some(&lift.sha256));
        if is_bound && !options.drop_reader {
            let problem = "the model's segmentation head reads features after its LiFT head and was trained with that one: import the \
                 model again with both heads, or take it out (--drop-segment)";
            return Err(ImportError::Option { option: "--lift", problem: problem.to_owned() });
        }
        let segmenter = manifest.segmenter.filter(|_| !is_bound);
        Ok(Manifest { lift: Some(lift), segmenter, ..manifest })
    };
    install(dir, |manifest| manifest.lift = None, with_head, check)
}

/// Gives a model a segmentation head, or another one; a LiFT head that is there stays. `check` opens the new directory as a server would,
/// before it takes the old one's place.
///
/// # Errors
/// See [`ImportError`]; the old directory stays as it was then.
pub fn install_segmenter(
    dir: &Path,
    options: &SegmentOptions,
    check: impl FnOnce(&ModelEntry) -> Result<(), CheckError>,
) -> Result<ModelEntry, ImportError> {
    let with_head = |manifest: Manifest, written: &Path| {
        let segmenter = write::segmenter(&manifest, &Segmenter::open(options, &manifest)?, written)?;
        Ok(Manifest { segmenter: Some(segmenter), ..manifest })
    };
    install(dir, |manifest| manifest.segmenter = None, with_head, check)
}

/// Makes the model in `dir` anew: what `without` leaves of it, and what `with` adds.
fn install(
    dir: &Path,
    without: impl FnOnce(&mut Manifest),
    with: impl FnOnce(Manifest, &Path) -> Result<Manifest, ImportError>,
    check: impl FnOnce(&ModelEntry) -> Result<(), CheckError>,
) -> Result<ModelEntry, ImportError> {
    // The place by its real name: `.` and `..` have no parents to put a new directory in.
    let dir = dir.canonicalize().map_err(|source| ImportError::Model { path: dir.to_path_buf(), source: source.into() })?;
    let invalid = |source: crate::manifest::RepositoryError| ImportError::Model { path: dir.clone(), source: source.into() };
    let entry = load_dir(&dir).map_err(invalid)?;
    entry.verify().map_err(invalid)?;
    let mut manifest = entry.manifest;
    without(&mut manifest);
    let repository = dir.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let write = |written: &Path| {
        let kept: Vec<String> = manifest.files().into_iter().map(|(file, _digest)| file.to_owned()).collect();
        kept.iter().try_for_each(|file| link(&dir.join(file), &written.join(file)))?;
        let manifest = with(manifest, written)?;
        for file in kept.iter().filter(|file| manifest.files().iter().all(|(name, _digest)| name != file)) {
            fs::remove_file(written.join(file)).map_err(|source| write_failed(&written.join(file), source))?;
        }
        write::manifest(&manifest, written)
    };
    publish((repository, &dir, true), write, check)
}

/// A second name for a file, or a copy where file systems know none.
fn link(from: &Path, to: &Path) -> Result<(), ImportError> {
    let linked = fs::hard_link(from, to).or_else(|_no_links| fs::copy(from, to).map(drop));
    linked.map_err(|source| write_failed(to, source))
}
