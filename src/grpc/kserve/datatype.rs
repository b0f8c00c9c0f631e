//! Element types of the protocol's tensors, as far as they occur here.

use crate::grpc::pb::inference as pb;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datatype {
    /// Strings of bytes.
    Bytes,
    /// 8 bits, not signed.
    Uint8,
    /// 16 bits, not signed.
    Uint16,
    /// IEEE half.
    Fp16,
    /// IEEE single.
    Fp32,
    /// IEEE double.
    Fp64,
}

impl Datatype {
    /// The name in requests, answers and metadata.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bytes => "BYTES",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
        }
    }

    /// The value in a model's configuration.
    pub(super) fn config(self) -> pb::DataType {
        match self {
            Self::Bytes => pb::DataType::TypeString,
            Self::Uint8 => pb::DataType::TypeUint8,
            Self::Uint16 => pb::DataType::TypeUint16,
            Self::Fp16 => pb::DataType::TypeFp16,
            Self::Fp32 => pb::DataType::TypeFp32,
            Self::Fp64 => pb::DataType::TypeFp64,
        }
    }
}
