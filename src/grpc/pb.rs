//! The generated protocol types of `proto/`, behind one name.

/// Package `densevit.v1`.
pub mod v1 {
    #![expect(missing_docs, reason = "generated code; the .proto file documents it")]
    #![expect(clippy::large_enum_variant, reason = "generated code; a header comes once an answer")]
    #![expect(clippy::allow_attributes_without_reason, reason = "generated code")]
    tonic::include_proto!("densevit.v1");
}

/// Package `inference`: the Open Inference Protocol.
pub mod inference {
    #![expect(missing_docs, reason = "generated code; the .proto file documents it")]
    #![expect(clippy::allow_attributes_without_reason, reason = "generated code")]
    tonic::include_proto!("inference");
}

/// The encoded descriptor set, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/densevit_descriptor.bin"));
