//! `densevit serve`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use tracing::info;

use crate::{config::ServeConfig, server::Server, shutdown, telemetry};

/// How long the last traces may take: what the drain has left of its budget, within these bounds. A collector answers in milliseconds.
const MIN_FLUSH: Duration = Duration::from_millis(500);
const MAX_FLUSH: Duration = Duration::from_secs(5);

/// Flags of `densevit serve`. They override the environment (`DENSEVIT__SECTION__KEY`), which overrides the file.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port of gRPC; port 0 takes a free one [grpc.listen].
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Address and port of metrics and probes [admin.listen].
    #[arg(long, value_name = "ADDR:PORT")]
    admin_listen: Option<SocketAddr>,
    /// No metrics and probes port [admin.enabled = false].
    #[arg(long, conflicts_with = "admin_listen")]
    no_admin: bool,
    /// Model repository [models.dir].
    #[arg(short, long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Model of requests that name none [models.default].
    #[arg(long, value_name = "NAME")]
    default_model: Option<String>,
    /// ONNX Runtime's shared library [library].
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Log filter, e.g. `debug` [log.filter].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Any other key of the configuration, e.g. `--set batch.max_batch_size=4`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the effective configuration and exit.
    #[arg(long)]
    print_config: bool,
}

impl ServeArgs {
    /// A server for one client command: on loopback, a free port, no admin port, quiet.
    pub(super) fn for_one_command(config: Option<PathBuf>, models: Option<PathBuf>) -> Self {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self { config, models, listen, no_admin: true, ..Self::default() }
    }

    /// The configuration that these flags, the environment and the file make together.
    pub(super) fn resolve(&self) -> anyhow::Result<ServeConfig> {
        Ok(ServeConfig::load(self.config.as_deref(), &self.overrides()?)?)
    }

    fn overrides(&self) -> anyhow::Result<Vec<(String, String)>> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let named = [
            ("grpc.listen", self.listen.map(|address| address.to_string())),
            ("admin.listen", self.admin_listen.map(|address| address.to_string())),
            ("admin.enabled", self.no_admin.then(|| "false".to_owned())),
            ("models.dir", self.models.as_ref().map(path)),
            ("models.default", self.default_model.clone()),
            ("library", self.library.as_ref().map(path)),
            ("log.filter", self.log.clone()),
        ];
        let mut overrides: Vec<(String, String)> = Vec::new();
        overrides.extend(named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else { bail!("--set {pair}: expected KEY=VALUE") };
            overrides.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(overrides)
    }
}

/// Serves until SIGTERM or SIGINT, then drains and returns.
///
/// # Errors
/// A configuration that does not fit, or a server that cannot start; nothing is served then.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let config = args.resolve()?;
    let effective = config.to_toml().context("printing the configuration")?;
    if args.print_config {
        print!("{effective}");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the async runtime")?;
    let traces = {
        let _around = runtime.enter();
        telemetry::init(&config.log, &config.trace)?
    };
    info!("effective configuration:\n{effective}");
    let drain = Duration::from_secs_f64((config.shutdown.delay_s + config.shutdown.budget_s).max(0.0));
    let stopped = OnceLock::new();
    let outcome = runtime.block_on(async {
        let requested = shutdown::requested().context("installing signal handlers")?;
        let stop = async {
            requested.await;
            stopped.get_or_init(Instant::now);
        };
        tokio::pin!(stop);
        let server = tokio::select! {
            server = Server::start(config) => server?,
            () = &mut stop => bail!("stopped while starting"),
        };
        info!(startup_ms = begun.elapsed().as_millis(), "serving {} model(s)", server.n_models());
        // Scripts wait for this line; the port is only known now when the configuration said 0.
        println!("listening on {}", server.address());
        server.run(stop).await;
        Ok(())
    });
    let left = drain.saturating_sub(stopped.get().map(Instant::elapsed).unwrap_or_default());
    traces.flush(left.clamp(MIN_FLUSH, MAX_FLUSH));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
