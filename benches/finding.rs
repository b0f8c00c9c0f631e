//! What objects, matches and labels along a video cost beside the run of the backbone: `cargo bench --bench finding`.
//!
//! Asks the default model about a photo at grids of 16 x 16, 32 x 32 and 56 x 56 cells, one request after another, and prints medians of what
//! the server reports: the run of the backbone, and the time after it (`postprocess_ms`), which is the search, the comparison, or carrying the
//! labels on with eight frames before and drawing them at the size of the photo.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use densevit::{
    config::ServeConfig,
    grpc::{
        client::Client,
        pb::v1::{self as pb, discover_request::Method, propagate_request::Part, propagate_response::Result as Answer},
    },
    server::Server,
};

/// Requests of each kind.
const N_ROUNDS: usize = 5;
/// Points of a match.
const N_POINTS: u32 = 256;
/// Frames before those that are counted: as many as are kept.
const N_BEFORE: usize = 8;
const SETTINGS: [(&str, &str); 3] = [("grpc.listen", "127.0.0.1:0"), ("admin.enabled", "false"), ("models.verify", "false")];

fn main() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let server = Server::start(ServeConfig::load(None, &settings)?).await?;
    let client = Client::connect(&server.address().to_string()).await?;
    let serving = tokio::spawn(server.run(std::future::pending()));
    let photo = Bytes::from(std::fs::read("third_party/photos/chelsea.png").context("run `make setup` first")?);
    println!("{:<12}{:<28}{:>14}{:>14}", "cells", "", "backbone ms", "after it ms");
    for side in [224, 448, 784] {
        let asked = Asked { client: &client, photo: &photo, side };
        let cut = |n_objects| (Method::TokenCut(pb::TokenCut::default()), n_objects);
        let lost = |n_objects| (Method::Lost(pb::Lost::default()), n_objects);
        for (name, (method, n_objects)) in
            [("TokenCut", cut(1)), ("TokenCut, 4 objects", cut(4)), ("LOST", lost(1)), ("LOST, 4 objects", lost(4))]
        {
            asked.report(name, &asked.objects(method, n_objects).await?);
        }
        asked.report(&format!("match of {N_POINTS} points"), &asked.matches().await?);
        asked.report("labels of a frame", &asked.labels().await?);
    }
    serving.abort();
    Ok(())
}

/// What is asked, and at which size.
struct Asked<'a> {
    client: &'a Client,
    photo: &'a Bytes,
    side: u32,
}

impl Asked<'_> {
    fn image(&self) -> Option<pb::Image> {
        Some(pb::Image { source: Some(pb::image::Source::Encoded(self.photo.clone())) })
    }

    fn preprocess(&self) -> Option<pb::Preprocess> {
        let size = pb::Size { height: self.side, width: self.side };
        Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() })
    }

    async fn objects(&self, method: Method, n_objects: u32) -> anyhow::Result<Vec<pb::Timing>> {
        let (image, preprocess, method) = (self.image(), self.preprocess(), Some(method));
        let request = pb::DiscoverRequest { image, preprocess, method, n_objects, ..Default::default() };
        let mut timings = Vec::new();
        for _ in 0..N_ROUNDS {
            timings.extend(self.client.discover(request.clone()).await?.timing);
        }
        Ok(timings)
    }

    async fn matches(&self) -> anyhow::Result<Vec<pb::Timing>> {
        let points = (0..N_POINTS).map(|idx| pb::Point { x: f64::from(idx), y: f64::from(idx) });
        let request = pb::MatchRequest {
            source: self.image(),
            target: self.image(),
            preprocess: self.preprocess(),
            features: Some(pb::MapOptions { lift_passes: Some(0), ..Default::default() }),
            points: points.collect(),
            ..Default::default()
        };
        let mut timings = Vec::new();
        for _ in 0..N_ROUNDS {
            timings.extend(self.client.match_points(request.clone()).await?.timing);
        }
        Ok(timings)
    }

    async fn labels(&self) -> anyhow::Result<Vec<pb::Timing>> {
        let photo = image::load_from_memory(self.photo)?;
        let raw: Vec<u8> = (0..photo.height()).flat_map(|y| (0..photo.width()).map(move |x| u8::from(x > y))).collect();
        let start = pb::PropagateStart {
            frame: self.image(),
            preprocess: self.preprocess(),
            labels: Some(pb::LabelMap { raw: raw.into(), ..Default::default() }),
            format: pb::MaskFormat::Png.into(),
            ..Default::default()
        };
        let (sender, messages) = tokio::sync::mpsc::channel(1);
        sender.send(pb::PropagateRequest { part: Some(Part::Start(start)) }).await?;
        let mut video = self.client.propagate(tokio_stream::wrappers::ReceiverStream::new(messages)).await?;
        let mut timings = Vec::new();
        for frame in 0..=N_BEFORE + N_ROUNDS {
            let Some(pb::PropagateResponse { result: Some(Answer::Masks(masks)), .. }) = video.next().await? else {
                bail!("frame {frame} failed");
            };
            if frame > N_BEFORE {
                timings.extend(masks.header.and_then(|header| header.timing));
            }
            // The next one only now: a frame that waits for another would count that as its own time.
            sender.send(pb::PropagateRequest { part: self.image().map(Part::Frame) }).await?;
        }
        Ok(timings)
    }

    fn report(&self, name: &str, timings: &[pb::Timing]) {
        let median = |time: fn(&pb::Timing) -> f64| {
            let mut times: Vec<f64> = timings.iter().map(time).collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        let cells = self.side / 14;
        let (backbone, after) = (median(|timing| timing.backbone_ms), median(|timing| timing.postprocess_ms));
        println!("{:<12}{name:<28}{backbone:>14.1}{after:>14.1}", format!("{cells} x {cells}"));
    }
}
