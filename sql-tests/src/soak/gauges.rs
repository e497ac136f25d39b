//! What processes use, as the operating system tells.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::flat::Margin;
use crate::faults::cluster::{Cluster, running};

const MIB: f64 = (1 << 20) as f64;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Resident memory in MiB.
    RssMib,
    /// Open file descriptors.
    OpenFiles,
    /// Threads.
    Threads,
    /// Files of column chunks and their metadata.
    ChunkFiles,
    /// Their bytes in MiB.
    ChunkMib,
    /// Bytes of the catalog's log, or of a copy of it, in MiB.
    LogMib,
    /// All other files below the data directory: staging, spilling, commit records.
    OtherFiles,
    /// Segments that the newest commit names.
    LiveSegments,
    /// Decoded columns in MiB.
    CachedMib,
    /// Records of the catalog's log.
    LogRecords,
}

impl Kind {
    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RssMib => "resident memory, MiB",
            Self::OpenFiles => "open file descriptors",
            Self::Threads => "threads",
            Self::ChunkFiles => "files of chunks",
            Self::ChunkMib => "bytes of chunks, MiB",
            Self::LogMib => "bytes of the log, MiB",
            Self::OtherFiles => "other files",
            Self::LiveSegments => "live segments",
            Self::CachedMib => "decoded columns, MiB",
            Self::LogRecords => "records of the log",
        }
    }

    /// How much it may grow; `None` for what grows by design.
    pub fn margin(self) -> Option<Margin> {
        let margin = |factor, slack| Some(Margin { factor, slack });
        match self {
            Self::RssMib => margin(1.1, 24.0),
            // A connection each of the clients that come and go.
            Self::OpenFiles => margin(1.1, 16.0),
            Self::Threads => margin(1.1, 8.0),
            // A burst of small inserts waits for its compaction.
            Self::ChunkFiles => margin(1.5, 200.0),
            Self::ChunkMib => margin(1.5, 4.0),
            Self::OtherFiles => margin(1.5, 32.0),
            Self::LiveSegments => margin(1.5, 100.0),
            Self::CachedMib => margin(1.5, 16.0),
            // Nothing of the log is ever truncated (ARCHITECTURE, "The catalog's log").
            Self::LogMib | Self::LogRecords => None,
        }
    }

    /// A number of the catalog in the gauge's unit.
    pub fn scaled(self, number: f64) -> f64 {
        match self {
            Self::CachedMib => number / MIB,
            _ => number,
        }
    }
}

/// All gauges at one moment, by process.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Since the load began.
    pub at: Duration,
    /// What each gauge showed.
    pub values: BTreeMap<(String, Kind), f64>,
}

impl Sample {
    /// Notes what a gauge shows.
    pub fn set(&mut self, node: &str, kind: Kind, value: f64) {
        self.values.insert((node.to_owned(), kind), value);
    }

    fn add(&mut self, node: &str, kind: Kind, value: f64) {
        *self.values.entry((node.to_owned(), kind)).or_default() += value;
    }
}

/// The gauges of every process of a cluster.
#[derive(Debug, Clone)]
pub struct Gauges {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
struct Node {
    name: String,
    process: u32,
    home: PathBuf,
}

impl Gauges {
    /// Those of processes that run.
    ///
    /// # Errors
    /// When one does not.
    pub fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let node = |id| {
            let process = running(cluster, id)?;
            Ok(Node { name: id.to_string(), process, home: cluster.home(id).to_owned() })
        };
        let nodes = cluster.nodes().into_iter().map(node).collect::<anyhow::Result<_>>()?;
        Ok(Self { nodes })
    }

    /// Reads all of them; waits for the disk.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn read(&self) -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        for node in &self.nodes {
            let gone = || format!("{} is gone", node.name);
            let proc = PathBuf::from(format!("/proc/{}", node.process));
            let status = fs::read_to_string(proc.join("status")).with_context(gone)?;
            sample.set(&node.name, Kind::RssMib, field(&status, "VmRSS:")? / 1024.0);
            sample.set(&node.name, Kind::Threads, field(&status, "Threads:")?);
            let open = fs::read_dir(proc.join("fd")).with_context(gone)?.count();
            sample.set(&node.name, Kind::OpenFiles, open as f64);
            for kind in [Kind::ChunkFiles, Kind::ChunkMib, Kind::LogMib, Kind::OtherFiles] {
                sample.set(&node.name, kind, 0.0);
            }
            for (path, bytes) in files_below(&node.home)? {
                count(&mut sample, node, &path, bytes);
            }
        }
        Ok(sample)
    }
}

fn count(sample: &mut Sample, node: &Node, path: &Path, bytes: u64) {
    let below = path.strip_prefix(&node.home).unwrap_or(path);
    let is_in = |folder: &str| below.starts_with(folder);
    if is_in("chunks") {
        sample.add(&node.name, Kind::ChunkFiles, 1.0);
        sample.add(&node.name, Kind::ChunkMib, bytes as f64 / MIB);
    } else if is_in("log") || is_in("catalog.redb") {
        sample.add(&node.name, Kind::LogMib, bytes as f64 / MIB);
    } else {
        sample.add(&node.name, Kind::OtherFiles, 1.0);
    }
}

/// A number of `/proc/<process>/status`.
fn field(status: &str, name: &str) -> anyhow::Result<f64> {
    let line = status.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    let number = number.with_context(|| format!("the process status has no {name}"))?;
    number.parse().with_context(|| format!("{name} is {number}"))
}

/// Every file below a folder with its bytes; what goes meanwhile is left out.
///
/// # Errors
/// When a folder that is there cannot be read.
pub fn files_below(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if is_gone(&error) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => files.push((entry.path(), metadata.len())),
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_folder_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("chunks/1/0/a.meta", 1 << 20), ("log/0.log", 1 << 19), ("x", 1)] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        }
        let (name, home) = ("worker-0".to_owned(), dir.path().to_owned());
        let gauges = Gauges { nodes: vec![Node { name, process: std::process::id(), home }] };
        let sample = gauges.read().unwrap();
        let value = |kind| sample.values[&("worker-0".to_owned(), kind)];
        assert!(value(Kind::RssMib) > 1.0 && value(Kind::Threads) >= 1.0);
        assert!(value(Kind::OpenFiles) >= 3.0);
        assert_eq!((value(Kind::ChunkFiles), value(Kind::ChunkMib)), (1.0, 1.0));
        assert_eq!((value(Kind::LogMib), value(Kind::OtherFiles)), (0.5, 1.0));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let home = std::env::temp_dir();
        let node = Node { name: "worker-0".to_owned(), process: u32::MAX, home };
        let error = Gauges { nodes: vec![node] }.read().unwrap_err();
        assert!(error.to_string().contains("worker-0 is gone"), "{error:#}");
    }
}
