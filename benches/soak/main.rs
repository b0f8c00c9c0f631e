//! What a server costs over time: memory over many shapes, processor time while nobody asks, time from start to ready. `make soak` runs it.
//!
//! Memory is that of a server process with a tiny model of two blocks, so that what grows is the server's and not the model's: fifty sizes,
//! each with and without LiFT, then requests that draw from them.

#[expect(dead_code, reason = "of others only, not of this process")]
#[path = "../gateway/cpu_time.rs"]
mod cpu_time;
#[path = "../rows.rs"]
mod rows;
#[path = "../gateway/server_process.rs"]
mod server_process;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser;
use densevit::{
    grpc::{client::Client, pb::v1 as pb},
    import::{HeadOptions, ImportOptions, import},
};
use rows::Row;
use server_process::ServerProcess;
use tokio::task::JoinSet;

/// Flags after `cargo bench --bench soak --`.
#[derive(Debug, Parser)]
struct Args {
    /// Requests after each shape was asked for twice.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Starts with the default model.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Cargo's.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Requests in flight.
const N_IN_FLIGHT: usize = 8;
/// How long nobody asks.
const IDLE: Duration = Duration::from_secs(20);
/// Resident memory at the end, as a share of what it was when every shape had been seen.
const MEMORY_TARGET: f64 = 1.05;
/// Share of one core that an idle server may take.
const IDLE_TARGET: f64 = 0.005;
/// Seconds from start to ready, with the default model.
const START_TARGET: f64 = 2.0;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let models = tempfile::tempdir()?;
    let fixture = |path: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path);
    let mut options = ImportOptions::new(fixture("backbones/dino_s16.safetensors"), models.path().to_path_buf(), "bench");
    options.head = Some(HeadOptions::new(fixture("lift/lift_c64_p16.safetensors")));
    import(&options, |_entry| Ok(()))?;
    let server = ServerProcess::start(models.path(), None, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let client = runtime.block_on(Client::connect(server.address()))?;
    println!("{:<58} {:>12} {:>10}", "", "result", "target");
    let rows = [memory(&runtime, &client, &server, args.requests)?, idle(&server)?, start(&runtime, args.starts)?];
    rows::write("soak", "make soak", &rows)?;
    ensure!(rows.iter().all(|row| row.is_met), "a target was missed");
    println!("soak: targets met");
    Ok(())
}

/// Prints a row.
fn row(what: &str, result: String, target: String, is_met: bool) -> Row {
    println!("{what:<58} {result:>12} {target:>10}{}", if is_met { "" } else { "   missed" });
    Row { what: what.to_owned(), result, target, is_met }
}

fn memory(runtime: &tokio::runtime::Runtime, client: &Client, server: &ServerProcess, n: usize) -> anyhow::Result<Row> {
    let shapes: Vec<pb::ExtractRequest> = (0..100).map(request).collect();
    let twice = || shapes.iter().chain(&shapes).cloned();
    runtime.block_on(ask(client, twice().collect()))?;
    let first = resident_kib(server)?;
    let mut random = fastrand::Rng::with_seed(0);
    let drawn = (0..n).map(|_| shapes[random.usize(..shapes.len())].clone()).collect();
    let began = Instant::now();
    runtime.block_on(ask(client, drawn))?;
    let (last, seconds) = (resident_kib(server)?, began.elapsed().as_secs_f64());
    let ratio = last / first;
    println!("  {:.0} -> {:.0} MiB, {:.0} requests a second", first / 1024.0, last / 1024.0, n as f64 / seconds);
    let name = format!("resident memory after {n} requests of 50 shapes");
    Ok(row(&name, format!("{ratio:.3}"), format!("{MEMORY_TARGET}"), ratio <= MEMORY_TARGET))
}

/// One of fifty sizes, with LiFT or without.
fn request(idx: u32) -> pb::ExtractRequest {
    let (height, width) = (16 * (2 + idx % 10), 16 * (2 + idx / 10 % 5));
    let raw = pb::RawImage { height, width, data: Bytes::from(vec![7; (height * width * 3) as usize]) };
    pb::ExtractRequest {
        image: Some(pb::Image { source: Some(pb::image::Source::Raw(raw)) }),
        preprocess: Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() }),
        features: Some(pb::FeatureOptions { lift_passes: Some(idx / 50), ..Default::default() }),
        ..Default::default()
    }
}

async fn ask(client: &Client, requests: Vec<pb::ExtractRequest>) -> anyhow::Result<()> {
    let mut in_flight = JoinSet::new();
    for request in requests {
        if in_flight.len() >= N_IN_FLIGHT {
            in_flight.join_next().await.context("something is in flight")???;
        }
        let client = client.clone();
        in_flight.spawn(async move { client.extract_whole(request).await.map(drop).map_err(anyhow::Error::from) });
    }
    while let Some(done) = in_flight.join_next().await {
        done??;
    }
    Ok(())
}

fn idle(server: &ServerProcess) -> anyhow::Result<Row> {
    let before = server.cpu_time()?;
    std::thread::sleep(IDLE);
    let share = server.cpu_time()?.since(before) / IDLE.as_secs_f64();
    let show = |share: f64| format!("{:.2} %", 100.0 * share);
    Ok(row("processor time while nobody asks, of one core", show(share), show(IDLE_TARGET), share <= IDLE_TARGET))
}

/// From the start of the process to SERVING, the median of several.
fn start(runtime: &tokio::runtime::Runtime, n: usize) -> anyhow::Result<Row> {
    let mut seconds = Vec::with_capacity(n);
    for _ in 0..n.max(1) {
        let began = Instant::now();
        let server = ServerProcess::start_with(Command::new(env!("CARGO_BIN_EXE_densevit")).args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--no-admin",
            "--log",
            "warn",
        ]))?;
        let client = runtime.block_on(Client::connect(server.address()))?;
        while !runtime.block_on(client.is_serving(""))? {
            std::thread::sleep(Duration::from_millis(5));
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    let name = "start to SERVING, default model with both heads (median)";
    Ok(row(name, format!("{median:.2} s"), format!("{START_TARGET} s"), median <= START_TARGET))
}

/// Resident memory of a process.
fn resident_kib(server: &ServerProcess) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the system does not tell")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
