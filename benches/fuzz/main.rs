//! A million requests that nobody would send on purpose, to a real server with a tiny model: `cargo bench --bench fuzz -- --cases 1000000`.
//!
//! # Design
//! Messages go through everything that a caller's go through: HTTP/2, the decoder, the checks, image decoders, the batcher, the model. The
//! server runs in this process, so that a panic anywhere in it is counted, also one that only ended a task. Valid messages of every method
//! are the seeds; bytes are flipped, cut out, doubled, replaced by extremes and spliced with other seeds', because what is nearly right comes
//! furthest. A case that makes the server panic, answer INTERNAL or UNKNOWN, or fall silent is written to target/fuzz/.

mod mutation;
#[path = "../rows.rs"]
mod rows;
mod seeds;
mod server;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Parser;
use densevit::grpc::client::{Call, Client};
use tokio::task::JoinSet;

use crate::{mutation::Mutator, rows::Row, seeds::Seed};

/// Flags after `cargo bench --bench fuzz --`.
#[derive(Debug, Parser)]
struct Args {
    /// Requests.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// Of the mutations.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Requests in flight.
    #[arg(long, default_value_t = 32)]
    in_flight: u64,
    /// Cargo's.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Patience with one request: none should take a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Codes that a request must never end with, however it looks.
const FAULTS: [&str; 4] = ["Internal", "Unknown", "DataLoss", "DeadlineExceeded"];

/// How many requests ended with which code.
type Counts = BTreeMap<&'static str, u64>;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let n_panics = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&n_panics);
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        eprintln!("fuzz: PANIC {panic}");
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (counts, n_faults) = runtime.block_on(run(&args, &n_panics))?;
    let listed: Vec<String> = counts.iter().map(|(code, n)| format!("{code} {n}")).collect();
    println!("fuzz: {} cases: {}", args.cases, listed.join(", "));
    let n_panics = n_panics.load(Ordering::Relaxed);
    let what = format!("faults and panics in {} spoilt requests and files", args.cases);
    let is_met = n_faults == 0 && n_panics == 0;
    let row = Row { what, result: format!("{n_faults} and {n_panics}"), target: "none in 1000000".to_owned(), is_met };
    rows::write("fuzz", "make fuzz", &[row])?;
    ensure!(is_met, "{n_faults} faults, {n_panics} panics; the cases are in target/fuzz/");
    println!("fuzz: no fault, no panic");
    Ok(())
}

async fn run(args: &Args, n_panics: &Arc<AtomicU64>) -> anyhow::Result<(Counts, u64)> {
    let server = server::start().await?;
    let client = Client::connect(&server.address).await?;
    let seeds: Arc<Vec<Seed>> = Arc::new(seeds::all(&client)?);
    println!("fuzz: {} seeds, {} cases", seeds.len(), args.cases);
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..args.in_flight.max(1) {
        let worker = Worker { seeds: Arc::clone(&seeds), n_panics: Arc::clone(n_panics), seed: args.seed };
        let (next, n_cases) = (Arc::clone(&next), args.cases);
        workers.spawn(async move {
            let (mut counts, mut n_faults) = (Counts::new(), 0);
            loop {
                let idx = next.fetch_add(1, Ordering::Relaxed);
                if idx >= n_cases {
                    return (counts, n_faults);
                }
                let (code, is_fault) = worker.one(idx).await;
                *counts.entry(code).or_default() += 1;
                n_faults += u64::from(is_fault);
            }
        });
    }
    let progress = tokio::spawn(progress(Arc::clone(&next), args.cases));
    let (mut counts, mut n_faults) = (Counts::new(), 0);
    while let Some(done) = workers.join_next().await {
        let (of_worker, faults) = done?;
        of_worker.into_iter().for_each(|(code, n)| *counts.entry(code).or_default() += n);
        n_faults += faults;
    }
    progress.abort();
    // Whatever came before, the server still answers what is right.
    for seed in seeds.iter() {
        let ended = seed.call.send(seed.message.clone(), PATIENCE).await;
        ensure!(ended.code == "OK", "afterwards, {} answers {}: {}", seed.name, ended.code, ended.message);
    }
    Ok((counts, n_faults))
}

/// A line every ten seconds.
async fn progress(next: Arc<AtomicU64>, n_cases: u64) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let n = next.load(Ordering::Relaxed).min(n_cases);
        println!("fuzz: {n} of {n_cases}, {:.0} a second", n as f64 / began.elapsed().as_secs_f64());
    }
}

/// Sends cases.
struct Worker {
    seeds: Arc<Vec<Seed>>,
    n_panics: Arc<AtomicU64>,
    seed: u64,
}

impl Worker {
    /// Sends the `idx`-th case. Returns its code, and whether it is a fault.
    async fn one(&self, idx: u64) -> (&'static str, bool) {
        let mut mutator = Mutator::new(self.seed, idx);
        let seed = mutator.pick(&self.seeds);
        let other = mutator.pick(&self.seeds);
        let message = seed.mutated(&mut mutator, other);
        let before = self.n_panics.load(Ordering::Relaxed);
        let call: &Call = &seed.call;
        let ended = call.send(message.clone(), PATIENCE).await;
        let is_fault = FAULTS.contains(&ended.code) || self.n_panics.load(Ordering::Relaxed) > before;
        if is_fault {
            let path = Path::new("target/fuzz").join(format!("{}-{}-{idx}.bin", seed.name, ended.code));
            let written = fs::create_dir_all("target/fuzz").and_then(|()| fs::write(&path, &message));
            eprintln!("fuzz: {} answers {}: {} ({}, {written:?})", seed.name, ended.code, ended.message, path.display());
        }
        (ended.code, is_fault)
    }
}
