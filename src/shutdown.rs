//! Signals: the first asks the server to drain, the second ends the process at once.

use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Exit status after a second signal, as a shell reports a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Resolves at the first SIGTERM or SIGINT. From then on a second one exits the process with status 130.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn requested() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        info!("{name}: draining, a second signal exits at once");
        tokio::spawn(async move {
            let name = next(&mut terminate, &mut interrupt).await;
            warn!("{name} again: exiting without draining");
            process::exit(INTERRUPTED);
        });
    })
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
