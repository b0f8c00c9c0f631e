//! Why a request failed, in the closed set of causes that clients can act on.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::task::JoinError;

/// Boxed cause of an internal failure.
pub type Source = Box<dyn StdError + Send + Sync>;

/// A failed request. The message is for the caller; the source of [`InferError::Internal`] is for the log only.
#[derive(Debug, Error)]
pub enum InferError {
    /// A field of the request is at fault.
    #[error("{field}: {message}")]
    InvalidArgument {
        /// Path of the field, e.g. `preprocess.crop`.
        field: String,
        /// What is wrong and what the limit is.
        message: String,
    },
    /// The server has no such model or version.
    #[error("{field}: {message}")]
    NotFound {
        /// `model.name` or `model.version`.
        field: &'static str,
        /// What was asked for and what there is.
        message: String,
    },
    /// A bound of the service is reached; the same request may succeed later.
    #[error("{message}")]
    Overloaded {
        /// Which bound.
        message: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The caller's deadline passed before the answer was there.
    #[error("deadline exceeded {stage}")]
    DeadlineExceeded {
        /// Where the request was: "before decoding", "in the queue" and so on.
        stage: &'static str,
    },
    /// The server is not set up for what was asked, or what it was given is not in order; an operator must act.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The server is shutting down or the model is not ready.
    #[error("{message}")]
    Unavailable {
        /// Why.
        message: String,
    },
    /// A fault of the server.
    #[error("internal error while {operation}")]
    Internal {
        /// What failed.
        operation: &'static str,
        /// Why; not shown to the caller.
        #[source]
        source: Source,
    },
}

/// Causes of failure as clients see them: the left side of the table that makes gRPC codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Fix the request.
    InvalidArgument,
    /// Ask for something that exists.
    NotFound,
    /// Try later.
    Overloaded,
    /// Allow more time.
    DeadlineExceeded,
    /// Ask the operator.
    FailedPrecondition,
    /// Try another server.
    Unavailable,
    /// Report it.
    Internal,
}

impl ErrorCode {
    /// Name for metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl InferError {
    /// An error of one request field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), message: message.into() }
    }

    /// A fault of the server.
    pub fn internal(operation: &'static str, source: impl Into<Source>) -> Self {
        Self::Internal { operation, source: source.into() }
    }

    /// The same of a request whose field `from` has another name, `to`.
    #[must_use]
    pub fn renamed(self, from: &str, to: &str) -> Self {
        match self {
            Self::InvalidArgument { field, message } => {
                let rest = field.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('.'));
                let field = rest.map(|rest| format!("{to}{rest}")).unwrap_or(field);
                Self::InvalidArgument { field, message }
            }
            other => other,
        }
    }

    /// The same of a request that is the field `outer` of another.
    #[must_use]
    pub fn inside(self, outer: &str) -> Self {
        match self {
            Self::InvalidArgument { field, message } => Self::InvalidArgument { field: format!("{outer}.{field}"), message },
            other => other,
        }
    }

    /// Whether it is about who asked, and not about what was asked: another caller may fare better.
    pub(super) fn is_of_caller(&self) -> bool {
        matches!(self, Self::DeadlineExceeded { .. } | Self::Overloaded { .. })
    }

    /// The same error for another caller that waited for the same.
    pub(super) fn for_another(self: Arc<Self>) -> Self {
        match &*self {
            Self::InvalidArgument { field, message } => Self::invalid(field.clone(), message.clone()),
            Self::NotFound { field, message } => Self::NotFound { field, message: message.clone() },
            Self::Overloaded { message, retry_after } => Self::Overloaded { message: message.clone(), retry_after: *retry_after },
            Self::DeadlineExceeded { stage } => Self::DeadlineExceeded { stage },
            Self::Refused { message } => Self::Refused { message: message.clone() },
            Self::Unavailable { message } => Self::Unavailable { message: message.clone() },
            Self::Internal { operation, .. } => Self::Internal { operation, source: Box::new(SharedSource(Arc::clone(&self))) },
        }
    }

    /// The cause.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidArgument { .. } => ErrorCode::InvalidArgument,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Overloaded { .. } => ErrorCode::Overloaded,
            Self::DeadlineExceeded { .. } => ErrorCode::DeadlineExceeded,
            Self::Refused { .. } => ErrorCode::FailedPrecondition,
            Self::Unavailable { .. } => ErrorCode::Unavailable,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// Path of the request field at fault, if one is.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::InvalidArgument { field, .. } => Some(field),
            Self::NotFound { field, .. } => Some(field),
            _ => None,
        }
    }
}

impl From<JoinError> for InferError {
    fn from(broken: JoinError) -> Self {
        Self::internal("answering a request", broken)
    }
}

/// The source of an internal error that several callers share.
#[derive(Debug)]
struct SharedSource(Arc<InferError>);

impl fmt::Display for SharedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            InferError::Internal { source, .. } => source.fmt(f),
            other => other.fmt(f),
        }
    }
}

impl StdError for SharedSource {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()?.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    #[error("the run failed")]
    struct Outer(#[source] fmt::Error);

    #[test]
    fn fields_are_renamed_with_what_is_inside_of_them_and_no_others() {
        let field = |field: &str| InferError::invalid(field, "is bad").renamed("image", "target").field().map(str::to_owned);
        assert_eq!(field("image.raw.data").as_deref(), Some("target.raw.data"));
        assert_eq!(field("image").as_deref(), Some("target"));
        assert_eq!(field("images").as_deref(), Some("images"));
    }

    #[test]
    fn a_shared_error_has_the_words_and_the_sources_of_the_first() {
        let failed = Arc::new(InferError::internal("running the model", Outer(fmt::Error)));
        let shared = Arc::clone(&failed).for_another();
        let chain = |error: &InferError| {
            let (mut words, mut next) = (vec![error.to_string()], error.source());
            while let Some(source) = next {
                words.push(source.to_string());
                next = source.source();
            }
            words
        };
        assert_eq!((chain(&shared), chain(&shared).len()), (chain(&failed), 3));
        let bad = Arc::new(InferError::invalid("image", "is none"));
        assert_eq!(Arc::clone(&bad).for_another().field(), bad.field());
    }
}
