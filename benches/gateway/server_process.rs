//! The server as a process of its own, so that its CPU time can be told from the client's.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

use crate::cpu_time::CpuTime;

/// A running `densevit serve`; killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    address: String,
}

impl ServerProcess {
    /// Serves `models` on a free port and waits until it is ready.
    pub fn start(models: &Path, config: Option<&Path>, overrides: &[(String, String)]) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_densevit"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--no-admin", "--log", "warn", "--default-model", "bench", "--models"]);
        command.arg(models);
        config.iter().for_each(|config| {
            command.arg("--config").arg(config);
        });
        overrides.iter().for_each(|(key, value)| {
            command.arg("--set").arg(format!("{key}={value}"));
        });
        Self::start_with(&mut command)
    }

    /// Runs the command, a `serve`, and waits until it listens.
    pub fn start_with(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting the server")?;
        let stdout = child.stdout.take().context("the server's output is not there")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").context("the server did not start")?.to_owned();
        Ok(Self { child, address })
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time that the server has used.
    pub fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        CpuTime::of(&self.pid().to_string())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}
