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
    pb::v1::{self as pb, dense_vision_client::DenseVisionClient},
    server::Server,
};
use image::{ImageFormat, RgbImage};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::sleep,
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

    /// Waits until `n` requests are in flight.
    pub async fn in_flight(&self, n: u64) {
        while self.engine.n_in_flight() < n {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until some request is in flight.
    pub async fn busy(&self) {
        self.in_flight(1).await;
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        while self.engine.n_in_flight() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn stop(self) {
        let _already_gone = self.stop.send(());
        self.task.await.expect("the server ends without a panic");
    }
}

/// A server with the tiny models and default settings.
pub async fn server() -> TestServer {
    server_with(&[]).await
}

/// A server with the tiny models and some settings.
pub async fn server_with(settings: &[(&str, &str)]) -> TestServer {
    let models = repository().to_string_lossy().into_owned();
    let fixed =
        [("grpc.listen", "127.0.0.1:0"), ("admin.enabled", "false"), ("models.default", "tiny"), ("models.dir", models.as_str())];
    let settings: Vec<(String, String)> =
        fixed.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let config = ServeConfig::load(None, &settings).unwrap();
    let server = Server::start(config).await.unwrap_or_else(|error| panic!("{error:?} (does `make setup` need to run?)"));
    let (address, admin, engine) = (server.address(), server.admin_address(), server.engine());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run(async {
        let _stop_or_gone = stopped.await;
    }));
    TestServer { address, admin, engine, stop, task }
}

pub async fn channel(server: &TestServer) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

/// A client on a connection of its own. It takes answers of any size; tests of limits set their own.
pub async fn client(server: &TestServer) -> DenseVisionClient<Channel> {
    DenseVisionClient::new(channel(server).await).max_decoding_message_size(usize::MAX)
}

pub fn request(image: pb::Image, features: pb::FeatureOptions) -> pb::ExtractRequest {
    let native = pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() };
    pb::ExtractRequest { model: None, image: Some(image), preprocess: Some(native), features: Some(features) }
}

pub fn features(lift_passes: u32) -> pb::FeatureOptions {
    pb::FeatureOptions { lift_passes: Some(lift_passes), ..Default::default() }
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
