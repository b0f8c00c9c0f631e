//! A server on threads of its own with a tiny model, and a client on the thread of the test.

use std::{
    io::Cursor,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use bytes::Bytes;
use densevit::{
    config::ServeConfig,
    grpc::pb::{
        inference::{
            self as kserve, InferParameter, grpc_inference_service_client::GrpcInferenceServiceClient,
            infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
        },
        v1::{self as pb, dense_vision_client::DenseVisionClient},
    },
    import::{HeadOptions, ImportOptions, import},
    server::Server,
};
use tonic::transport::{Channel, Endpoint};

/// Channels of the tiny model's maps.
pub const CHANNELS: usize = 64;
/// Pixels of a side of its patches.
const PATCH: u32 = 16;

/// Starts a server that lives as long as the process.
pub fn start() -> SocketAddr {
    let (started, address) = mpsc::channel();
    thread::spawn(move || {
        let models = tempfile::tempdir().unwrap();
        import_tiny(models.path());
        let dir = models.path().to_string_lossy().into_owned();
        let settings =
            [("grpc.listen", "127.0.0.1:0"), ("admin.enabled", "false"), ("models.watch_s", "0"), ("models.dir", &dir)];
        let settings: Vec<_> = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config = ServeConfig::load(None, &settings).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let server = Server::start(config).await.unwrap_or_else(|error| panic!("{error:?} (does `make setup` need to run?)"));
            started.send(server.address()).unwrap();
            server.run(std::future::pending()).await;
        });
    });
    address.recv().unwrap()
}

fn import_tiny(folder: &Path) {
    let fixture = |path: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path);
    let mut options = ImportOptions::new(fixture("backbones/dino_s16.safetensors"), folder.to_path_buf(), "tiny");
    options.head = Some(HeadOptions::new(fixture("lift/lift_c64_p16.safetensors")));
    import(&options, |_entry| Ok(())).unwrap();
}

pub async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

pub fn vision(channel: &Channel) -> DenseVisionClient<Channel> {
    DenseVisionClient::new(channel.clone()).max_decoding_message_size(usize::MAX)
}

pub fn kserve(channel: &Channel) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX)
}

/// Bytes of the map of a square image after one LiFT pass, in elements of so many bytes.
pub fn map_bytes(side: u32, element_bytes: usize) -> usize {
    let n_cells = (2 * side / PATCH) as usize;
    n_cells * n_cells * CHANNELS * element_bytes
}

/// Grey pixels of a square image.
pub fn pixels(side: u32) -> Bytes {
    vec![120; (side * side * 3) as usize].into()
}

/// A square image at its own size, with one LiFT pass.
pub fn extract(source: pb::image::Source, dtype: pb::DType) -> pb::ExtractRequest {
    let native = pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() };
    let features = pb::FeatureOptions { lift_passes: Some(1), dtype: dtype as i32, ..Default::default() };
    pb::ExtractRequest {
        image: Some(pb::Image { source: Some(source) }),
        preprocess: Some(native),
        features: Some(features),
        model: None,
    }
}

pub fn raw(side: u32) -> pb::image::Source {
    pb::image::Source::Raw(pb::RawImage { height: side, width: side, data: pixels(side) })
}

/// The same as a file.
pub fn png(side: u32) -> pb::image::Source {
    let mut bytes = Cursor::new(Vec::new());
    let picture = image::RgbImage::from_raw(side, side, pixels(side).to_vec()).unwrap();
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    pb::image::Source::Encoded(bytes.into_inner().into())
}

/// The same for the Open Inference Protocol.
pub fn infer(side: u32) -> kserve::ModelInferRequest {
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let extent = i64::from(side);
    kserve::ModelInferRequest {
        model_name: "tiny".into(),
        parameters: [
            ("resize".to_owned(), parameter(ParameterChoice::StringParam("native".into()))),
            ("lift_passes".to_owned(), parameter(ParameterChoice::Uint64Param(1))),
        ]
        .into(),
        inputs: vec![InferInputTensor {
            name: "pixels".into(),
            datatype: "UINT8".into(),
            shape: vec![1, extent, extent, 3],
            ..Default::default()
        }],
        raw_input_contents: vec![pixels(side)],
        ..Default::default()
    }
}
