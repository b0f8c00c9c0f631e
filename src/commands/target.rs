//! Which server a client command talks to: one that runs, or one in this process for the time of the command.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    commands::{access::AccessArgs, serve::ServeArgs},
    grpc::client::Client,
    server::Server,
};

/// How long files that are being written when a command ends may take.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Flags that choose the server.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Server to ask. Without it the command starts a server of its own for its duration.
    #[arg(short, long, value_name = "HOST:PORT")]
    server: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Configuration of the command's own server; see `densevit serve --help`.
    #[arg(short, long, value_name = "FILE", conflicts_with = "server")]
    config: Option<std::path::PathBuf>,
    /// Model repository of the command's own server.
    #[arg(short, long, value_name = "DIR", conflicts_with = "server")]
    models: Option<std::path::PathBuf>,
}

impl TargetArgs {
    /// Connects, runs `work`, and stops the command's own server if there is one.
    ///
    /// # Errors
    /// When no connection can be made, and what `work` returns. Ctrl-C and SIGTERM end the work with an error.
    pub fn with_client<T>(&self, work: impl AsyncFnOnce(Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the async runtime")?;
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = self.connected(work) => outcome,
                interrupted = interrupted() => {
                    interrupted.context("waiting for signals")?;
                    Err(anyhow::anyhow!("interrupted"))
                }
            }
        });
        // Writes that have begun must leave no scratch; longer work on blocking threads must not hold the prompt back.
        runtime.shutdown_timeout(LAST_WRITES);
        outcome
    }

    async fn connected<T>(&self, work: impl AsyncFnOnce(Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        if let Some(address) = &self.server {
            return work(Client::connect_with(address, &self.access.access()).await?).await;
        }
        let config = ServeArgs::for_one_command(self.config.clone(), self.models.clone()).resolve()?;
        let server = Server::start(config).await.context("starting a server for this command")?;
        let client = Client::connect(&server.address().to_string()).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.run(async {
            let _stop_or_gone = stopped.await;
        }));
        let outcome = work(client).await;
        let _server_gone = stop.send(());
        serving.await.context("stopping the command's own server")?;
        outcome
    }
}

/// Resolves at the first SIGINT or SIGTERM. The first process of a container does not end by a signal that it does not wait for.
async fn interrupted() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
