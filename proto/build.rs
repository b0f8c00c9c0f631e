//! Compiles the protocols with a pure-Rust protobuf compiler, so that no `protoc` has to be installed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["densevit/v1/dense_vision.proto", "inference/grpc_service.proto"], ["proto"])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("densevit_descriptor.bin"), descriptors.encode_to_vec())?;
    // Every `bytes` field becomes `bytes::Bytes`: a slice of the receive buffer instead of a copy of it.
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure().build_transport(true).compile_fds_with_config(descriptors, config)?;
    Ok(())
}
