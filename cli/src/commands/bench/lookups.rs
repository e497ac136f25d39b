//! `basalt bench lookups`: how soon few rows are there, and how many clients have theirs at once.
//!
//! ```text
//! one client       SELECT 1; a look-up as text; prepared      median and p99, DuckDB's beside them
//! N connections    look-ups, each client its next when it has the rows        per second, p99
//! ```
//! All connections are warm, and the clients are on the cluster's cores: what they take is part of
//! what is measured. Keys are drawn from the whole table by a seeded generator.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use basalt_sql_tests::client::{Answer, Client, Prepared};
use clap::Args;
use serde::Serialize;

use super::cluster::{ClusterChoice, Target};
use super::duckdb::DuckDb;
use super::{connect, milliseconds};
use crate::machine::Machine;
use crate::terminal;
use crate::tpch::LOOKUPS;
use crate::workload::{self, Declared};

/// What is asked for of one order, in TPC-H's words.
const COLUMNS: &str =
    "l_orderkey, l_linenumber, l_partkey, l_quantity, l_extendedprice, l_shipdate";
/// Look-ups that warm a connection up.
const WARM_UPS: u64 = 100;

/// Measure look-ups of few rows in a large sorted table
///
/// Loads lineitem, sorted by its order, and asks for the lines of single orders: one client after the
/// other's answer, then many at once. Without --url, --processes or --workers it measures an embedded
/// cluster of three workers.
#[derive(Debug, Args)]
pub struct LookupArgs {
    /// Folder with lineitem.parquet of TPC-H
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Generate the table if it is missing in --data at this scale; 10 is 60 million rows
    #[arg(long, value_name = "SF")]
    scale: Option<f64>,
    /// Look-ups of one client
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    lookups: u32,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// How long they all ask
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    #[command(flatten)]
    cluster: ClusterChoice,
    /// Measure DuckDB too, with this Python, which has the package `duckdb`
    #[arg(long, value_name = "PYTHON")]
    duckdb: Option<PathBuf>,
    /// Write what was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    cluster: String,
    rows: i64,
    segments: i64,
    duckdb_version: Option<String>,
    one: Vec<Latency>,
    many: Vec<Throughput>,
}

/// Statements of one client, one after the other; times in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    name: &'static str,
    client_median_ms: f64,
    client_p99_ms: f64,
    /// Planning and execution, without the time that its client takes to ask for rows, as `sys.queries` has them.
    server_median_ms: f64,
    duckdb_median_ms: Option<f64>,
}

/// Look-ups of many clients.
#[derive(Debug, Serialize)]
struct Throughput {
    name: &'static str,
    clients: u16,
    per_second: f64,
    median_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

pub(super) async fn run(args: LookupArgs) -> anyhow::Result<()> {
    if let Some(scale) = args.scale {
        workload::generate(&LOOKUPS, &args.data, scale).await?;
    }
    let mut duckdb = match &args.duckdb {
        Some(python) => {
            Some(DuckDb::start(python, &LOOKUPS, &args.data, args.cluster.data_dir()).await?)
        }
        None => None,
    };
    let target = Target::start(&args.cluster, &args.data).await?;
    let measured = tokio::select! {
        measured = measure(&args, &target, &mut duckdb) => measured,
        Ok(()) = tokio::signal::ctrl_c() => Err(crate::exit::Interrupted.into()),
    };
    let stopped = target.stop().await;
    let report = measured?;
    stopped?;
    std::io::stdout().write_all(text(&report).as_bytes())?;
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

async fn measure(
    args: &LookupArgs,
    target: &Target,
    duckdb: &mut Option<DuckDb>,
) -> anyhow::Result<Report> {
    let mut client = connect(target.url()).await?;
    workload::load(&mut client, &LOOKUPS, &args.data, Declared::default()).await?;
    if let Some(duckdb) = duckdb {
        duckdb.load().await?;
    }
    let rows = super::number(&mut client, "SELECT count(*) FROM lineitem").await?;
    let key_max = super::number(&mut client, "SELECT max(l_orderkey) FROM lineitem").await?;
    ensure!(key_max > 0, "lineitem has no rows");
    let segments = super::number(
        &mut client,
        "SELECT count(*) FROM sys.segments WHERE table_name = 'lineitem'",
    )
    .await?;
    let mut keys = Keys::new(1, key_max);

    let one = vec![
        measure_one(&mut client, duckdb, Statement::One, args.lookups, &mut keys).await?,
        measure_one(&mut client, duckdb, Statement::Text, args.lookups, &mut keys).await?,
        measure_one(&mut client, duckdb, Statement::Prepared, args.lookups, &mut keys).await?,
    ];
    let many = vec![
        measure_many(target.url(), args, Statement::Text, key_max).await?,
        measure_many(target.url(), args, Statement::Prepared, key_max).await?,
    ];
    Ok(Report {
        machine: Machine::here(),
        cluster: target.description().to_owned(),
        rows,
        segments,
        duckdb_version: duckdb.as_ref().map(|duckdb| duckdb.version().to_owned()),
        one,
        many,
    })
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statement {
    /// `SELECT 1`.
    One,
    /// The lines of an order, its key in the text.
    Text,
    /// The lines of an order, its key the parameter of a prepared statement.
    Prepared,
}

impl Statement {
    fn name(self) -> &'static str {
        match self {
            Self::One => "SELECT 1",
            Self::Text => "look-up as text",
            Self::Prepared => "look-up, prepared",
        }
    }

    fn sql(self, key: i64) -> String {
        match self {
            Self::One => "SELECT 1".to_owned(),
            Self::Text => look_up(&key.to_string()),
            Self::Prepared => look_up("$1"),
        }
    }
}

fn look_up(key: &str) -> String {
    format!("SELECT {COLUMNS} FROM lineitem WHERE l_orderkey = {key}")
}

/// A connection that asks one kind of statement.
struct Asker {
    client: Client,
    statement: Statement,
    prepared: Option<Prepared>,
}

impl Asker {
    async fn new(client: Client, statement: Statement) -> anyhow::Result<Self> {
        let prepared = match statement {
            Statement::Prepared => Some(client.clone().prepare(&statement.sql(0)).await?),
            Statement::One | Statement::Text => None,
        };
        Ok(Self { client, statement, prepared })
    }

    /// Asks once, up to the last row; how long it took.
    async fn ask(&mut self, key: i64) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let answer = match &mut self.prepared {
            Some(prepared) => {
                let key: ArrayRef = Arc::new(Int64Array::from(vec![key]));
                prepared.run(Some(RecordBatch::try_from_iter([("$1", key)])?)).await?
            }
            None => self.client.run(&self.statement.sql(key)).await?,
        };
        let Answer::Rows(mut rows) = answer else { anyhow::bail!("a look-up has rows") };
        let mut rows_seen = 0;
        while let Some(batch) = rows.next_batch().await? {
            rows_seen += batch.num_rows();
            let is_asked = |batch: &RecordBatch| match self.statement {
                Statement::One => batch.num_rows() == 1,
                _ => batch.column(0).as_primitive::<Int64Type>().values().iter().all(|k| *k == key),
            };
            ensure!(is_asked(&batch), "rows of another order than {key}");
        }
        let took = started.elapsed();
        ensure!(rows_seen > 0, "order {key} has no lines");
        Ok(took)
    }
}

async fn measure_one(
    client: &mut Client,
    duckdb: &mut Option<DuckDb>,
    statement: Statement,
    times: u32,
    keys: &mut Keys,
) -> anyhow::Result<Latency> {
    let bar = terminal::bar(u64::from(times), statement.name());
    let mut asker = Asker::new(client.clone(), statement).await?;
    for _ in 0..WARM_UPS {
        asker.ask(keys.draw()).await?;
    }
    let (mut ours, mut duckdbs) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let key = keys.draw();
        ours.push(milliseconds(asker.ask(key).await?));
        // Which is asked by text only.
        if let Some(duckdb) = duckdb.as_mut().filter(|_| statement != Statement::Prepared) {
            duckdbs.push(duckdb.run_statements(&[statement.sql(key)]).await?.0);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    // Nobody else asks: the newest are these.
    let sql = format!(
        "SELECT median(ms) FROM (SELECT planning_ms + execution_ms AS ms FROM sys.queries WHERE state = 'done' \
         ORDER BY started DESC LIMIT {times})"
    );
    let (_, batches) = client.query_all(&sql).await?;
    let batch =
        batches.iter().find(|batch| batch.num_rows() == 1).context("sys.queries has them")?;
    let server_median_ms =
        batch.column(0).as_primitive_opt::<Float64Type>().context("it is a DOUBLE")?.value(0);
    Ok(Latency {
        name: statement.name(),
        client_median_ms: quantile(&mut ours, 0.5),
        client_p99_ms: quantile(&mut ours, 0.99),
        server_median_ms,
        duckdb_median_ms: (!duckdbs.is_empty()).then(|| quantile(&mut duckdbs, 0.5)),
    })
}

async fn measure_many(
    url: &str,
    args: &LookupArgs,
    statement: Statement,
    key_max: i64,
) -> anyhow::Result<Throughput> {
    let mut askers = Vec::new();
    for n in 0..args.clients {
        let mut asker = Asker::new(connect(url).await?, statement).await?;
        let mut keys = Keys::new(u64::from(n) + 2, key_max);
        for _ in 0..WARM_UPS / 10 {
            asker.ask(keys.draw()).await?;
        }
        askers.push((asker, keys));
    }
    let started = Instant::now();
    let ends = started + Duration::from_secs(u64::from(args.seconds));
    let asking = askers.into_iter().map(|(mut asker, mut keys)| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < ends {
                times.push(milliseconds(asker.ask(keys.draw()).await?));
            }
            anyhow::Ok(times)
        })
    });
    let mut times = Vec::new();
    for client in asking.collect::<Vec<_>>() {
        times.extend(client.await??);
    }
    let per_second = times.len() as f64 / started.elapsed().as_secs_f64();
    Ok(Throughput {
        name: statement.name(),
        clients: args.clients,
        per_second,
        median_ms: quantile(&mut times, 0.5),
        p99_ms: quantile(&mut times, 0.99),
        max_ms: quantile(&mut times, 1.0),
    })
}

/// Keys of orders up to a largest one, as likely each (SplitMix64, Steele et al., OOPSLA 2014). Of 32 numbers that
/// follow each other TPC-H takes the first eight.
struct Keys {
    state: u64,
    /// How many there are.
    count: u64,
}

impl Keys {
    fn new(seed: u64, max: i64) -> Self {
        let max = max.unsigned_abs();
        Self { state: seed, count: max / 32 * 8 + max % 32 }
    }

    fn draw(&mut self) -> i64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let order = z % self.count.max(1) + 1;
        (order / 8 * 32 + order % 8) as i64
    }
}

/// The value that this part of them do not exceed; of none, NaN.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 * part).ceil() as usize).saturating_sub(1);
    values.get(index).copied().unwrap_or(f64::NAN)
}

fn text(report: &Report) -> String {
    let Report { machine, cluster, rows, segments, duckdb_version, one, many } = report;
    let mut text = format!(
        "{}, {} build of {}\n{} cores of {}, {}\nlookups: {cluster}; {rows} rows in {segments} segments\n\n",
        machine.date,
        machine.profile,
        machine.commit,
        machine.cores,
        machine.processor,
        machine.system
    );
    let duckdb =
        duckdb_version.as_ref().map_or(String::new(), |version| format!("DuckDB {version}"));
    text += &format!(
        "{:<20} {:>10} {:>10} {:>10} {:>14}\n",
        "one client, ms", "median", "p99", "server", duckdb
    );
    for latency in one {
        let Latency { name, client_median_ms, client_p99_ms, server_median_ms, duckdb_median_ms } =
            latency;
        let duckdb = duckdb_median_ms.map_or(String::new(), |ms| format!("{ms:.2}"));
        text += &format!(
            "{name:<20} {client_median_ms:>10.2} {client_p99_ms:>10.2} {server_median_ms:>10.2} {duckdb:>14}\n"
        );
    }
    text += &format!(
        "\n{:<20} {:>10} {:>10} {:>10} {:>14}\n",
        "at once, ms", "median", "p99", "max", "per second"
    );
    for throughput in many {
        let Throughput { name, clients, per_second, median_ms, p99_ms, max_ms } = throughput;
        let name = format!("{clients} x {name}");
        text += &format!(
            "{name:<20} {median_ms:>10.2} {p99_ms:>10.2} {max_ms:>10.2} {per_second:>14.0}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn quantiles_are_values_that_so_many_do_not_exceed() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), 50.0);
        assert_eq!(quantile(&mut values, 0.99), 99.0);
        assert_eq!(quantile(&mut values, 1.0), 100.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn keys_are_from_the_whole_range_and_the_same_each_time() {
        let draw = || {
            let mut keys = Keys::new(7, 34);
            (0..1_000).map(|_| keys.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        let drawn: BTreeSet<_> = draw().into_iter().collect();
        assert_eq!(drawn, [1, 2, 3, 4, 5, 6, 7, 32, 33, 34].into());
    }
}
