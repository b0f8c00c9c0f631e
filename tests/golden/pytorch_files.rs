//! Files of PyTorch (tests/reference/make_pth.py) become the same models as their tensors in safetensors.

use std::path::Path;

use densevit::{
    import::{HeadOptions, ImportOptions, import},
    manifest::Manifest,
};

use crate::support::fixture;

/// Imports the tiny DINO with its head, from files of one extension.
fn imported(extension: &str, out: &Path) -> Manifest {
    let file = |name: &str| fixture("pth").join(name).with_extension(extension);
    let mut options = ImportOptions::new(file("vit"), out.to_path_buf(), "tiny");
    options.heads = Some(2);
    options.head = Some(HeadOptions::new(file("lift")));
    import(&options, |_entry| Ok(())).unwrap().entry.manifest
}

#[test]
fn a_checkpoint_becomes_the_same_graphs_as_its_state_dict_in_safetensors() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (checkpoint, state_dict) = (imported("pth", one.path()), imported("safetensors", other.path()));
    assert_eq!(checkpoint.backbone.sha256, state_dict.backbone.sha256);
    assert_eq!(checkpoint.position.sha256, state_dict.position.sha256);
    assert_eq!(checkpoint.architecture, state_dict.architecture);
    let [from_checkpoint, from_state_dict] = [checkpoint, state_dict].map(|manifest| manifest.lift.unwrap());
    assert_eq!(from_checkpoint.sha256, from_state_dict.sha256);
    assert_eq!((from_checkpoint.source.as_str(), from_checkpoint.parameters), ("lift.pth", from_state_dict.parameters));
}
