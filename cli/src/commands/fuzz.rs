//! `basalt fuzz`: generated queries against plain DataFusion, against themselves and against DuckDB.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use basalt_sql_tests::fuzz::oracles::Oracle;
use basalt_sql_tests::fuzz::report::Summary;
use basalt_sql_tests::fuzz::run::{self, Options};
use basalt_sql_tests::fuzz::setup::{Source, Topology};
use basalt_sql_tests::fuzz::shrink::Budget;
use clap::{Args, ValueEnum};

use crate::exit::Reported;
use crate::terminal;

/// How often a line of progress is written where there is no terminal for a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Compare generated queries with plain DataFusion, with themselves and with DuckDB
///
/// Query i has the seed S + i and can be run again alone. A difference is made smaller and printed
/// as a script with both answers and the command that repeats it; the exit code is 1 then.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// Seed of the first query
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many queries
    #[arg(long, value_name = "N", default_value_t = 1000)]
    queries: u64,
    /// Sizes of the embedded clusters; queries go to them in turn, a single query to all
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 3, 5],
          value_parser = clap::value_parser!(u16).range(1..))]
    workers: Vec<u16>,
    /// Test the cluster at this address instead; its tables fuzz_0 to fuzz_7 are replaced
    #[arg(long, value_name = "URL", conflicts_with = "workers")]
    url: Option<String>,
    /// Partitions per task, each with each number of workers
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [2])]
    partitions: Vec<usize>,
    /// Settings of a kind of session, like batch_rows=7,pruning=off; may be given again for another
    /// kind. Each with each number of workers and partitions, beside sessions without settings. With
    /// plan_cache=on each query is asked three times: its plan is one that was kept then
    #[arg(long = "set", value_name = "NAME=VALUE,...")]
    settings: Vec<String>,
    /// Where embedded clusters keep their data; removed at the end [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What answers are checked against
    #[arg(long, value_enum, default_value_t = OracleFlag::All)]
    oracle: OracleFlag,
    /// A Python with the packages duckdb and pyarrow: DuckDB is asked as well
    #[arg(long, value_name = "PYTHON", required_if_eq("oracle", "duckdb"))]
    duckdb: Option<PathBuf>,
    /// Go on after a difference
    #[arg(long)]
    keep_going: bool,
    /// Queries at a time [default: twice the cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OracleFlag {
    /// Each for its part of the queries
    All,
    /// Plain DataFusion in this process
    Differential,
    /// Ternary logic partitioning: true, false and NULL make the whole
    Tlp,
    /// The sum of a predicate over all rows
    Norec,
    /// DuckDB, in the Python of --duckdb
    Duckdb,
}

pub(super) async fn run(args: FuzzArgs) -> anyhow::Result<()> {
    let oracle = match args.oracle {
        OracleFlag::All => None,
        OracleFlag::Differential => Some(Oracle::Differential),
        OracleFlag::Tlp => Some(Oracle::Tlp),
        OracleFlag::Norec => Some(Oracle::NoRec),
        OracleFlag::Duckdb => Some(Oracle::DuckDb),
    };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let options = Options {
        seed: args.seed,
        queries: args.queries,
        oracle,
        duckdb: args.duckdb.clone(),
        keeps_going: args.keep_going,
        jobs: args.jobs.unwrap_or(cores * 2),
        budget: Budget::default(),
    };
    let folder = match &args.data_dir {
        Some(dir) => std::fs::create_dir_all(dir)
            .and_then(|()| tempfile::Builder::new().prefix("fuzz-").tempdir_in(dir)),
        None => tempfile::tempdir(),
    };
    let folder = folder.context("no folder for the clusters")?;
    let topologies = topologies(&args);
    let source = match args.url {
        Some(url) => Source::Url { url, topologies },
        None => Source::Embedded { dir: folder.path().to_owned(), topologies },
    };
    let mut shown = Shown::new(args.queries);
    let summary = run::run(&options, &source, &mut |summary| shown.update(summary)).await?;
    shown.bar.finish_and_clear();
    let mut out = std::io::stdout();
    writeln!(out, "{summary}")?;
    if summary.findings.is_empty() { Ok(()) } else { Err(Reported.into()) }
}

/// Each number of workers with each number of partitions and each kind of session, in turn.
fn topologies(args: &FuzzArgs) -> Vec<Topology> {
    let workers = if args.url.is_some() { &[0][..] } else { &args.workers };
    let given = args.settings.iter().map(|kind| kind.split(',').map(str::to_owned).collect());
    // A single query runs as it was said to.
    let without = (args.queries > 1 || args.settings.is_empty()).then(Vec::new);
    let kinds: Vec<Vec<String>> = without.into_iter().chain(given).collect();
    let mut topologies = Vec::new();
    for workers in workers {
        for partitions in &args.partitions {
            topologies.extend(kinds.iter().map(|settings| Topology {
                workers: *workers,
                partitions: *partitions,
                settings: settings.clone(),
                every: 1,
                offset: 0,
            }));
        }
    }
    if args.queries > 1 {
        let every = topologies.len() as u64;
        for (offset, topology) in (0..).zip(&mut topologies) {
            (topology.every, topology.offset) = (every, offset);
        }
    }
    topologies
}

/// What a person sees while queries run.
struct Shown {
    bar: indicatif::ProgressBar,
    queries: u64,
    findings: usize,
    line: Instant,
}

impl Shown {
    fn new(queries: u64) -> Self {
        Self { bar: terminal::bar(queries, "queries"), queries, findings: 0, line: Instant::now() }
    }

    fn update(&mut self, summary: &Summary) {
        self.bar.set_position(summary.queries);
        for finding in &summary.findings[self.findings..] {
            // At once: a long run may be cut short.
            self.bar.suspend(|| writeln!(std::io::stdout(), "{finding}\n")).ok();
        }
        self.findings = summary.findings.len();
        if self.bar.is_hidden() && self.line.elapsed() >= LINE_INTERVAL {
            self.line = Instant::now();
            let (done, rate) = (summary.queries, summary.rate());
            let (queries, findings) = (self.queries, self.findings);
            let mut out = std::io::stderr();
            // Progress is no reason to end a run.
            writeln!(out, "{done} of {queries} queries, {rate:.0}/s, {findings} differences").ok();
        }
    }
}
