//! The cluster that is measured: one that runs, one of processes, or one in this process.

use std::path::{Path, PathBuf};

use anyhow::Context;
use basalt_sql_tests::processes::{ProcessCluster, ProcessClusterConfig};
use clap::Args;
use tempfile::TempDir;

use crate::config::{CLUSTER_MEMORY_PART, ClusterConfig, DEFAULT_WORKERS};
use crate::memory::MemoryFlags;
use crate::roles::{self, Running};

/// Which cluster to measure.
#[derive(Debug, Clone, Args)]
pub(super) struct ClusterChoice {
    /// Measure the cluster that serves at this address
    #[arg(long, value_name = "URL", conflicts_with_all = ["processes", "workers"])]
    url: Option<String>,
    /// Measure a coordinator and N worker processes, started for this run
    #[arg(long, value_name = "N", conflicts_with = "workers", value_parser = clap::value_parser!(u16).range(1..))]
    processes: Option<u16>,
    /// Measure an embedded cluster of N workers, started for this run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Where clusters started for this run keep their data until it ends
    #[arg(long, value_name = "DIR", default_value = "basalt-data")]
    data_dir: PathBuf,
    #[command(flatten)]
    memory: MemoryFlags,
}

impl ClusterChoice {
    /// The same kind of cluster with another number of workers.
    pub(super) fn with_workers(&self, workers: u16) -> Self {
        let (processes, embedded) = match self.processes {
            Some(_) => (Some(workers), None),
            None => (None, Some(workers)),
        };
        Self { processes, workers: embedded, ..self.clone() }
    }

    /// Where everything that is started for this run keeps its data.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

enum Kind {
    Remote,
    Processes(ProcessCluster, TempDir),
    Embedded(Running, TempDir),
}

/// A cluster for the time of a measurement.
pub(super) struct Target {
    url: String,
    description: String,
    kind: Kind,
}

impl Target {
    /// Starts what `choice` says; `files` may be read by its COPY.
    pub(super) async fn start(choice: &ClusterChoice, files: &Path) -> anyhow::Result<Self> {
        if let Some(url) = &choice.url {
            let description = format!("cluster at {url}");
            return Ok(Self { url: url.clone(), description, kind: Kind::Remote });
        }
        let allow_path = vec![std::fs::canonicalize(files)?];
        let home = &choice.data_dir;
        std::fs::create_dir_all(home)
            .with_context(|| format!("folder {} cannot be made", home.display()))?;
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(home)?;
        let data_dir = folder.path().to_owned();
        if let Some(workers) = choice.processes.map(usize::from) {
            let binary = std::env::current_exe().context("the path of this program is unknown")?;
            let worker_args = worker_args(choice.memory);
            let config =
                ProcessClusterConfig { binary, data_dir, workers, allow_path, worker_args };
            // Starting waits for lines of the processes, so it blocks.
            let cluster =
                tokio::task::spawn_blocking(move || ProcessCluster::start(&config)).await??;
            let description = format!("coordinator and {workers} worker processes");
            let url = cluster.url().to_owned();
            return Ok(Self { url, description, kind: Kind::Processes(cluster, folder) });
        }
        let workers = choice.workers.map_or(DEFAULT_WORKERS, usize::from);
        let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let memory = choice.memory.resolve(MemoryFlags::default(), CLUSTER_MEMORY_PART)?;
        // What is measured is made each time.
        let result_cache_bytes = 0;
        let config = ClusterConfig {
            data_dir,
            listen: free,
            allow_path,
            workers,
            memory,
            result_cache_bytes,
        };
        let running = roles::start_cluster(config).await?;
        let description = format!("embedded cluster of {workers} workers");
        Ok(Self { url: running.url.clone(), description, kind: Kind::Embedded(running, folder) })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it was started for this run and holds nothing but its tables.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self.kind, Kind::Remote)
    }

    /// The ids of its processes, if it has its own.
    pub(super) fn process_ids(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Processes(cluster, _) => cluster.process_ids(),
            Kind::Remote | Kind::Embedded(..) => vec![],
        }
    }

    /// Whether it is in this process.
    pub(super) fn is_embedded(&self) -> bool {
        matches!(self.kind, Kind::Embedded(..))
    }

    /// What it is, for the report.
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    /// Stops what was started and removes its data.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let (stopped, folder) = match self.kind {
            Kind::Remote => return Ok(()),
            Kind::Processes(cluster, folder) => {
                (tokio::task::spawn_blocking(move || cluster.stop()).await?, folder)
            }
            Kind::Embedded(running, folder) => (running.stop().await, folder),
        };
        let path = folder.path().to_owned();
        folder.close().with_context(|| format!("{} cannot be removed", path.display()))?;
        stopped
    }
}

fn worker_args(memory: MemoryFlags) -> Vec<String> {
    let flags = [
        ("--memory", memory.memory),
        ("--query-memory", memory.query_memory),
        ("--column-cache", memory.column_cache),
        ("--load-memory", memory.load_memory),
    ];
    let given = flags.into_iter().filter_map(|(flag, bytes)| Some((flag, bytes?)));
    given.flat_map(|(flag, bytes)| [flag.to_owned(), bytes.to_string()]).collect()
}
