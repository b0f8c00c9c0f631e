//! The answers of a video, one after the other.

use tonic::Streaming;

use crate::{grpc::client::ClientError, grpc::pb::v1 as pb};

/// Labels of the frames of a video, in their order.
#[derive(Debug)]
pub struct Video(Streaming<pb::PropagateResponse>);

impl Video {
    pub(super) fn new(answers: Streaming<pb::PropagateResponse>) -> Self {
        Self(answers)
    }

    /// Waits for the next; none after the last.
    ///
    /// # Errors
    /// The status that ended the call.
    pub async fn next(&mut self) -> Result<Option<pb::PropagateResponse>, ClientError> {
        Ok(self.0.message().await?)
    }
}
