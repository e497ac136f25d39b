//! `basalt bench`: a cluster against its peers, side by side on the same files.

mod cluster;
mod cold;
mod cost;
mod datafusion;
mod duckdb;
mod lookups;
mod memory;
mod operations;
mod planning;
mod report;
mod settle;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use basalt_sql_tests::client::Client;
use clap::{Args, Subcommand};

use crate::clickbench::CLICKBENCH;
use crate::machine::Machine;
use crate::terminal;
use crate::tpch::TPCH;
use crate::workload::{self, Declared, Query, Workload};

use cluster::{ClusterChoice, Target};
use cost::Cost;
use datafusion::PlainDataFusion;
use duckdb::DuckDb;
use memory::{Peaks, Watched};
use report::{CacheResult, CopiesResult, LoadResult, QueryResult, Report};
use settle::{settle_distribution, wait_copied};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The 22 queries of TPC-H; scale 1 is about 1 GB as text
    Tpch(BenchArgs),
    /// The 43 queries of ClickBench on a generated table; scale 1 is a million rows, the original has 100
    Clickbench(BenchArgs),
    Lookups(lookups::LookupArgs),
    Planning(planning::PlanningArgs),
}

/// How to measure the queries of a workload.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Folder with one <table>.parquet per table
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Generate the tables that are missing in --data at this scale
    #[arg(long, value_name = "SF")]
    scale: Option<f64>,
    /// Measured runs of every query, after one to warm up, and of loading
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Load with one copy of every chunk and with two as well, alternating
    #[arg(long)]
    copies: bool,
    #[command(flatten)]
    cluster: ClusterChoice,
    /// Forget what is in memory before every run: the page cache, which takes root, and column
    /// caches. Not DuckDB's own
    #[arg(long, conflicts_with = "in_memory")]
    cold: bool,
    /// Leave it to the engine where the rows of all tables go, and let it see the queries before they are measured
    #[arg(long)]
    auto: bool,
    /// VACUUM the tables once they are loaded
    #[arg(long)]
    vacuum: bool,
    /// Measure look-ups and changes too
    #[arg(long)]
    operations: bool,
    /// Measure a cluster of the same kind with N workers too, each query on both in turns
    #[arg(long, value_name = "N", conflicts_with = "url", value_parser = clap::value_parser!(u16).range(1..))]
    against: Option<u16>,
    /// Measure DataFusion on the rows in memory too, which takes several times the files' bytes
    #[arg(long)]
    in_memory: bool,
    /// Measure DuckDB too, with this Python, which has the package `duckdb`
    #[arg(long, value_name = "PYTHON")]
    duckdb: Option<PathBuf>,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

impl BenchArgs {
    fn declared(&self, replicas: Option<u16>) -> Declared {
        Declared { replicas, is_auto: self.auto }
    }
}

pub(super) async fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Tpch(args) => run_workload(&TPCH, args).await,
        BenchCommand::Clickbench(args) => run_workload(&CLICKBENCH, args).await,
        BenchCommand::Lookups(args) => lookups::run(args).await,
        BenchCommand::Planning(args) => planning::run(args).await,
    }
}

async fn run_workload(workload: &'static Workload, args: BenchArgs) -> anyhow::Result<()> {
    if let Some(scale) = args.scale {
        workload::generate(workload, &args.data, scale).await?;
    }
    let target = Target::start(&args.cluster, &args.data).await?;
    let other = match args.against {
        Some(workers) => {
            Some(Target::start(&args.cluster.with_workers(workers), &args.data).await?)
        }
        None => None,
    };
    let mut peers = Peers {
        other: match &other {
            Some(other) => Some(connect(other.url()).await?),
            None => None,
        },
        datafusion: PlainDataFusion::open(workload, &args.data).await?,
        in_memory: match args.in_memory {
            true => Some(PlainDataFusion::open_in_memory(workload, &args.data).await?),
            false => None,
        },
        duckdb: match &args.duckdb {
            Some(python) => {
                Some(DuckDb::start(python, workload, &args.data, args.cluster.data_dir()).await?)
            }
            None => None,
        },
    };
    let measured = tokio::select! {
        measured = measure(workload, &args, &target, &mut peers) => measured,
        Ok(()) = tokio::signal::ctrl_c() => Err(crate::exit::Interrupted.into()),
    };
    let stopped = target.stop().await;
    let other_stopped = match other {
        Some(other) => other.stop().await,
        None => Ok(()),
    };
    let report = measured?;
    stopped?;
    other_stopped?;

    std::io::stdout().write_all(report.text()?.as_bytes())?;
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    report.check_rows()
}

/// A connection whose statements are run, whatever was asked before.
async fn connect(url: &str) -> anyhow::Result<Client> {
    let mut client = Client::connect(url).await?;
    client.execute_update("SET result_cache = off").await?;
    Ok(client)
}

/// What the cluster is measured against.
struct Peers {
    /// A cluster with another number of workers.
    other: Option<Client>,
    datafusion: PlainDataFusion,
    in_memory: Option<PlainDataFusion>,
    duckdb: Option<DuckDb>,
}

async fn measure(
    workload: &'static Workload,
    args: &BenchArgs,
    target: &Target,
    peers: &mut Peers,
) -> anyhow::Result<Report> {
    anyhow::ensure!(
        !args.operations || target.is_ours(),
        "--operations changes rows: not in a cluster at a --url"
    );
    let watched = Watched::new(target.process_ids());
    let mut client = connect(target.url()).await?;
    let copies = match args.copies {
        true => Some(measure_copies(workload, args, target, &mut client).await?),
        false => None,
    };
    let load = measure_load(workload, args, target, &mut client, peers).await?;
    if let Some(other) = &mut peers.other {
        workload::load(other, workload, &args.data, args.declared(None)).await?;
        if args.vacuum {
            other.execute_update("VACUUM").await?;
        }
        wait_copied(other).await?;
    }
    let vacuum_ms = match args.vacuum {
        true => {
            let start = Instant::now();
            client.execute_update("VACUUM").await?;
            Some(milliseconds(start.elapsed()))
        }
        false => None,
    };
    if args.auto {
        // As often as they are measured: what that changes should be changed by then.
        let rounds = args.runs.saturating_add(2);
        settle_distribution(&mut client, workload, rounds).await?;
        if let Some(other) = &mut peers.other {
            settle_distribution(other, workload, rounds).await?;
        }
    }
    let load_peak = watched.peak();
    if args.cold {
        cold::find_no_cached_columns(&mut client).await?;
    }
    let bar = terminal::bar(workload.queries.len() as u64, "measuring");
    let mut queries = Vec::new();
    for query in workload.queries {
        bar.set_message(format!("measuring {}", query.name));
        let result = measure_query(&mut client, peers, query, args)
            .await
            .with_context(|| format!("query {}", query.name))?;
        queries.push(result);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let cache = cache_use(&mut client).await?;
    let query_peak = watched.peak();
    let peaks = load_peak.zip(query_peak).map(|(load, queries)| Peaks { load, queries });
    let operations = match args.operations {
        true => {
            let duckdb = &mut peers.duckdb;
            operations::measure_operations(workload, &args.data, &mut client, duckdb, args.runs)
                .await?
        }
        false => vec![],
    };
    Ok(Report {
        suite: workload.name,
        cluster: target.description().to_owned(),
        data: args.data.display().to_string(),
        machine: Machine::here(),
        target_partitions: peers.datafusion.target_partitions(),
        duckdb_version: peers.duckdb.as_ref().map(|duckdb| duckdb.version().to_owned()),
        runs: args.runs,
        is_auto: args.auto,
        against: args.against,
        is_cold: args.cold,
        load,
        vacuum_ms,
        peaks,
        operations,
        copies,
        cache,
        is_embedded: target.is_embedded(),
        queries,
    })
}

/// Loading: `runs` times on a cluster of our own, alternating with DuckDB; once, and only what is
/// missing, on somebody else's.
async fn measure_load(
    workload: &Workload,
    args: &BenchArgs,
    target: &Target,
    client: &mut Client,
    peers: &mut Peers,
) -> anyhow::Result<LoadResult> {
    let mut load = LoadResult::default();
    for run in 0..if target.is_ours() { args.runs } else { 1 } {
        if run > 0 {
            workload::drop_tables(client, workload).await?;
        }
        let loaded = workload::load(client, workload, &args.data, args.declared(None)).await?;
        load.rows = loaded.rows;
        if loaded.tables > 0 {
            load.basalt_ms.push(milliseconds(loaded.time));
        }
        if let Some(duckdb) = &mut peers.duckdb {
            load.duckdb_ms.push(duckdb.load().await?);
        }
    }
    load.stored_bytes =
        number(client, "SELECT coalesce(sum(bytes), 0)::BIGINT FROM sys.tables").await?;
    for table in workload.tables {
        let file = args.data.join(format!("{}.parquet", table.name));
        load.file_bytes += std::fs::metadata(&file)?.len();
    }
    wait_copied(client).await?;
    Ok(load)
}

/// The one number that a query gives.
async fn number(client: &mut Client, sql: &str) -> anyhow::Result<i64> {
    let (_, batches) = client.query_all(sql).await?;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).context("there is one row")?;
    Ok(batch.column(0).as_primitive_opt::<Int64Type>().context("it is a BIGINT")?.value(0))
}

/// Loading with one copy and with two, which differ in nothing else: `runs` times each, in turns.
async fn measure_copies(
    workload: &Workload,
    args: &BenchArgs,
    target: &Target,
    client: &mut Client,
) -> anyhow::Result<CopiesResult> {
    anyhow::ensure!(
        target.is_ours(),
        "--copies loads again and again: not into a cluster at a --url"
    );
    let (_, batches) = client.query_all("SELECT worker FROM sys.workers").await?;
    let workers: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    anyhow::ensure!(workers >= 2, "--copies needs two workers: two copies lie on different ones");
    let mut result = CopiesResult::default();
    // One more of each comes first: it warms the files up.
    for run in 0..=args.runs {
        for (replicas, times) in [(1, &mut result.one_ms), (2, &mut result.two_ms)] {
            let loaded =
                workload::load(client, workload, &args.data, args.declared(Some(replicas))).await?;
            if run > 0 {
                times.push(milliseconds(loaded.time));
            }
            workload::drop_tables(client, workload).await?;
        }
    }
    Ok(result)
}

/// How the column caches of all workers are used; a cluster that was just queried heard of it by the
/// next heartbeat, which is not waited for.
async fn cache_use(client: &mut Client) -> anyhow::Result<CacheResult> {
    let sql = "SELECT coalesce(sum(budget_bytes), 0)::BIGINT, coalesce(sum(bytes), 0)::BIGINT, \
               coalesce(sum(hits), 0)::BIGINT, coalesce(sum(misses), 0)::BIGINT FROM sys.cache";
    let (_, batches) = client.query_all(sql).await?;
    let value = |column: usize| {
        let values = batches.first().map(|batch| batch.column(column).as_primitive::<Int64Type>());
        values.filter(|values| !values.is_empty()).map_or(0, |values| values.value(0))
    };
    let [budget_bytes, bytes, hits, misses] = std::array::from_fn(value);
    Ok(CacheResult { budget_bytes, bytes, hits, misses })
}

/// One query on all sides: first to warm up, then alternating, so that what slows the
/// machine down slows all of them.
async fn measure_query(
    client: &mut Client,
    peers: &mut Peers,
    query: &Query,
    args: &BenchArgs,
) -> anyhow::Result<QueryResult> {
    let mut result = QueryResult::new(query.name);
    (result.basalt_rows, _) = workload::run(client, query).await?;
    // Columns of which few rows are wanted are cached the second time.
    workload::run(client, query).await?;
    if let Some(other) = &mut peers.other {
        result.other_rows = Some(workload::run(other, query).await?.0);
        workload::run(other, query).await?;
    }
    result.datafusion_rows = peers.datafusion.run(query).await?;
    if let Some(duckdb) = &mut peers.duckdb {
        result.duckdb_rows = Some(duckdb.run(query).await?.1);
    }
    for _ in 0..args.runs {
        if args.cold {
            cold::drop_page_cache().await?;
        }
        let cost = Cost::now();
        let (_, time) = workload::run(client, query).await?;
        result.basalt_ms.push(milliseconds(time));
        result.costs.push(cost.since());
        if let Some(other) = &mut peers.other {
            let (_, time) = workload::run(other, query).await?;
            result.other_ms.push(milliseconds(time));
        }
        if args.cold {
            cold::drop_page_cache().await?;
        }
        let start = Instant::now();
        peers.datafusion.run(query).await?;
        result.datafusion_ms.push(milliseconds(start.elapsed()));
        if let Some(in_memory) = &peers.in_memory {
            let start = Instant::now();
            in_memory.run(query).await?;
            result.in_memory_ms.push(milliseconds(start.elapsed()));
        }
        if let Some(duckdb) = &mut peers.duckdb {
            result.duckdb_ms.push(duckdb.run(query).await?.0);
        }
    }
    Ok(result)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
