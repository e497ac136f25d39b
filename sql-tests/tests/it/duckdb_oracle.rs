//! Generated queries beside DuckDB, in the Python that the tests of the drivers make.
//!
//! Nothing is skipped: without Python, or without its packages, these tests fail and say what is
//! missing. A seed on whose query ours is known to be wrong is not among those here.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use basalt_sql_tests::clients::python_env;
use basalt_sql_tests::fuzz::answers::{Answer, Failure};
use basalt_sql_tests::fuzz::data;
use basalt_sql_tests::fuzz::databases::{Database, PlainDataFusion};
use basalt_sql_tests::fuzz::duckdb::process::DuckDb;
use basalt_sql_tests::fuzz::oracles::{Kind, Oracle};
use basalt_sql_tests::fuzz::report::Summary;
use basalt_sql_tests::fuzz::run::{Options, run, run_round};
use basalt_sql_tests::fuzz::setup::{DuckDbReference, Setup, Source, Target, Topology};
use basalt_sql_tests::fuzz::shrink::Budget;

fn options(seed: u64, queries: u64, python: PathBuf) -> Options {
    Options {
        seed,
        queries,
        oracle: Some(Oracle::DuckDb),
        duckdb: Some(python),
        keeps_going: true,
        jobs: 4,
        budget: Budget { queries: 100, loads: 40 },
    }
}

async fn python() -> PathBuf {
    let python = tokio::task::spawn_blocking(python_env).await.unwrap();
    python.unwrap_or_else(|error| panic!("no Python with DuckDB for this test: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_queries_give_what_duckdb_gives() {
    const SEED: u64 = 7_700;
    const QUERIES: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let topologies =
        vec![Topology { workers: 2, partitions: 2, settings: vec![], every: 1, offset: 0 }];
    let source = Source::Embedded { dir: dir.path().to_owned(), topologies };
    let options = options(SEED, QUERIES, python().await);
    let summary = run(&options, &source, &mut |_| {}).await.unwrap();
    let findings: Vec<_> = summary.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{summary}\n\n{}", findings.join("\n\n"));
    assert_eq!(summary.checks[&Oracle::DuckDb], QUERIES);
    assert!(summary.same * 10 >= QUERIES * 9, "{summary}");
}

/// Plain DataFusion that loses the last row of everything with `max(`.
struct LosesRows(PlainDataFusion);

#[async_trait]
impl Database for LosesRows {
    async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        // What it refuses is no difference.
        let refused = |failure| Failure { sqlstate: Some("0A000".to_owned()), ..failure };
        let mut answer = self.0.query(sql).await.map_err(refused)?;
        if sql.contains("max(") {
            answer.batches.retain(|batch| batch.num_rows() > 0);
            if let Some(last) = answer.batches.last_mut() {
                *last = last.slice(0, last.num_rows() - 1);
            }
        }
        Ok(answer)
    }

    async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.0.execute(sql).await
    }

    fn is_ours(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_is_found_beside_duckdb_and_made_small() {
    let python = python().await;
    let database = Arc::new(DuckDb::start(&python).await.unwrap());
    let flags = "--workers 0".to_owned();
    let target = Arc::new(LosesRows(PlainDataFusion::new(1)));
    let mut setup = Setup::of(vec![Target { flags, database: target, every: 1, offset: 0 }]);
    setup.duckdb = Some(DuckDbReference { database, flags: "--duckdb PYTHON".to_owned() });
    let tables = data::tables(0, false);
    setup.load(&tables).await.unwrap();
    let options = Options { keeps_going: false, ..options(0, 200, python) };
    let mut summary = Summary::default();
    run_round(&options, &setup, &tables, 0..200, &mut summary, &mut |_| {}).await.unwrap();
    let finding = &summary.findings[0];
    assert_eq!(finding.shrunk.difference.kind, Kind::Rows, "{finding}");
    let (sql, script) = (finding.shrunk.case.query.to_string(), finding.script());
    assert!(sql.contains("max(") && sql.len() < finding.original.len(), "{finding}");
    assert!(script.contains("-- DuckDB: CREATE OR REPLACE TABLE fuzz_"), "{script}");
    let repeat = format!("--seed {} --queries 1 --oracle duckdb --duckdb PYTHON", finding.seed);
    assert!(finding.command().contains(&repeat), "{}", finding.command());
}
