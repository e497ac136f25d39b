//! A run: rounds of queries on the same data.
//!
//! Query i of a run has the seed SEED + i, and its data the number of the round that the seed is
//! in: so a query runs again alone, with its data, by its seed. In the second half of a round the
//! tables are compacted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;

use super::data::{self, Table};
use super::duckdb::process::DuckDb;
use super::generate;
use super::oracles::{Case, Oracle, Verdict};
use super::report::{Finding, Summary};
use super::setup::{DuckDbReference, Setup, Source, Target};
use super::shrink::{self, Budget};

/// Queries on the same tables: half of those on the same data.
pub const QUERIES_PER_HALF: u64 = 250;
/// Differences of a round that are shrunk; more are most likely the same one again.
const SHRUNK_PER_ROUND: usize = 5;

/// What a run does.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed of the first query.
    pub seed: u64,
    /// How many queries.
    pub queries: u64,
    /// The one oracle; all of them in turn when there is none.
    pub oracle: Option<Oracle>,
    /// A Python with DuckDB, which then takes its turn.
    pub duckdb: Option<PathBuf>,
    /// Whether to go on after a difference.
    pub keeps_going: bool,
    /// Queries at a time.
    pub jobs: usize,
    /// What shrinking may try.
    pub budget: Budget,
}

/// Runs all queries, and calls `progress` after each.
///
/// # Errors
/// Clusters that do not start or refuse their tables. Differences are in the summary.
pub async fn run(
    options: &Options,
    source: &Source,
    progress: &mut (dyn FnMut(&Summary) + Send),
) -> anyhow::Result<Summary> {
    let start = Instant::now();
    let mut summary = Summary::default();
    let end = options.seed.saturating_add(options.queries);
    let duckdb = match &options.duckdb {
        Some(python) => {
            let database = Arc::new(DuckDb::start(python).await?);
            Some(DuckDbReference { database, flags: format!("--duckdb {}", python.display()) })
        }
        None => None,
    };
    let mut first = options.seed;
    while first < end && (options.keeps_going || summary.findings.is_empty()) {
        let half = first / QUERIES_PER_HALF;
        let last = (half + 1).saturating_mul(QUERIES_PER_HALF).min(end);
        let tables = data::tables(half / 2, half % 2 == 1);
        let mut setup = Setup::start(source).await?;
        setup.duckdb = duckdb.clone();
        setup.load(&tables).await?;
        let mut counted = |summary: &mut Summary| {
            summary.time = start.elapsed();
            progress(summary);
        };
        run_round(options, &setup, &tables, first..last, &mut summary, &mut counted).await?;
        setup.stop(&tables).await?;
        first = last;
    }
    summary.time = start.elapsed();
    Ok(summary)
}

/// Runs the queries of some seeds on tables that are loaded.
///
/// # Errors
/// Databases that refuse the smaller tables of shrinking.
pub async fn run_round(
    options: &Options,
    setup: &Setup,
    tables: &[Table],
    seeds: std::ops::Range<u64>,
    summary: &mut Summary,
    progress: &mut (dyn FnMut(&mut Summary) + Send),
) -> anyhow::Result<()> {
    let mut different = Vec::new();
    let mut checks = futures::stream::iter(seeds)
        .map(|seed| check_seed(options, setup, tables, seed))
        .buffer_unordered(options.jobs.max(1));
    while let Some((seed, checked)) = checks.next().await {
        summary.queries += 1;
        for (case, target, verdict) in checked {
            summary.count(case.oracle, &verdict);
            match verdict {
                Verdict::Different(difference) => different.push((seed, case, target, difference)),
                Verdict::Lost(reason) => anyhow::bail!(
                    "{reason}, at the query of seed {seed}: run it alone by --seed {seed} --queries \
                     1 --oracle {}, or go on behind it by --seed {}",
                    case.oracle.name(),
                    seed.saturating_add(1)
                ),
                _ => {}
            }
        }
        progress(summary);
        if !options.keeps_going && !different.is_empty() {
            break;
        }
    }
    // No other query may run while tables are made smaller.
    drop(checks);
    for (index, (seed, case, target, difference)) in different.into_iter().enumerate() {
        let original = case.query.to_string();
        let budget = match index {
            0..SHRUNK_PER_ROUND => options.budget,
            _ => Budget { queries: 0, loads: 0 },
        };
        let databases = setup.databases(target);
        let shrunk = shrink::shrink(case, difference, tables, databases, budget).await;
        let in_one_process = match setup.checked.query(&shrunk.difference.got.0).await {
            Ok(answer) => answer.shown(20),
            Err(error) => format!("ERROR: {error}"),
        };
        let query = seed - options.seed;
        let flags = match &setup.duckdb {
            Some(duckdb) if shrunk.case.oracle == Oracle::DuckDb => {
                format!("{} {}", duckdb.flags, target.flags)
            }
            _ => target.flags.clone(),
        };
        summary.findings.push(Finding { seed, query, flags, original, shrunk, in_one_process });
        progress(summary);
        setup.load(tables).await?;
    }
    Ok(())
}

/// The case of a seed; without DuckDB, the others have its share.
pub fn case(seed: u64, oracle: Option<Oracle>, has_duckdb: bool, tables: &[Table]) -> Case {
    let oracle = oracle.unwrap_or(match seed % 5 {
        0 | 1 if has_duckdb => Oracle::DuckDb,
        3 => Oracle::Tlp,
        4 => Oracle::NoRec,
        _ => Oracle::Differential,
    });
    let query = match oracle {
        Oracle::Differential => generate::query(seed, tables),
        Oracle::DuckDb => generate::wide_query(seed, tables),
        Oracle::Tlp => generate::partitioned_query(seed, tables),
        Oracle::NoRec => generate::counted_query(seed, tables),
    };
    Case { oracle, query }
}

/// Checks the query of a seed on each cluster whose turn it is.
async fn check_seed<'a>(
    options: &Options,
    setup: &'a Setup,
    tables: &[Table],
    seed: u64,
) -> (u64, Vec<(Case, &'a Target, Verdict)>) {
    let case = case(seed, options.oracle, setup.duckdb.is_some(), tables);
    let mut checked = Vec::new();
    for target in setup.targets.iter().filter(|target| seed % target.every == target.offset) {
        let verdict = case.check(setup.databases(target)).await;
        checked.push((case.clone(), target, verdict));
    }
    (seed, checked)
}
