//! The configuration of the server roles: flags, a TOML file, and defaults, in that order.
//!
//! Keys of the file are the names of the flags (`data-dir`, `allow-path`); an unknown key is an
//! error that names it. Relative paths count from the current folder, in flags and file alike.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use basalt_engine::protocol::{WORKER_WEIGHT_MAX, domain_problem};
use basalt_storage::fail_point::{self, FailPlan};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::exit::UsageError;
use crate::memory::{Memory, MemoryFlags, MemoryTexts, ResultCacheFlag};
use crate::timing::TimingFlags;

/// Where Flight SQL is served by default.
pub const DEFAULT_LISTEN: SocketAddr = local(50051);

/// Workers of an embedded cluster by default.
pub const DEFAULT_WORKERS: usize = 3;

/// Any free port on loopback: what a worker listens on by default.
const FREE_PORT: SocketAddr = local(0);

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// An embedded cluster: coordinator and workers in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Where everything is kept; made when it is missing.
    pub data_dir: PathBuf,
    /// Flight SQL; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Folders that server-side `COPY` and `read_parquet` may read.
    pub allow_path: Vec<PathBuf>,
    /// Number of workers, at least 1.
    pub workers: usize,
    /// Memory of all workers together.
    pub memory: Memory,
    /// Memory for answers that may be asked for again.
    pub result_cache_bytes: usize,
}

/// A coordinator process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// Catalog and `cluster.secret`; made when it is missing.
    pub data_dir: PathBuf,
    /// Flight SQL, and the port that workers register at; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Folders that server-side `COPY` and `read_parquet` may read; none by default.
    pub allow_path: Vec<PathBuf>,
    /// When workers are suspected, given up and cleared away after.
    pub timing: TimingFlags,
    /// Memory for answers that may be asked for again.
    pub result_cache_bytes: usize,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Chunks; made when it is missing.
    pub data_dir: PathBuf,
    /// Fragments and chunks; a free port by default. The address it got is what it registers.
    pub listen: SocketAddr,
    /// Folders that `COPY` and `read_parquet` may read on this worker; none by default.
    pub allow_path: Vec<PathBuf>,
    /// The coordinator's Flight SQL address.
    pub coordinator_url: String,
    /// The secret that the coordinator wrote when it created the cluster.
    pub secret_file: PathBuf,
    /// The address it registers, when it is not the one it listens on.
    pub advertise: Option<String>,
    /// What it fails together with.
    pub domain: Option<String>,
    /// Its relative capacity.
    pub weight: u32,
    /// Its memory.
    pub memory: Memory,
}

/// A worker process uses this part of the machine's memory, so that a few fit on one machine.
const WORKER_MEMORY_PART: usize = 4;
/// A cluster in one process uses this part.
pub const CLUSTER_MEMORY_PART: usize = 2;

/// Flags that every server role has.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServerFlags {
    /// Folder for everything that is kept; made when missing
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to serve on; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Folder that server-side COPY and read_parquet may read (repeatable)
    #[arg(long, value_name = "DIR")]
    pub allow_path: Vec<PathBuf>,
    /// TOML file with the same keys as the flags; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// For tests: the step of a write at which this process ends
    #[arg(long, value_name = "POINT[:N][=stop]", hide = true)]
    pub fail_at: Option<FailPlan>,
}

impl ServerFlags {
    /// Arms this process to end at the step that `--fail-at` names, if it names one.
    pub fn arm_fail_point(&self) {
        if let Some(plan) = self.fail_at {
            fail_point::arm(plan);
        }
    }
}

/// Flags of a worker beside the common ones.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WorkerFlags {
    /// Flight SQL address of the coordinator to join
    #[arg(long, value_name = "URL")]
    pub coordinator: Option<String>,
    /// The cluster.secret that the coordinator wrote into its data folder
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Address that others reach this worker at, when it is not the one it listens on
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// What this worker fails together with, a rack or a host: copies go to different ones
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
    /// Relative capacity: a worker of 2 gets twice the rows of one of 1 [1 to 1000]
    #[arg(long, value_name = "N")]
    pub weight: Option<u32>,
    /// Its memory
    #[command(flatten)]
    pub memory: MemoryFlags,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ClusterFile {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    allow_path: Option<Vec<PathBuf>>,
    workers: Option<usize>,
    memory: Option<String>,
    query_memory: Option<String>,
    column_cache: Option<String>,
    load_memory: Option<String>,
    result_cache: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct CoordinatorFile {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    allow_path: Option<Vec<PathBuf>>,
    /// Unknown keys are found without `flatten`, which cannot see them.
    suspect_after: Option<String>,
    repair_after: Option<String>,
    garbage_after: Option<String>,
    scrub_every: Option<String>,
    result_cache: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct WorkerFile {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    allow_path: Option<Vec<PathBuf>>,
    coordinator: Option<String>,
    secret_file: Option<PathBuf>,
    advertise: Option<String>,
    domain: Option<String>,
    weight: Option<u32>,
    memory: Option<String>,
    query_memory: Option<String>,
    column_cache: Option<String>,
    load_memory: Option<String>,
}

impl ClusterConfig {
    /// From the flags of `basalt start` or `demo`, their file, and the defaults.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value that makes no sense.
    pub fn resolve(
        flags: ServerFlags,
        workers: Option<usize>,
        memory: MemoryFlags,
        result_cache: ResultCacheFlag,
        default_data_dir: &str,
    ) -> Result<Self, UsageError> {
        let file: ClusterFile = read(flags.config.as_deref())?;
        let in_file = MemoryFlags::parse(MemoryTexts {
            memory: file.memory,
            query_memory: file.query_memory,
            column_cache: file.column_cache,
            load_memory: file.load_memory,
        })?;
        let workers = workers.or(file.workers).unwrap_or(DEFAULT_WORKERS);
        if workers == 0 {
            return Err(UsageError("workers must be at least 1".into()));
        }
        Ok(Self {
            data_dir: flags.data_dir.or(file.data_dir).unwrap_or(default_data_dir.into()),
            listen: flags.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            allow_path: paths(flags.allow_path, file.allow_path, &[PathBuf::from(".")]),
            workers,
            memory: memory.resolve(in_file, CLUSTER_MEMORY_PART)?,
            result_cache_bytes: result_cache.resolve(file.result_cache)?,
        })
    }
}

impl CoordinatorConfig {
    /// From the flags of `basalt coordinator`, their file, and the defaults.
    ///
    /// # Errors
    /// A file that cannot be read, or an unknown key.
    pub fn resolve(
        flags: ServerFlags,
        timing: TimingFlags,
        result_cache: ResultCacheFlag,
    ) -> Result<Self, UsageError> {
        let file: CoordinatorFile = read(flags.config.as_deref())?;
        let in_file = TimingFlags::parse(
            file.suspect_after,
            file.repair_after,
            file.garbage_after,
            file.scrub_every,
        )?;
        Ok(Self {
            data_dir: flags.data_dir.or(file.data_dir).unwrap_or("basalt-data/coordinator".into()),
            listen: flags.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            allow_path: paths(flags.allow_path, file.allow_path, &[]),
            timing: timing.or(in_file),
            result_cache_bytes: result_cache.resolve(file.result_cache)?,
        })
    }
}

impl WorkerConfig {
    /// From the flags of `basalt worker`, their file, and the defaults.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, no coordinator or no secret named.
    pub fn resolve(flags: ServerFlags, worker: WorkerFlags) -> Result<Self, UsageError> {
        let file: WorkerFile = read(flags.config.as_deref())?;
        let in_file = MemoryFlags::parse(MemoryTexts {
            memory: file.memory,
            query_memory: file.query_memory,
            column_cache: file.column_cache,
            load_memory: file.load_memory,
        })?;
        let missing = |flag: &str, what: &str| {
            UsageError(format!("a worker needs --{flag}, or {flag} in its --config file: {what}"))
        };
        Ok(Self {
            data_dir: flags.data_dir.or(file.data_dir).unwrap_or("basalt-data/worker".into()),
            listen: flags.listen.or(file.listen).unwrap_or(FREE_PORT),
            allow_path: paths(flags.allow_path, file.allow_path, &[]),
            coordinator_url: worker
                .coordinator
                .or(file.coordinator)
                .ok_or_else(|| missing("coordinator", "the address that the coordinator prints"))?,
            secret_file: worker.secret_file.or(file.secret_file).ok_or_else(|| {
                missing("secret-file", "<the coordinator's data folder>/cluster.secret")
            })?,
            advertise: worker.advertise.or(file.advertise),
            domain: domain(worker.domain.or(file.domain))?,
            weight: weight(worker.weight.or(file.weight))?,
            memory: worker.memory.resolve(in_file, WORKER_MEMORY_PART)?,
        })
    }
}

fn domain(name: Option<String>) -> Result<Option<String>, UsageError> {
    match name.as_deref().and_then(domain_problem) {
        Some(problem) => Err(UsageError(format!("the name of the failure domain {problem}"))),
        None => Ok(name),
    }
}

fn weight(weight: Option<u32>) -> Result<u32, UsageError> {
    match weight.unwrap_or(1) {
        weight @ 1..=WORKER_WEIGHT_MAX => Ok(weight),
        other => {
            Err(UsageError(format!("weight {other} is not between 1 and {WORKER_WEIGHT_MAX}")))
        }
    }
}

/// The flags when there are any, else what the file says (even "none"), else the default.
fn paths(flags: Vec<PathBuf>, file: Option<Vec<PathBuf>>, default: &[PathBuf]) -> Vec<PathBuf> {
    if flags.is_empty() { file.unwrap_or_else(|| default.to_vec()) } else { flags }
}

fn read<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, UsageError> {
    let Some(path) = path else { return Ok(T::default()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| UsageError(format!("config file {shown} cannot be read: {error}")))?;
    toml::from_str(&text)
        .map_err(|error| UsageError(format!("config file {shown} is not valid: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, ServerFlags) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let flags = ServerFlags { config: Some(file.path().to_owned()), ..Default::default() };
        (file, flags)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let (_file, mut flags) = file("workers = 5\nlisten = \"127.0.0.1:1\"\nallow-path = []\n");
        flags.listen = Some(local(2));
        let config = ClusterConfig::resolve(
            flags,
            None,
            MemoryFlags::default(),
            ResultCacheFlag::default(),
            "d",
        )
        .unwrap();
        assert_eq!((config.workers, config.listen), (5, local(2)));
        assert!(config.allow_path.is_empty(), "an empty list in the file is a decision");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let (_file, flags) = file("worker = 5\n");
        let error = ClusterConfig::resolve(
            flags,
            None,
            MemoryFlags::default(),
            ResultCacheFlag::default(),
            "d",
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("unknown field `worker`"), "{error}");
        let (_file, flags) = file("workers = 5\n");
        assert!(
            CoordinatorConfig::resolve(flags, TimingFlags::default(), ResultCacheFlag::default())
                .is_err(),
            "a coordinator has no workers key"
        );
    }

    #[test]
    fn a_worker_says_which_flag_it_misses() {
        let error = WorkerConfig::resolve(ServerFlags::default(), WorkerFlags::default());
        assert!(error.unwrap_err().to_string().contains("--coordinator"));
    }

    #[test]
    fn a_worker_has_a_weight_and_may_have_a_domain() {
        let resolve = |text: &str, domain: Option<&str>, weight: Option<u32>| {
            let (_file, server) = file(&format!("coordinator = 'c'\nsecret-file = 's'\n{text}"));
            let domain = domain.map(str::to_owned);
            let resolved =
                WorkerConfig::resolve(server, WorkerFlags { domain, weight, ..Default::default() });
            resolved.map(|config| (config.domain, config.weight)).map_err(|error| error.0)
        };
        assert_eq!(resolve("", None, None), Ok((None, 1)));
        let file = "domain = 'rack 1'\nweight = 4\n";
        assert_eq!(resolve(file, None, None), Ok((Some("rack 1".to_owned()), 4)));
        assert_eq!(resolve(file, Some("rack 2"), Some(2)), Ok((Some("rack 2".to_owned()), 2)));
        assert_eq!(resolve("", None, Some(0)).unwrap_err(), "weight 0 is not between 1 and 1000");
        let empty = resolve("", Some(""), None).unwrap_err();
        assert_eq!(empty, "the name of the failure domain is empty");
    }

    #[test]
    fn an_embedded_cluster_may_read_the_current_folder_only() {
        let config = ClusterConfig::resolve(
            ServerFlags::default(),
            None,
            MemoryFlags::default(),
            ResultCacheFlag::default(),
            "d",
        )
        .unwrap();
        assert_eq!(config.allow_path, [PathBuf::from(".")]);
        let config = CoordinatorConfig::resolve(
            ServerFlags::default(),
            TimingFlags::default(),
            ResultCacheFlag::default(),
        );
        let config = config.unwrap();
        assert!(config.allow_path.is_empty());
    }
}
