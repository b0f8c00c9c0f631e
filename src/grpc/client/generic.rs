//! Calls of any method of the served protocols by its name, with messages as JSON: what a load generator sends.
//!
//! # Design
//! Messages are turned into bytes once, before the clock runs, and answers are counted and not decoded, so that the client costs little
//! beside the server that it measures.

use std::time::{Duration, SystemTime};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, prost_types::Timestamp};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::grpc::{client::access::Secured, pb::FILE_DESCRIPTOR_SET};

/// Why a call cannot be made.
#[derive(Debug, Error)]
pub enum GenericError {
    /// The name is none of a method.
    #[error("\"{0}\" is no method of the protocol: expected package.Service.Method")]
    Method(String),
    /// Requests in a stream cannot be sent.
    #[error("{0} takes a stream of requests; only methods that take one are called")]
    ClientStream(String),
    /// The JSON does not fit the message.
    #[error("the request is no {message}: {problem}")]
    Message {
        /// Type of the message.
        message: String,
        /// What does not fit.
        problem: String,
    },
    /// The descriptor set of the build cannot be decoded.
    #[error("the protocol of this build cannot be read")]
    Protocol(#[source] prost_reflect::DescriptorError),
}

/// A method that is sent one message.
#[derive(Clone, Debug)]
pub struct Method {
    path: PathAndQuery,
    input: MessageDescriptor,
    takes_stream: bool,
}

impl Method {
    /// Finds `package.Service.Method` or `package.Service/Method`.
    ///
    /// # Errors
    /// When there is none, or it takes a stream.
    pub fn find(name: &str) -> Result<Self, GenericError> {
        let found = Self::find_any(name)?;
        if found.takes_stream { Err(GenericError::ClientStream(name.to_owned())) } else { Ok(found) }
    }

    /// The same, also of those that take a stream, which then holds one message: on the wire there is no difference.
    ///
    /// # Errors
    /// When there is none.
    pub fn find_any(name: &str) -> Result<Self, GenericError> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(GenericError::Protocol)?;
        let unknown = || GenericError::Method(name.to_owned());
        let (service, method) = name.rsplit_once(['.', '/']).ok_or_else(unknown)?;
        let service = pool.get_service_by_name(service).ok_or_else(unknown)?;
        let found = service.methods().find(|found| found.name() == method).ok_or_else(unknown)?;
        let path = format!("/{}/{method}", service.full_name()).parse().map_err(|_invalid| unknown())?;
        Ok(Self { path, input: found.input(), takes_stream: found.is_client_streaming() })
    }

    /// A message of the method, from its JSON form.
    ///
    /// # Errors
    /// When a field is unknown or of another type.
    pub fn encode(&self, json: &serde_json::Value) -> Result<Bytes, GenericError> {
        let message = DynamicMessage::deserialize(self.input.clone(), json);
        let problem = |error: serde_json::Error| GenericError::Message {
            message: self.input.full_name().to_owned(),
            problem: error.to_string(),
        };
        Ok(message.map_err(problem)?.encode_to_vec().into())
    }
}

/// How a call ended. Times are since it was sent.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The first message of the answer.
    pub first: Option<Duration>,
    /// The end of the answer.
    pub last: Duration,
    /// Bytes of all messages of the answer.
    pub n_bytes: u64,
    /// Name of the status code as ghz writes it: `OK`, `DeadlineExceeded`.
    pub code: &'static str,
    /// What the server says of a failure.
    pub message: String,
}

/// A method on a connection.
#[derive(Clone, Debug)]
pub struct Call {
    channel: Secured,
    path: PathAndQuery,
}

impl Call {
    pub(super) fn new(channel: Secured, method: &Method) -> Self {
        Self { channel, path: method.path.clone() }
    }

    /// Sends one message and reads the answer, one message or a stream of them, to its end. The deadline goes to the server and holds
    /// here too.
    pub async fn send(&self, message: Bytes, deadline: Duration) -> Ended {
        let mut request = Request::new(message);
        request.set_timeout(deadline);
        let sent = Instant::now();
        let (mut first, mut n_bytes) = (None, 0);
        let reading = async {
            let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let mut answer = client.server_streaming(request, self.path.clone(), RawCodec).await?.into_inner();
            while let Some(message) = answer.message().await? {
                first.get_or_insert_with(|| sent.elapsed());
                n_bytes += message;
            }
            Ok(())
        };
        let late = || Status::deadline_exceeded("no answer within the client's deadline");
        let outcome = timeout(deadline, reading).await.unwrap_or_else(|_elapsed| Err(late()));
        let status = match outcome {
            Ok(()) => Status::new(Code::Ok, ""),
            // The channel keeps the deadline too, and calls its end by another name.
            Err(status) if status.code() == Code::Cancelled && sent.elapsed() >= deadline => late(),
            Err(status) => status,
        };
        Ended { first, last: sent.elapsed(), n_bytes, code: name(status.code()), message: status.message().to_owned() }
    }
}

/// A time as the JSON form of protobuf and ghz write it: `2026-11-26T03:57:27.123456789Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    Timestamp::from(time).to_string()
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Bytes out, number of bytes in.
#[derive(Clone, Copy, Debug)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = u64;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = u64;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        let n_bytes = buffer.remaining();
        buffer.advance(n_bytes);
        Ok(Some(n_bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::grpc::pb::v1 as pb;

    #[test]
    fn methods_are_found_by_name_and_json_becomes_their_message() {
        let method = Method::find("densevit.v1.DenseVision.Extract").unwrap();
        assert_eq!(method.path.as_str(), "/densevit.v1.DenseVision/Extract");
        let json = serde_json::json!({ "image": { "encoded": "AAEC" }, "features": { "liftPasses": 1 } });
        let request = pb::ExtractRequest::decode(method.encode(&json).unwrap()).unwrap();
        assert_eq!(request.image.unwrap().source, Some(pb::image::Source::Encoded(Bytes::from_static(&[0, 1, 2]))));
        assert_eq!(request.features.unwrap().lift_passes, Some(1));
        let error = method.encode(&serde_json::json!({ "imagine": 1 })).unwrap_err();
        assert!(error.to_string().contains("imagine"), "{error}");
        for unknown in ["Extract", "densevit.v1.DenseVision.Imagine", "densevit.v1.DenseVision/ExtractStream"] {
            assert!(Method::find(unknown).is_err(), "{unknown}");
        }
        let stream = Method::find_any("densevit.v1.DenseVision/Propagate").unwrap();
        assert_eq!(stream.path.as_str(), "/densevit.v1.DenseVision/Propagate");
        assert!(Method::find_any("densevit.v1.DenseVision.Imagine").is_err());
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (4_102_444_800, "2100-01-01T00:00:00"),
        ] {
            assert!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).starts_with(expected), "{seconds}");
        }
    }
}
