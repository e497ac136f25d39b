//! Serving until somebody says stop.

use std::io::{self, Write};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::roles::Running;

/// Prints that a role is ready, serves until SIGINT or SIGTERM, and stops it.
///
/// The line `basalt <role> ready: <url>` on standard output is a contract: process tests and
/// `bench` wait for it (see [`basalt_sql_tests::processes`]).
///
/// # Errors
/// When the role dies on its own, or cannot be stopped in order.
pub async fn until_stopped(role: &str, running: Running) -> anyhow::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "basalt {role} ready: {}", running.url)?;
    out.flush()?;
    wait_and_stop(running).await
}

/// Serves until SIGINT or SIGTERM and stops; a second signal while stopping ends at once.
///
/// # Errors
/// As [`until_stopped`].
pub async fn wait_and_stop(mut running: Running) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    tokio::select! {
        error = running.ended() => {
            // Whatever is left is stopped as well; the first error is the one that tells.
            let _ = running.stop().await;
            return Err(error);
        }
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    tokio::select! {
        stopped = running.stop() => stopped,
        _ = interrupt.recv() => bail!("stopped by a second signal before everything was closed"),
        _ = terminate.recv() => bail!("stopped by a second signal before everything was closed"),
    }
}
