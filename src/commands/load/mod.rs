//! `densevit load`: sends the load of a profile to a server and says how it bore it.
//!
//! # Design
//! ghz is the tool that everybody knows, and `deploy/load` holds its profiles; this command reads the same files and writes the same JSON.
//! It adds what ghz lacks: arrivals of independent users, latency from when a request was due, p99.9, time to the first message of a
//! stream, and an exit status for objectives. It serves as a check in delivery pipelines where ghz is not at hand.

mod arrivals;
mod drive;
mod objective;
mod profile;
mod report;

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    arrays::write_atomically,
    commands::{
        access::AccessArgs,
        load::{
            arrivals::{Rate, Spacing},
            drive::Drive,
            objective::Objective,
            profile::Profile,
            report::Report,
        },
    },
    grpc::client::{Access, Call, Client, Method},
};

/// Flags of `densevit load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Profile: a configuration of ghz (JSON), as those in deploy/load.
    profile: PathBuf,
    /// Server to ask [default: the profile's host].
    #[arg(short, long, value_name = "HOST:PORT")]
    server: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Requests a second, instead of the profile's.
    #[arg(long, value_name = "N")]
    rps: Option<f64>,
    /// How long requests are sent, instead of the profile's.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<std::time::Duration>,
    /// Callers of a closed loop, instead of the profile's.
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Spacing of the requests of an open loop.
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: Spacing,
    /// Requests in flight at most; those due beyond are not sent, and counted.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_in_flight: usize,
    /// Of the arrivals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What must hold: p99<200ms, failed<1%, rate>40. The exit status is 4 when one is missed.
    #[arg(long = "slo", value_name = "OBJECTIVE")]
    objectives: Vec<Objective>,
    /// Write everything that was measured, in the shape of ghz's JSON.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// An objective was missed.
#[derive(Debug, thiserror::Error)]
#[error("missed: {}", .0.join("; "))]
pub struct ObjectivesMissed(Vec<String>);

/// Sends, waits, prints. Ctrl-C ends the sending; what was measured until then is printed.
///
/// # Errors
/// A profile that cannot be used, a server that cannot be reached, [`ObjectivesMissed`].
pub fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let profile = profile(args)?;
    let method = Method::find(&profile.call)?;
    let encode = |(idx, request)| method.encode(request).with_context(|| format!("request {idx}"));
    let messages = profile.requests.iter().enumerate().map(encode).collect::<anyhow::Result<Vec<_>>>()?;
    let drive = Drive { spacing: args.arrivals, seed: args.seed, max_in_flight: args.max_in_flight };
    let address = args.server.as_deref().unwrap_or(&profile.host);
    ensure!(!address.is_empty(), "no server: neither --server nor the profile's host names one");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the async runtime")?;
    let run = runtime.block_on(async {
        let calls = connect(address, &args.access.access(), &method, profile.connections).await?;
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("load: no more requests; waiting for the answers that are due");
                stopping.cancel();
            }
        });
        drive::run(&profile, drive, calls, messages, stop).await
    })?;
    let report = Report::new(&profile, &run);
    report.print();
    if let Some(path) = &args.output {
        let json = serde_json::to_vec_pretty(&report.json())?;
        write_atomically(path, &[&json]).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    let missed: Vec<String> = args.objectives.iter().filter_map(|objective| objective.missed(&report)).collect();
    if !missed.is_empty() {
        bail!(ObjectivesMissed(missed));
    }
    Ok(())
}

/// The method on so many connections.
async fn connect(address: &str, access: &Access, method: &Method, n: usize) -> anyhow::Result<Vec<Call>> {
    let mut calls = Vec::with_capacity(n);
    for _ in 0..n {
        calls.push(Client::connect_with(address, access).await?.call(method));
    }
    Ok(calls)
}

fn profile(args: &LoadArgs) -> anyhow::Result<Profile> {
    let mut profile = Profile::read(&args.profile)?;
    if let Some(rps) = args.rps {
        let rate = Rate::constant(rps);
        rate.check().context("--rps")?;
        profile.rate = Some(rate);
    }
    if let Some(duration) = args.duration {
        (profile.duration, profile.total) = (Some(duration), None);
    }
    if let Some(concurrency) = args.concurrency {
        ensure!(concurrency > 0, "--concurrency must be at least 1");
        profile.concurrency = concurrency;
    }
    Ok(profile)
}

fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    profile::duration(text).map_err(|error| error.to_string())
}
