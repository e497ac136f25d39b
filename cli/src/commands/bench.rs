//! `basalt bench`: a cluster against plain DataFusion, side by side on the same files.

mod cluster;
mod datafusion;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use basalt_sql_tests::client::Client;
use clap::{Args, ValueEnum};

use crate::machine::Machine;
use crate::{terminal, tpch};

use cluster::{ClusterChoice, Target};
use datafusion::PlainDataFusion;
use report::{QueryResult, Report};

/// Measure a cluster against plain DataFusion on the same files
///
/// Loads the files into the cluster by COPY where its tables are missing, then runs every query
/// warm on both, alternating, and prints the medians and their ratio. Without --url, --processes
/// or --workers it measures an embedded cluster of three workers.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to run
    #[arg(value_enum)]
    suite: Suite,
    /// Folder with one <table>.parquet per table
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Generate the tables that are missing in --data at this scale
    #[arg(long, value_name = "SF")]
    scale: Option<f64>,
    /// Measured runs of every query, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    #[command(flatten)]
    cluster: ClusterChoice,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Suite {
    /// The 22 queries of TPC-H
    Tpch,
}

pub(super) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    let Suite::Tpch = args.suite;
    if let Some(scale) = args.scale {
        tpch::generate(&args.data, scale).await?;
    }
    let plain = PlainDataFusion::open(&args.data).await?;
    let target = Target::start(&args.cluster, &args.data).await?;
    let measured = tokio::select! {
        measured = measure(&args, &target, &plain) => measured,
        Ok(()) = tokio::signal::ctrl_c() => Err(crate::exit::Interrupted.into()),
    };
    let stopped = target.stop().await;
    let report = measured?;
    stopped?;

    std::io::stdout().write_all(report.text()?.as_bytes())?;
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    report.check_rows()
}

async fn measure(
    args: &BenchArgs,
    target: &Target,
    plain: &PlainDataFusion,
) -> anyhow::Result<Report> {
    let mut client = Client::connect(target.url()).await?;
    let loaded = tpch::load(&mut client, &args.data).await?;
    let bar = terminal::bar(tpch::QUERIES.len() as u64, "measuring");
    let mut queries = Vec::new();
    for query in &tpch::QUERIES {
        bar.set_message(format!("measuring {}", query.name));
        let result = measure_query(&mut client, plain, query, args.runs)
            .await
            .with_context(|| format!("query {}", query.name))?;
        queries.push(result);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Report {
        suite: "tpch",
        cluster: target.description().to_owned(),
        data: args.data.display().to_string(),
        machine: Machine::here(),
        target_partitions: plain.target_partitions(),
        runs: args.runs,
        rows: loaded.rows,
        tables_loaded: loaded.tables,
        load_seconds: loaded.time.as_secs_f64(),
        queries,
    })
}

/// One query on both sides: one run each to warm up, then alternating, so that what slows the
/// machine down slows both.
async fn measure_query(
    client: &mut Client,
    plain: &PlainDataFusion,
    query: &tpch::Query,
    runs: u16,
) -> anyhow::Result<QueryResult> {
    let (basalt_rows, _) = tpch::run(client, query).await?;
    let datafusion_rows = plain.run(query).await?;
    let mut basalt = Vec::new();
    let mut datafusion = Vec::new();
    for _ in 0..runs {
        let (_, time) = tpch::run(client, query).await?;
        basalt.push(milliseconds(time));
        let start = Instant::now();
        plain.run(query).await?;
        datafusion.push(milliseconds(start.elapsed()));
    }
    Ok(QueryResult::new(query.name, basalt_rows, datafusion_rows, basalt, datafusion))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
