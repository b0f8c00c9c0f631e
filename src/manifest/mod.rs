//! What a model directory says of itself: `models/NAME/VERSION/model.toml`, the one contract between the programs that write
//! models (`densevit import`, the trainer) and those that run them (`densevit serve`).

mod spec;

pub use spec::{
    Architecture, BackboneFile, Facet, FfnKind, Interpolation, LiftFile, LiftForm, Manifest, PositionSpec, PositionVariant,
    Precision, PreprocessSpec, Provenance, ResizePolicy, Tap, io_names,
};
