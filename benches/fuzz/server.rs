//! A server in this process with a tiny model of two blocks, a LiFT head and a SegViT head.

use std::path::PathBuf;

use densevit::{
    config::ServeConfig,
    import::{HeadOptions, ImportOptions, SegmentOptions, import},
    manifest::{Facet, Tap},
    server::Server,
};
use tempfile::TempDir;

/// A running server; it ends with the process.
pub struct Running {
    pub address: String,
    _models: TempDir,
}

/// Imports the model from the fixtures of the tests and serves it.
///
/// # Errors
/// When ONNX Runtime is not there (`make setup`), or a port cannot be had.
pub async fn start() -> anyhow::Result<Running> {
    let fixture = |path: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path);
    let models = tempfile::tempdir()?;
    let mut options = ImportOptions::new(fixture("backbones/dino_s16.safetensors"), models.path().to_path_buf(), "tiny");
    options.head = Some(HeadOptions::new(fixture("lift/lift_c64_p16.safetensors")));
    let token = |layer| Tap { facet: Facet::Token, layer };
    let head = SegmentOptions::new(fixture("segvit/atm_k7_c64_d32.safetensors"));
    options.segment = Some(SegmentOptions { taps: Some(vec![token(1), token(0), token(1)]), heads: Some(4), ..head });
    import(&options, |_entry| Ok(()))?;
    let dir = models.path().to_string_lossy().into_owned();
    let settings = [("grpc.listen", "127.0.0.1:0"), ("admin.enabled", "false"), ("models.dir", dir.as_str())];
    // Small limits: a case that asks for much is refused and does not slow the others.
    let limits = [("limits.max_input_pixels", "4096"), ("limits.max_output_values", "1000000")];
    let settings: Vec<(String, String)> =
        settings.iter().chain(&limits).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let server = Server::start(ServeConfig::load(None, &settings)?).await?;
    let address = server.address().to_string();
    tokio::spawn(server.run(std::future::pending()));
    Ok(Running { address, _models: models })
}
