//! `basalt start`: an embedded cluster on a data folder of the user's own.

use clap::Args;

use crate::config::{ClusterConfig, ServerFlags};
use crate::memory::{MemoryFlags, ResultCacheFlag};
use crate::{data_dir, roles, serve};

/// Serve an embedded cluster: coordinator and workers in this process
///
/// Defaults: data in ./basalt-data/cluster, Flight SQL on 127.0.0.1:50051, COPY may read
/// the current folder.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    server: ServerFlags,
    /// Number of workers; fixed when the data folder is made [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    #[command(flatten)]
    memory: MemoryFlags,
    #[command(flatten)]
    result_cache: ResultCacheFlag,
}

pub(super) async fn run(args: StartArgs) -> anyhow::Result<()> {
    args.server.arm_fail_point();
    let workers = args.workers.map(usize::from);
    let config = ClusterConfig::resolve(
        args.server,
        workers,
        args.memory,
        args.result_cache,
        "basalt-data/cluster",
    )?;
    data_dir::claim(&config.data_dir, config.workers)?;
    let running = roles::start_cluster(config).await?;
    serve::until_stopped("cluster", running).await
}
