//! What a model directory says of itself: `models/NAME/VERSION/model.toml`, the one contract between the programs that write
//! models (`densevit import`, the trainer) and those that run them (`densevit serve`).

mod backbone;
mod digest;
mod precision;
mod repository;
mod segmenter;
mod spec;

pub use backbone::BackboneFile;
pub use digest::{sha256, sha256_file};
pub use precision::Precision;
pub use repository::{FORMAT, MANIFEST_FILE, ModelEntry, RepositoryError, is_valid_name, load_dir, model_dirs, scan};
pub use segmenter::{ClassSpec, SegmentForm, SegmentInput, SegmentScores, SegmenterFile};
pub use spec::{
    Architecture, Facet, FfnKind, Interpolation, LiftFile, LiftForm, LiftScore, Manifest, PositionSpec, PositionVariant,
    PreprocessSpec, Provenance, ResizePolicy, Tap, io_names,
};
