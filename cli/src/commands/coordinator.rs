//! `basalt coordinator`: one process of a real cluster.

use clap::Args;

use crate::config::{CoordinatorConfig, ServerFlags};
use crate::memory::ResultCacheFlag;
use crate::timing::TimingFlags;
use crate::{roles, serve};

/// Serve as the coordinator of a cluster
///
/// Creates the cluster when the data folder is new, and writes its secret to
/// <data-dir>/cluster.secret: workers need a copy. Prints `basalt coordinator ready: URL`.
///
/// Defaults: data in ./basalt-data/coordinator, Flight SQL on 127.0.0.1:50051, COPY may
/// read nothing.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    #[command(flatten)]
    server: ServerFlags,
    #[command(flatten)]
    timing: TimingFlags,
    #[command(flatten)]
    result_cache: ResultCacheFlag,
}

pub(super) async fn run(args: CoordinatorArgs) -> anyhow::Result<()> {
    args.server.arm_fail_point();
    let config = CoordinatorConfig::resolve(args.server, args.timing, args.result_cache)?;
    let running = roles::start_coordinator(config).await?;
    serve::until_stopped("coordinator", running).await
}
