//! `densevit health`: the probe of a container that has no shell and no other program.

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{commands::access::AccessArgs, grpc::client::Client};

/// Flags of `densevit health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Server to ask.
    #[arg(short, long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    server: String,
    #[command(flatten)]
    access: AccessArgs,
    /// What must be ready: models/NAME for a model [default: the whole server].
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
}

/// Asks once.
///
/// # Errors
/// When nobody answers or what was asked for is not ready.
pub fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the async runtime")?;
    let is_serving = runtime
        .block_on(async { Client::connect_with(&args.server, &args.access.access()).await?.is_serving(&args.service).await })?;
    if !is_serving {
        bail!("{} is not serving", args.server);
    }
    println!("SERVING");
    Ok(())
}
