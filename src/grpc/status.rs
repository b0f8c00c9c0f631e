//! The one table that turns errors into gRPC statuses.
//!
//! | cause | code | details |
//! |---|---|---|
//! | a field of the request | `INVALID_ARGUMENT` | `BadRequest` with the field's path |
//! | unknown model or version | `NOT_FOUND` | `ResourceInfo` |
//! | a bound is reached | `RESOURCE_EXHAUSTED` | `RetryInfo` |
//! | the caller's deadline passed | `DEADLINE_EXCEEDED` | |
//! | models that do not load, or that callers may not touch | `FAILED_PRECONDITION` | |
//! | shutting down, not ready | `UNAVAILABLE` | |
//! | a fault of the server | `INTERNAL` | none; the cause goes to the log only |

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::error;

use crate::{
    engine::{ErrorCode, InferError},
    grpc::pb::v1 as pb,
};

/// The gRPC code of a cause.
#[must_use]
pub fn code(cause: ErrorCode) -> Code {
    match cause {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::Overloaded => Code::ResourceExhausted,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::Internal => Code::Internal,
    }
}

/// The status that ends a call. Internal causes are logged here, once.
#[must_use]
pub fn status(cause: &InferError) -> Status {
    log_internal(cause);
    Status::with_error_details(code(cause.code()), cause.to_string(), details(cause))
}

/// The error of one request of a bidirectional call. Internal causes are logged here, once.
#[must_use]
pub fn stream_error(cause: &InferError) -> pb::Error {
    log_internal(cause);
    pb::Error { code: code(cause.code()) as i32, message: cause.to_string(), field: cause.field().unwrap_or_default().to_owned() }
}

fn details(cause: &InferError) -> ErrorDetails {
    match cause {
        InferError::InvalidArgument { field, message } => ErrorDetails::with_bad_request_violation(field, message),
        InferError::NotFound { field, message } => ErrorDetails::with_resource_info("model", *field, "", message),
        InferError::Overloaded { retry_after, .. } => ErrorDetails::with_retry_info(Some(*retry_after)),
        _ => ErrorDetails::new(),
    }
}

fn log_internal(cause: &InferError) {
    if let InferError::Internal { operation, source } = cause {
        error!(operation, error = %chain(source.as_ref()), "request failed while {operation}");
    }
}

/// An error and its sources on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;

    #[test]
    fn every_cause_has_its_code() {
        let cases = [
            (InferError::invalid("image", "missing"), Code::InvalidArgument),
            (InferError::NotFound { field: "model.name", message: String::new() }, Code::NotFound),
            (InferError::Overloaded { message: String::new(), retry_after: Duration::ZERO }, Code::ResourceExhausted),
            (InferError::DeadlineExceeded { stage: "in the queue" }, Code::DeadlineExceeded),
            (InferError::Refused { message: String::new() }, Code::FailedPrecondition),
            (InferError::Unavailable { message: String::new() }, Code::Unavailable),
            (InferError::internal("running", "boom"), Code::Internal),
        ];
        for (cause, expected) in cases {
            assert_eq!(status(&cause).code(), expected, "{cause:?}");
        }
    }

    #[test]
    fn a_bad_field_is_named_in_the_message_and_in_the_details() {
        let status = status(&InferError::invalid("preprocess.crop", "has no area"));
        assert_eq!(status.message(), "preprocess.crop: has no area");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.first().unwrap().field, "preprocess.crop");
    }

    #[test]
    fn overload_says_when_to_retry() {
        let after = Duration::from_millis(250);
        let status = status(&InferError::Overloaded { message: "full".into(), retry_after: after });
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(after));
    }

    #[test]
    fn internal_causes_stay_inside() {
        let status = status(&InferError::internal("running the model", "secret path"));
        assert!(!status.message().contains("secret"), "{}", status.message());
    }
}
