//! The databases of a run: plain DataFusion, and clusters of several sizes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::data::Table;
use super::databases::{Cluster, Database, PlainDataFusion};
use super::oracles::Databases;
use crate::cluster::{EmbeddedCluster, EmbeddedConfig};

/// Memory that the queries of one embedded cluster may use, in bytes.
const CLUSTER_MEMORY_BYTES: usize = 1 << 30;
/// Partitions of DataFusion in one process: one for what is expected, and several for what the
/// engine's own arithmetic gives there.
const PLAIN_PARTITIONS: usize = 1;
const CHECKED_PARTITIONS: usize = 4;

/// A number of workers, settings of a session on them, and which queries run there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Workers of an embedded cluster.
    pub workers: u16,
    /// Partitions per task.
    pub partitions: usize,
    /// Other settings of the session, like `pruning=off`.
    pub settings: Vec<String>,
    /// Queries run here whose seed is `offset` modulo `every`.
    pub every: u64,
    /// See `every`.
    pub offset: u64,
}

/// Where clusters come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Embedded clusters, started anew for every round, below a folder.
    Embedded {
        /// The folder.
        dir: PathBuf,
        /// The clusters; equal numbers of workers share one.
        topologies: Vec<Topology>,
    },
    /// A cluster that runs already; its tables `fuzz_...` are replaced.
    Url {
        /// Where it listens.
        url: String,
        /// The sessions; their numbers of workers mean nothing.
        topologies: Vec<Topology>,
    },
}

/// What is tested.
pub struct Target {
    /// What it is, as flags of `basalt fuzz`.
    pub flags: String,
    /// The database.
    pub database: Arc<dyn Database>,
    /// Queries run here whose seed is `offset` modulo `every`.
    pub every: u64,
    /// See `every`.
    pub offset: u64,
}

/// DuckDB, and how a run names it.
#[derive(Clone)]
pub struct DuckDbReference {
    /// The database.
    pub database: Arc<dyn Database>,
    /// What it is, as flags of `basalt fuzz`.
    pub flags: String,
}

/// The databases of a round.
pub struct Setup {
    /// Plain DataFusion.
    pub plain: Arc<dyn Database>,
    /// DataFusion in one process with our arithmetic.
    pub checked: Arc<dyn Database>,
    /// DataFusion in one process that pushes no filters down.
    pub without_pushdown: Arc<dyn Database>,
    /// DataFusion in one process without some of its physical rules.
    pub with_few_rules: Arc<dyn Database>,
    /// DuckDB, when it takes its turn.
    pub duckdb: Option<DuckDbReference>,
    /// What is tested.
    pub targets: Vec<Target>,
    /// One session on each cluster, to make tables with.
    loaders: Vec<Arc<dyn Database>>,
    clusters: Vec<(EmbeddedCluster, PathBuf)>,
}

impl Setup {
    /// Starts what a source describes.
    ///
    /// # Errors
    /// Clusters that do not start or do not answer.
    pub async fn start(source: &Source) -> anyhow::Result<Self> {
        match source {
            Source::Embedded { dir, topologies } => Self::embedded(dir, topologies).await,
            Source::Url { url, topologies } => {
                let mut setup = Self::of(Vec::new());
                for topology in topologies {
                    setup.connect(url, format!("--url {url}"), topology).await?;
                }
                setup.loaders.truncate(1);
                Ok(setup)
            }
        }
    }

    /// The databases of a test: targets that are there already.
    pub fn of(targets: Vec<Target>) -> Self {
        let loaders = targets.iter().map(|target| Arc::clone(&target.database)).collect();
        Self {
            plain: Arc::new(PlainDataFusion::new(PLAIN_PARTITIONS)),
            checked: Arc::new(PlainDataFusion::checked(CHECKED_PARTITIONS)),
            without_pushdown: Arc::new(PlainDataFusion::without_pushdown(PLAIN_PARTITIONS)),
            with_few_rules: Arc::new(PlainDataFusion::with_few_rules(PLAIN_PARTITIONS)),
            duckdb: None,
            targets,
            loaders,
            clusters: Vec::new(),
        }
    }

    async fn embedded(dir: &Path, topologies: &[Topology]) -> anyhow::Result<Self> {
        let mut setup = Self::of(Vec::new());
        let mut started: Vec<(u16, String)> = Vec::new();
        for topology in topologies {
            let workers = topology.workers;
            let url = match started.iter().find(|(there, _)| *there == workers) {
                Some((_, url)) => url.clone(),
                None => {
                    let data_dir = dir.join(format!("{workers}-workers"));
                    let config = EmbeddedConfig {
                        memory_bytes: CLUSTER_MEMORY_BYTES,
                        ..EmbeddedConfig::new(&data_dir, workers)
                    };
                    let cluster = EmbeddedCluster::start(&config).await?;
                    let url = cluster.url();
                    setup.clusters.push((cluster, data_dir));
                    started.push((workers, url.clone()));
                    url
                }
            };
            let is_first = setup.clusters.len() > setup.loaders.len();
            setup.connect(&url, format!("--workers {workers}"), topology).await?;
            if !is_first {
                setup.loaders.pop();
            }
        }
        Ok(setup)
    }

    async fn connect(
        &mut self,
        url: &str,
        cluster: String,
        topology: &Topology,
    ) -> anyhow::Result<()> {
        let Topology { partitions, settings, every, offset, .. } = topology;
        let mut flags = format!("{cluster} --partitions {partitions}");
        if !settings.is_empty() {
            flags += &format!(" --set {}", settings.join(","));
        }
        let database: Arc<dyn Database> =
            Arc::new(Cluster::connect(url, *partitions, settings).await?);
        self.loaders.push(Arc::clone(&database));
        let (every, offset) = (*every, *offset);
        self.targets.push(Target { flags, database, every, offset });
        Ok(())
    }

    /// Makes the tables in all databases.
    ///
    /// # Errors
    /// A database that refuses.
    pub async fn load(&self, tables: &[Table]) -> anyhow::Result<()> {
        let local = [&self.plain, &self.checked, &self.without_pushdown, &self.with_few_rules];
        let duckdb = self.duckdb.iter().map(|duckdb| &duckdb.database);
        let databases = self.loaders.iter().chain(local).chain(duckdb);
        let loads = databases.map(|database| async move {
            for table in tables {
                database.load(table).await.with_context(|| format!("table {}", table.name))?;
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(loads).await.map(drop)
    }

    /// The databases of a check on a target.
    pub fn databases<'a>(&'a self, target: &'a Target) -> Databases<'a> {
        Databases {
            plain: self.plain.as_ref(),
            checked: self.checked.as_ref(),
            without_pushdown: self.without_pushdown.as_ref(),
            with_few_rules: self.with_few_rules.as_ref(),
            duckdb: self.duckdb.as_ref().map(|duckdb| duckdb.database.as_ref()),
            tested: target.database.as_ref(),
        }
    }

    /// Drops the tables of a cluster that was there before, and ends and removes those that were
    /// not.
    ///
    /// # Errors
    /// A cluster that refuses, a folder that cannot be removed.
    pub async fn stop(self, tables: &[Table]) -> anyhow::Result<()> {
        if self.clusters.is_empty() {
            for (loader, table) in self
                .loaders
                .iter()
                .flat_map(|loader| tables.iter().map(move |table| (loader, table)))
            {
                loader.execute(&format!("DROP TABLE IF EXISTS {}", table.name)).await?;
            }
        }
        for (cluster, data_dir) in self.clusters {
            cluster.stop().await;
            std::fs::remove_dir_all(&data_dir)
                .with_context(|| format!("{} cannot be removed", data_dir.display()))?;
        }
        Ok(())
    }
}
