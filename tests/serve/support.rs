//! A server in this process on free ports, its clients, and images made on the spot.

use std::{
    io::Cursor,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use densevit::{
    config::ServeConfig,
    engine::Engine,
    grpc::pb::v1::{self as pb, dense_vision_client::DenseVisionClient},
    import::{HeadOptions, ImportOptions, SegmentOptions, import},
    manifest::{Facet, Tap},
    server::Server,
};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use image::{ImageFormat, RgbImage};
use safetensors::SafeTensors;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};

/// A running server. [`TestServer::stop`] drains it and waits for its end.
pub struct TestServer {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    engine: Arc<Engine>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl TestServer {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("the admin port is enabled")
    }

    /// Answers in the cache.
    pub fn n_kept(&self) -> usize {
        self.engine.kept().1
    }

    /// Their memory.
    pub fn n_kept_bytes(&self) -> usize {
        self.engine.kept().0
    }

    /// Waits until `n` requests are in flight.
    pub async fn in_flight(&self, n: u64) {
        self.wait(|n_in_flight| n_in_flight >= n).await;
    }

    /// Waits until some request is in flight.
    pub async fn busy(&self) {
        self.in_flight(1).await;
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        self.wait(|n_in_flight| n_in_flight == 0).await;
    }

    async fn wait(&self, is_reached: impl Fn(u64) -> bool) {
        let waiting = async {
            while !is_reached(self.engine.n_in_flight()) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(Duration::from_secs(60), waiting).await;
        waited.unwrap_or_else(|_elapsed| panic!("{} requests in flight after a minute", self.engine.n_in_flight()));
    }

    /// Ends the executors of all models under the requests that they have.
    pub async fn end_executors(&self) {
        self.engine.drain(Duration::ZERO).await;
    }

    pub async fn stop(self) {
        let _already_gone = self.stop.send(());
        self.task.await.expect("the server ends without a panic");
    }
}

/// The model repository of all tests, imported once: "tiny" (DINO, patch 16, a LiFT head, a SegViT head of seven classes) and
/// "registers" (DINOv2, patch 14).
pub fn models_dir() -> &'static Path {
    static REPOSITORY: OnceLock<TempDir> = OnceLock::new();
    REPOSITORY
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let mut tiny = ImportOptions::new(fixture("backbones/dino_s16.safetensors"), folder.path().to_path_buf(), "tiny");
            let source = fixture("lift/lift_c64_p16.safetensors");
            tiny.head = Some(HeadOptions::new(source));
            let token = |layer| Tap { facet: Facet::Token, layer };
            let head = SegmentOptions::new(fixture("segvit/atm_k7_c64_d32.safetensors"));
            // Three stages on a model of two blocks; its weights know nothing of it.
            let taps = Some(vec![token(1), token(0), token(1)]);
            tiny.segment = Some(SegmentOptions { taps, heads: Some(4), ..head });
            let registers = fixture("backbones/dinov2_s14_reg4.safetensors");
            for options in [tiny, ImportOptions::new(registers, folder.path().to_path_buf(), "registers")] {
                import(&options, |_entry| Ok(())).unwrap();
            }
            folder
        })
        .path()
}

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// An image and what a PyTorch forward of the tiny model makes of it.
pub struct Fixture {
    pub image: pb::RawImage,
    golden: Vec<u8>,
}

/// A reference map, `[rows, cols, 64]`.
pub struct Golden {
    pub rows: usize,
    pub cols: usize,
    values: Vec<f32>,
}

impl Fixture {
    pub fn load() -> Self {
        let golden = std::fs::read(fixture("backbones/dino_s16.golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&golden).unwrap();
        let view = file.tensor("other.image").unwrap();
        let side = |axis: usize| u32::try_from(view.shape()[axis]).unwrap();
        let image = pb::RawImage { height: side(0), width: side(1), data: Bytes::copy_from_slice(view.data()) };
        Self { image, golden }
    }

    /// The map of a facet of the last block.
    pub fn golden(&self, facet: &str) -> Golden {
        let file = SafeTensors::deserialize(&self.golden).unwrap();
        let view = file.tensor(&format!("other.{facet}.1")).unwrap();
        Golden { rows: view.shape()[0], cols: view.shape()[1], values: f32s(view.data()) }
    }
}

impl Golden {
    /// Both are single-precision sums in different orders, over two blocks.
    pub fn assert_close(&self, got: &[f32]) {
        let largest = self.values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let worst = got.iter().zip(&self.values).map(|(got, expected)| (got - expected).abs()).fold(0f32, f32::max);
        assert!(got.len() == self.values.len() && worst <= 1e-4 * largest, "error {worst} at values up to {largest}");
    }
}

/// A server with the tiny models and default settings.
pub async fn server() -> TestServer {
    server_with(&[]).await
}

/// A configuration for the tiny models, with some settings.
pub fn config(settings: &[(&str, &str)]) -> ServeConfig {
    let models = models_dir().to_string_lossy().into_owned();
    let fixed =
        [("grpc.listen", "127.0.0.1:0"), ("admin.enabled", "false"), ("models.default", "tiny"), ("models.dir", models.as_str())];
    let settings: Vec<(String, String)> =
        fixed.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ServeConfig::load(None, &settings).unwrap()
}

/// A server with the tiny models and some settings.
pub async fn server_with(settings: &[(&str, &str)]) -> TestServer {
    server_from(config(settings)).await
}

/// A server with a configuration.
pub async fn server_from(config: ServeConfig) -> TestServer {
    let server = Server::start(config).await.unwrap_or_else(|error| panic!("{error:?} (does `make setup` need to run?)"));
    let (address, admin, engine) = (server.address(), server.admin_address(), server.engine());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run(async {
        let _stop_or_gone = stopped.await;
    }));
    TestServer { address, admin, engine, stop, task }
}

pub async fn channel(server: &TestServer) -> Channel {
    channel_to(server.address).await
}

pub async fn channel_to(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A client on a connection of its own. It takes answers of any size; tests of limits set their own.
pub async fn client(server: &TestServer) -> DenseVisionClient<Channel> {
    DenseVisionClient::new(channel(server).await).max_decoding_message_size(usize::MAX)
}

/// A client that sends a deadline and does not watch it itself: what it hears is the server's word.
pub fn patient_client(server: &TestServer) -> DenseVisionClient<HyperClient<HttpConnector, tonic::body::Body>> {
    let http = HyperClient::builder(TokioExecutor::new()).http2_only(true).build_http();
    DenseVisionClient::with_origin(http, format!("http://{}", server.address).parse().unwrap())
}

pub fn request(image: pb::Image, features: pb::FeatureOptions) -> pb::ExtractRequest {
    let native = pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() };
    pb::ExtractRequest { model: None, image: Some(image), preprocess: Some(native), features: Some(features) }
}

/// A request that keeps the tiny model busy for a while: 1,024 x 1,024 pixels are 4,096 tokens.
pub fn heavy() -> pb::ExtractRequest {
    let mut message = request(encoded(png(64, 64)), features(0));
    let size = pb::Size { height: 1024, width: 1024 };
    message.preprocess = Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() });
    message
}

pub fn features(lift_passes: u32) -> pb::FeatureOptions {
    pb::FeatureOptions { lift_passes: Some(lift_passes), ..Default::default() }
}

pub fn raw(image: &pb::RawImage) -> pb::Image {
    pb::Image { source: Some(pb::image::Source::Raw(image.clone())) }
}

pub fn encoded(bytes: Bytes) -> pb::Image {
    pb::Image { source: Some(pb::image::Source::Encoded(bytes)) }
}

/// A smooth picture: every pixel tells where it is.
fn picture(height: u32, width: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let level = |part: u32, whole: u32| u8::try_from(part * 255 / whole.max(1)).unwrap();
        image::Rgb([level(x, width), level(y, height), level(x + y, width + height)])
    })
}

fn file(height: u32, width: u32, format: ImageFormat) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    picture(height, width).write_to(&mut bytes, format).unwrap();
    bytes.into_inner().into()
}

pub fn png(height: u32, width: u32) -> Bytes {
    file(height, width, ImageFormat::Png)
}

pub fn jpeg(height: u32, width: u32) -> Bytes {
    file(height, width, ImageFormat::Jpeg)
}

/// A PNG file that claims a size and holds next to nothing.
pub fn png_header(height: u32, width: u32) -> Bytes {
    let mut bytes = png(1, 1).to_vec();
    // Signature 8, chunk length 4, "IHDR" 4, then width and height, big-endian; the chunk's CRC-32 follows its 13 bytes.
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

pub fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The head and body of an HTTP answer.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
