//! Paths of the engine's errors in the terms of this protocol.

use crate::{
    engine::{GroupError, InferError},
    grpc::kserve::inputs::Images,
};

/// An error of the engine as the caller of this protocol must read it: same cause, path and words of this protocol's fields.
pub(super) fn translated(failed: GroupError, images: &Images) -> InferError {
    match failed.error {
        InferError::InvalidArgument { field, message } if is_of_image(&field) => images.error(failed.idx, &message),
        error => translated_field(error),
    }
}

/// As [`translated`], for errors that are of no image.
pub(super) fn translated_field(error: InferError) -> InferError {
    match error {
        InferError::InvalidArgument { field, message } => InferError::InvalidArgument { field: path(&field), message },
        InferError::NotFound { field: "model.version", message } => InferError::NotFound { field: "model_version", message },
        InferError::NotFound { field: _, message } => InferError::NotFound { field: "model_name", message },
        other => other,
    }
}

fn is_of_image(field: &str) -> bool {
    field == "image" || field.starts_with("image.")
}

/// `features.layer` is the parameter `layer` here, and so on.
fn path(field: &str) -> String {
    match field {
        "model.name" => "model_name".to_owned(),
        "model.version" => "model_version".to_owned(),
        "features" | "masks" | "preprocess" => "parameters".to_owned(),
        "preprocess.exact" | "preprocess.letterbox" => "parameters.height".to_owned(),
        "preprocess.native" => "parameters.resize".to_owned(),
        other => match other.split_once('.') {
            Some(("features" | "masks" | "preprocess", name)) => format!("parameters.{name}"),
            _ => other.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_fields_of_this_protocol() {
        let cases = [
            ("features.lift_passes", "parameters.lift_passes"),
            ("preprocess.exact", "parameters.height"),
            ("preprocess.short_side", "parameters.short_side"),
            ("masks.min_score", "parameters.min_score"),
            ("masks", "parameters"),
            ("model.name", "model_name"),
            ("inputs[0].shape", "inputs[0].shape"),
        ];
        for (field, expected) in cases {
            let error = translated_field(InferError::invalid(field, "is wrong"));
            assert_eq!(error.field(), Some(expected));
        }
        let missing = InferError::NotFound { field: "model.version", message: String::new() };
        assert_eq!(translated_field(missing).field(), Some("model_version"));
    }
}
