//! A mixed load for minutes on real processes, and what of them must not grow by it.
//!
//! ```text
//! clients ─ write, read, fail, cancel, connect ─▶ coordinator, workers ◀─ gauges, every so often
//!    └ each checks every answer                        └ at the end: nothing is left over
//! ```
//! - [`load`]: the clients, each of which knows what is in its tables
//! - [`gauges`]: memory, open files, threads, files and bytes of each process
//! - [`flat`]: when a gauge counts as flat
//! - [`settle`]: when nothing is under way any more
//! - [`report`]: the table
//!
//! Tables keep their sizes while their rows come and go, so whatever grows is none of the data's.
//! Scenarios are in `cli/tests/it/soak.rs`, where the binary is known.

pub mod flat;
pub mod gauges;
pub mod load;
pub mod report;
pub mod settle;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::faults::choices::Choices;
use crate::faults::cluster::{Cluster, Shape, running};
use gauges::{Gauges, Sample};
use load::{Clients, Hand, Watch};
use report::Report;

/// What is run.
#[derive(Debug, Clone)]
pub struct SoakConfig {
    /// The `basalt` binary.
    pub binary: PathBuf,
    /// Worker processes.
    pub workers: usize,
    /// How long clients go on.
    pub lasts: Duration,
    /// How often gauges are read.
    pub sample_every: Duration,
    /// Decides what clients do.
    pub seed: u64,
}

/// What a worker may have: little, so that some queries have not enough.
const WORKER_ARGS: [&str; 6] =
    ["--memory", "128MiB", "--column-cache", "64MiB", "--load-memory", "16MiB"];
/// Garbage goes soon, so that what is left over would be seen.
const COORDINATOR_ARGS: [&str; 2] = ["--garbage-after", "2s"];

/// Runs clients against a cluster below `dir`, and tells what became of its processes.
///
/// # Errors
/// A wrong answer, a process that died, something that is left over at the end. What grows is in the
/// report.
pub async fn run(config: &SoakConfig, dir: &Path) -> anyhow::Result<Report> {
    let shape = Shape {
        coordinator_args: COORDINATOR_ARGS.map(str::to_owned).to_vec(),
        worker_args: WORKER_ARGS.map(str::to_owned).to_vec(),
        ..Shape::of(&config.binary, config.workers)
    };
    let cluster = Cluster::start(shape, dir)?;
    let processes = processes(&cluster)?;
    let watch = Arc::new(Watch::default());
    let mut choices = Choices::new(config.seed);
    let clients = Clients::prepare(&cluster.url(), cluster.dir(), &watch).await?;
    let mut clients = clients.start(&mut choices);

    let gauges = Gauges::new(&cluster)?;
    let mut hand = Hand::connect(&cluster.url(), &watch).await?;
    let started = Instant::now();
    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(config.sample_every);
    while started.elapsed() < config.lasts {
        tokio::select! {
            _ = ticks.tick() => samples.push(sample(&gauges, &mut hand, started).await?),
            ended = clients.first_to_end() => {
                ended?;
                anyhow::bail!("a client ended though nobody told it to");
            }
        }
    }
    watch.end();
    clients.end().await?;
    settle::all_is_quiet(&cluster, &mut hand).await?;
    ensure!(processes == self::processes(&cluster)?, "a process died and came back");
    Ok(Report::new(config, started.elapsed(), &samples, watch.counts()))
}

fn processes(cluster: &Cluster) -> anyhow::Result<Vec<u32>> {
    cluster.nodes().into_iter().map(|node| running(cluster, node)).collect()
}

/// All gauges at one moment: those of the operating system and those of the catalog.
async fn sample(gauges: &Gauges, hand: &mut Hand, started: Instant) -> anyhow::Result<Sample> {
    let gauges = gauges.clone();
    let mut sample = tokio::task::spawn_blocking(move || gauges.read()).await??;
    sample.at = started.elapsed();
    let sql = "SELECT (SELECT count(*) FROM sys.segments), \
               (SELECT max(seq)::BIGINT FROM sys.log_members), \
               (SELECT coalesce(sum(bytes), 0)::BIGINT FROM sys.cache)";
    let numbers = hand.numbers(sql).await?;
    let numbers: [i64; 3] = numbers.try_into().ok().context("three numbers were asked for")?;
    for (kind, number) in
        [gauges::Kind::LiveSegments, gauges::Kind::LogRecords, gauges::Kind::CachedMib]
            .into_iter()
            .zip(numbers)
    {
        sample.set("cluster", kind, kind.scaled(number as f64));
    }
    Ok(sample)
}
