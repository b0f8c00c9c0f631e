//! What a hit of the response cache costs: `cargo bench --bench cache`.
//!
//! Asks the default model once for each case, so that the answer is kept, then many times one after another over loopback. Three times:
//! of the cache itself, as the server reports it (hashing the request, looking it up, comparing the checksum of the answer); from arrival of
//! the headers to the answer, also as reported, which adds receiving the image; and the round trip as the client sees it, which adds sending the
//! answer. The target is on the first, for photos as they come: hashing and comparing take time in proportion to the bytes, as transfers do.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use densevit::{
    cache::{Fields, Question},
    config::ServeConfig,
    grpc::pb::v1::{self as pb, dense_vision_client::DenseVisionClient},
    server::Server,
};
use tonic::transport::{Channel, Endpoint};

/// Hits of each case.
const N_HITS: usize = 300;
/// What a hit may cost, in milliseconds.
const TARGET_MS: f64 = 0.5;
const SETTINGS: [(&str, &str); 4] =
    [("grpc.listen", "127.0.0.1:0"), ("admin.enabled", "false"), ("cache.max_bytes", "268435456"), ("models.verify", "false")];

/// Times of one hit, in milliseconds.
struct Hit {
    cache: f64,
    arrival_to_answer: f64,
    round_trip: f64,
}

fn main() -> anyhow::Result<()> {
    hash_speed();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(hits())
}

/// How fast requests are hashed.
fn hash_speed() {
    let contents = vec![7u8; 32 << 20];
    let began = Instant::now();
    let question = Question::new(Fields::default(), &contents);
    let seconds = began.elapsed().as_secs_f64();
    println!("SHA-256: {:.2} GB/s ({question:?})", contents.len() as f64 / seconds / 1e9);
}

async fn hits() -> anyhow::Result<()> {
    let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let server = Server::start(ServeConfig::load(None, &settings)?).await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address()))?
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20);
    let serving = tokio::spawn(server.run(std::future::pending()));
    let mut client = DenseVisionClient::new(endpoint.connect().await?).max_decoding_message_size(usize::MAX);
    let heads = ["ms: cache p50", "p99", "arrival to answer", "p99", "round trip", "p99", "target"];
    println!("{:<44} {}", "", heads.map(|head| format!("{head:>17}")).join(" "));
    for (side, lift_passes) in [(224, 0), (448, 0), (448, 1), (896, 1)] {
        let image = noise(side);
        let file = pb::image::Source::Encoded(png(side, &image)?);
        let raw = pb::image::Source::Raw(pb::RawImage { height: side, width: side, data: image });
        for (kind, source) in [("PNG", file), ("raw", raw)] {
            let n_bytes = match &source {
                pb::image::Source::Encoded(data) => data.len(),
                pb::image::Source::Raw(raw) => raw.data.len(),
            };
            let (answer_bytes, hits) = measure(&mut client, request(source, side, lift_passes)).await?;
            let name = format!("{kind} {side} px, {} in, {} out", kb(n_bytes), kb(answer_bytes));
            report(&name, &hits);
        }
    }
    serving.abort();
    Ok(())
}

async fn measure(client: &mut DenseVisionClient<Channel>, message: pb::ExtractRequest) -> anyhow::Result<(usize, Vec<Hit>)> {
    let first = client.extract(message.clone()).await?.into_inner();
    let mut hits = Vec::with_capacity(N_HITS);
    for _ in 0..N_HITS {
        let began = Instant::now();
        let answer = client.extract(message.clone()).await?.into_inner();
        let round_trip = began.elapsed().as_secs_f64() * 1e3;
        let timing = answer.header.and_then(|header| header.timing).context("the answer holds no timing")?;
        ensure!(timing.source() == pb::Source::Cache && answer.data == first.data, "the answer is not the one that was kept");
        hits.push(Hit { cache: timing.cache_ms, arrival_to_answer: timing.total_ms, round_trip });
    }
    Ok((first.data.len(), hits))
}

fn report(name: &str, hits: &[Hit]) {
    let of = |time: fn(&Hit) -> f64| {
        let mut times: Vec<f64> = hits.iter().map(time).collect();
        times.sort_by(f64::total_cmp);
        [times[times.len() / 2], times[times.len() * 99 / 100]]
    };
    let cache = of(|hit| hit.cache);
    let times = [cache, of(|hit| hit.arrival_to_answer), of(|hit| hit.round_trip)].concat();
    let times: String = times.iter().map(|time| format!("{time:>17.3} ")).collect();
    let verdict = if cache[0] <= TARGET_MS { "met" } else { "missed" };
    println!("{name:<44} {times}{:>17}", format!("{TARGET_MS}: {verdict}"));
}

fn kb(n_bytes: usize) -> String {
    format!("{:.0} kB", n_bytes as f64 / 1e3)
}

fn request(source: pb::image::Source, side: u32, lift_passes: u32) -> pb::ExtractRequest {
    let size = pb::Size { height: side, width: side };
    let features = pb::FeatureOptions { lift_passes: Some(lift_passes), dtype: pb::DType::DtypeF16 as i32, ..Default::default() };
    pb::ExtractRequest {
        model: None,
        image: Some(pb::Image { source: Some(source) }),
        preprocess: Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() }),
        features: Some(features),
    }
}

/// Pixels that no format makes small.
fn noise(side: u32) -> Bytes {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    (0..side * side * 3).map(|_| next()).collect()
}

fn png(side: u32, pixels: &Bytes) -> anyhow::Result<Bytes> {
    // Half of the noise, as a photo has.
    let pixels = pixels.iter().map(|value| value >> 4).collect();
    let picture = image::RgbImage::from_raw(side, side, pixels).context("the picture has another size")?;
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, image::ImageFormat::Png)?;
    Ok(file.into_inner().into())
}
