//! Fixtures, and how far a result may be from them.

use std::{collections::HashMap, fs, future::Future, path::PathBuf};

use densevit::{
    config::ServeConfig,
    engine::GRAPH_TOOLS,
    grpc::client::Client,
    manifest::{ModelEntry, Tap},
    runtime::{FeatureKey, Features, Library, ModelRunner, RunKey, RunOutput, RuntimeConfig, RuntimeModel},
    server::Server,
    tensor::RgbImage,
};
use safetensors::SafeTensors;
use tokio::sync::oneshot;

/// Largest error of an fp32 result relative to the largest value of the reference. Both are single-precision sums of a few
/// thousand products in different orders, over up to twelve blocks.
pub const FP32: f32 = 1e-4;

/// An array of a fixture.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// `[D, h, w]` or `[B, D, h, w]` as `[h, w, D]` or `[B, h, w, D]`.
    pub fn channels_last(&self) -> Self {
        let n_batch: usize = self.shape[..self.shape.len() - 3].iter().product();
        let [channels, rows, cols] = self.shape[self.shape.len() - 3..].try_into().unwrap();
        let mut values = Vec::with_capacity(self.values.len());
        for batch in 0..n_batch {
            for cell in 0..rows * cols {
                values.extend((0..channels).map(|channel| self.values[(batch * channels + channel) * rows * cols + cell]));
            }
        }
        let mut shape = self.shape[..self.shape.len() - 3].to_vec();
        shape.extend([rows, cols, channels]);
        Self { shape, values }
    }

    pub fn assert_close(&self, got: &[f32], what: &str) {
        assert_eq!(got.len(), self.values.len(), "{what}");
        let largest = self.values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let worst = got.iter().zip(&self.values).map(|(got, expected)| (got - expected).abs()).fold(0f32, f32::max);
        assert!(worst <= FP32 * largest, "{what}: error {worst} at values up to {largest}");
    }

    /// Cosine similarities of descriptors (last axis) with their references.
    fn cosines(&self, got: &[f32]) -> Vec<f32> {
        let channels = *self.shape.last().unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = |(a, b): (&[f32], &[f32])| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert_eq!(got.len(), self.values.len());
        got.chunks(channels).zip(self.values.chunks(channels)).map(cosine).collect()
    }

    /// The smallest of them.
    pub fn smallest_cosine(&self, got: &[f32]) -> f32 {
        self.cosines(got).into_iter().fold(1.0, f32::min)
    }

    /// Their mean.
    pub fn mean_cosine(&self, got: &[f32]) -> f32 {
        let cosines = self.cosines(got);
        cosines.iter().sum::<f32>() / cosines.len() as f32
    }
}

/// The checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn fixture(path: &str) -> PathBuf {
    root().join("tests/fixtures").join(path)
}

/// All f32 tensors of a safetensors file.
pub fn tensors(path: &str) -> HashMap<String, Tensor> {
    let bytes = fs::read(fixture(path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.iter().filter(|(_, view)| view.dtype() == safetensors::Dtype::F32);
    let tensor = |view: &safetensors::tensor::TensorView<'_>| Tensor {
        shape: view.shape().to_vec(),
        values: view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect(),
    };
    floats.map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
}

/// An image of the fixtures as it is.
pub fn image(path: &str) -> RgbImage {
    let image = image::open(fixture(path)).unwrap().into_rgb8();
    RgbImage::new(image.height(), image.width(), image.into_raw()).unwrap()
}

pub fn library() -> Library {
    Library::load(None, std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).as_deref()).expect("run `make setup` first")
}

pub fn runner(entry: &ModelEntry) -> ModelRunner {
    let config = RuntimeConfig::default();
    ModelRunner::new(&RuntimeModel::open(&entry.dir, &entry.manifest, &config, &library(), GRAPH_TOOLS).unwrap())
}

/// The features of a run that was asked for some.
pub fn features(output: RunOutput) -> Features {
    output.features.expect("the run gives what it is asked for")
}

/// The features of one image and what stands beside the patches: the CLS token, if the model has one, and registers if they are asked for.
pub fn run(runner: &mut ModelRunner, image: &RgbImage, tap: Tap, registers: bool) -> Features {
    let key = FeatureKey { tap, lift_passes: 0, cls: true, registers };
    let key = RunKey { height: image.height(), width: image.width(), features: Some(key), segment: false };
    features(runner.run(&key, std::slice::from_ref(image)).unwrap().remove(0))
}

/// Asks a server of what `make setup` imported.
pub async fn with_client<T, F: Future<Output = T>>(work: impl FnOnce(Client) -> F) -> T {
    let models = root().join("models").to_string_lossy().into_owned();
    let settings = [
        ("grpc.listen", "127.0.0.1:0"),
        ("admin.enabled", "false"),
        ("models.dir", &models),
        ("models.default", "dinov2-vits14-imgfocus"),
    ];
    let settings: Vec<(String, String)> = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let server = Server::start(ServeConfig::load(None, &settings).unwrap()).await.expect("run `make setup` first");
    let client = Client::connect(&server.address().to_string()).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async {
        let _stop_or_gone = stopped.await;
    }));
    let outcome = work(client).await;
    stop.send(()).unwrap();
    serving.await.unwrap();
    outcome
}
