//! What the server and its models say of themselves.

use crate::{
    engine::{Engine, LoadedModel},
    grpc::{
        kserve::{
            inputs,
            outputs::{Output, TensorSpec},
        },
        pb::inference::{self as pb, model_metadata_response::TensorMetadata},
    },
};

/// Extensions of the protocol that this server has, by their official names.
const EXTENSIONS: [&str; 5] = ["model_repository", "model_configuration", "parameters", "schedule_policy", "statistics"];
/// Files of a model, in Triton's words.
pub(super) const PLATFORM: &str = "onnxruntime_onnx";

/// Name, version and extensions of the server.
pub(super) fn server() -> pb::ServerMetadataResponse {
    pb::ServerMetadataResponse {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

/// Inputs and outputs of a model.
pub(super) fn model(engine: &Engine, model: &LoadedModel) -> pb::ModelMetadataResponse {
    let manifest = model.manifest();
    let versions = engine.versions(&manifest.name);
    pb::ModelMetadataResponse {
        name: manifest.name.clone(),
        versions: versions.iter().map(|model| model.manifest().version.to_string()).collect(),
        platform: PLATFORM.to_owned(),
        inputs: inputs::specs().into_iter().map(tensor).collect(),
        outputs: Output::of(manifest).map(|output| tensor(output.spec(manifest))).collect(),
    }
}

fn tensor(spec: TensorSpec) -> TensorMetadata {
    let TensorSpec { name, datatype, dims } = spec;
    let shape = std::iter::once(-1).chain(dims).collect();
    TensorMetadata { name: name.to_owned(), datatype: datatype.name().to_owned(), shape }
}
