//! How fast do large tensors pass through HTTP/2, and what do its windows and frames do to that? Answers of 5 MB and requests with as much, on one
//! connection over loopback, without a model: the server's own listener and service code in a process of its own, a tonic client in
//! this one. Settings take turns within every round, so that a busy machine slows all of them. `make bench` runs it.
//!
//! `cargo bench --bench wire -- --serve ours` only serves, for clients in other languages.

#[path = "../gateway/cpu_time.rs"]
mod cpu_time;
#[expect(dead_code, reason = "only processes of this bench are started")]
#[path = "../gateway/server_process.rs"]
mod server_process;

mod canned;
#[path = "../rows.rs"]
mod rows;
mod setting;

use std::{process::Command, time::Instant};

use bytes::Bytes;
use clap::Parser;
use densevit::grpc::pb::v1::{self as pb, dense_vision_client::DenseVisionClient};
use futures_util::{StreamExt as _, stream};
use tonic::transport::Channel;

use crate::{
    cpu_time::CpuTime,
    rows::Row,
    server_process::ServerProcess,
    setting::{OF_ANSWERS, OF_REQUESTS, Server, Setting},
};

/// Bytes of an answer, or of the image of a request: 56 x 56 cells of 384 channels in fp32 are 4.8 MB.
const TENSOR_BYTES: usize = 5_000_000;
/// Calls of a round at one after the other, whose median is the latency, and at four at once.
const N_CALLS: usize = 60;
const N_AT_ONCE: usize = 4;
const TARGET_GB_S: f64 = 2.0;

/// Flags after `cargo bench --bench wire --`.
#[derive(Debug, Parser)]
struct Args {
    /// Only serve, with the settings of this server.
    #[arg(long)]
    serve: Option<Server>,
    /// Rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Cargo's.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Answers,
    Requests,
}

/// One setting, its server and its connection.
struct Contender {
    setting: Setting,
    process: ServerProcess,
    channel: Channel,
    rounds: Vec<Round>,
}

/// What a round told.
#[derive(Clone, Copy, Debug)]
struct Round {
    gb_s_alone: f64,
    gb_s: f64,
    p50_ms: f64,
    server_s_gb: f64,
    client_s_gb: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(server) = args.serve {
        return canned::serve(server.config(), TENSOR_BYTES, server.is_copied());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (direction, settings) in [(Direction::Answers, &OF_ANSWERS[..]), (Direction::Requests, &OF_REQUESTS[..])] {
        let mut contenders: Vec<Contender> =
            settings.iter().map(|setting| Contender::start(*setting, &runtime)).collect::<Result<_, _>>()?;
        for round in 0..=args.rounds {
            for contender in &mut contenders {
                let measured = runtime.block_on(contender.measure(direction))?;
                // The first only warms up.
                contender.rounds.extend((round > 0).then_some(measured));
            }
        }
        report(direction, &contenders);
        if direction == Direction::Answers {
            rows::write("wire", "make bench", &[fastest(&contenders)])?;
        }
    }
    Ok(())
}

impl Contender {
    fn start(setting: Setting, runtime: &tokio::runtime::Runtime) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", setting.server.name()]);
        let process = ServerProcess::start_with(&mut command)?;
        let channel = runtime.block_on(setting.client.endpoint(process.address())?.connect())?;
        Ok(Self { setting, process, channel, rounds: Vec::new() })
    }

    async fn measure(&self, direction: Direction) -> anyhow::Result<Round> {
        let image = (direction == Direction::Requests).then(|| Bytes::from(vec![7; TENSOR_BYTES]));
        let mut latencies = Vec::with_capacity(N_CALLS);
        for _ in 0..N_CALLS {
            let began = Instant::now();
            call(&self.channel, image.clone()).await?;
            latencies.push(began.elapsed().as_secs_f64());
        }
        let (began, of_server, of_client) = (Instant::now(), self.process.cpu_time()?, CpuTime::of_self()?);
        let mut calls = stream::iter((0..2 * N_CALLS).map(|_| call(&self.channel, image.clone()))).buffer_unordered(N_AT_ONCE);
        while let Some(done) = calls.next().await {
            done?;
        }
        let (seconds, gb) = (began.elapsed().as_secs_f64(), gigabytes(2 * N_CALLS));
        Ok(Round {
            gb_s_alone: gigabytes(N_CALLS) / latencies.iter().sum::<f64>(),
            gb_s: gb / seconds,
            p50_ms: median(latencies) * 1e3,
            server_s_gb: self.process.cpu_time()?.since(of_server) / gb,
            client_s_gb: CpuTime::of_self()?.since(of_client) / gb,
        })
    }

    fn median_of(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(value).collect())
    }
}

async fn call(channel: &Channel, image: Option<Bytes>) -> anyhow::Result<()> {
    let source = |data| pb::image::Source::Raw(pb::RawImage { height: 0, width: 0, data });
    let image = image.map(|data| pb::Image { source: Some(source(data)) });
    let wants_tensor = image.is_none();
    let request = pb::ExtractRequest { image, ..Default::default() };
    let answer = DenseVisionClient::new(channel.clone()).max_decoding_message_size(usize::MAX).extract(request).await?;
    anyhow::ensure!(answer.get_ref().data.len() == if wants_tensor { TENSOR_BYTES } else { 0 }, "an answer of another size");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn gigabytes(n_calls: usize) -> f64 {
    (n_calls * TENSOR_BYTES) as f64 / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// For the table of targets: the best of our settings, for calls one after the other and several at once: two cores do both ends, so that these are slower.
fn fastest(contenders: &[Contender]) -> Row {
    let ours = || contenders.iter().filter(|contender| contender.setting.server == Server::Ours);
    let best = |of: fn(&Round) -> f64| ours().map(|contender| contender.median_of(of)).fold(0.0, f64::max);
    let (alone, at_once) = (best(|round| round.gb_s_alone), best(|round| round.gb_s));
    let what = format!("5 MB answers over one connection, one after the other ({N_AT_ONCE} at once)");
    let is_met = alone.max(at_once) >= TARGET_GB_S;
    Row { what, result: format!("{alone:.2} ({at_once:.2}) GB/s"), target: format!("{TARGET_GB_S} GB/s"), is_met }
}

fn report(direction: Direction, contenders: &[Contender]) {
    let what = if direction == Direction::Answers { "answers" } else { "requests" };
    println!(
        "\n{what} of {} MB, one connection over loopback, medians of the rounds (aim {TARGET_GB_S} GB/s):",
        TENSOR_BYTES / 1_000_000
    );
    println!(
        "| server | client | GB/s, {N_AT_ONCE} at once | one after the other | p50 ms | server CPU-s/GB | client CPU-s/GB |"
    );
    println!("|---|---|---|---|---|---|---|");
    for contender in contenders {
        let [gb_s, alone, p50, server, client] = [
            contender.median_of(|round| round.gb_s),
            contender.median_of(|round| round.gb_s_alone),
            contender.median_of(|round| round.p50_ms),
            contender.median_of(|round| round.server_s_gb),
            contender.median_of(|round| round.client_s_gb),
        ];
        let Setting { server: of_server, client: of_client } = contender.setting;
        let names = (of_server.title(), of_client.title());
        println!("| {} | {} | {gb_s:.2} | {alone:.2} | {p50:.2} | {server:.2} | {client:.2} |", names.0, names.1);
    }
}
