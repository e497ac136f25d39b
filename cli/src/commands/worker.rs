//! `basalt worker`: one process of a real cluster.

use clap::Args;

use crate::config::{ServerFlags, WorkerConfig, WorkerFlags};
use crate::{roles, serve};

/// Serve as a worker of a cluster
///
/// Registers at the coordinator under the address it listens on. Prints
/// `basalt worker ready: URL`.
///
/// Defaults: data in ./basalt-data/worker, a free port on 127.0.0.1, COPY may read nothing.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    worker: WorkerFlags,
    #[command(flatten)]
    server: ServerFlags,
}

pub(super) async fn run(args: WorkerArgs) -> anyhow::Result<()> {
    args.server.arm_fail_point();
    let config = WorkerConfig::resolve(args.server, args.worker)?;
    let running = roles::start_worker(config).await?;
    serve::until_stopped("worker", running).await
}
