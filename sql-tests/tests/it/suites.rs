//! Our own sqllogictest files in many topologies: plain in-process DataFusion, and clusters of one
//! to five workers with one to four partitions per task (RULES 1).
//!
//! Equal answers catch distribution bugs; the expected text catches wrong answers that all
//! topologies share. One, three and five workers run every query in several sessions and compare
//! the answers, so that tables are loaded once per cluster: at each number of partitions, and with
//! scans of few rows cut into tasks (as all are here) or not (as they are by default).
//!
//! Invariant: no query needs the one-task fallback but those in [`ONE_TASK`], each with its reason.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use basalt_sql_tests::slt::{
    DataFusionEngine, Engine, EngineError, FileReport, FlightEngine, Output, SltOptions,
    find_files, run_file, text,
};
use datafusion::prelude::{SessionConfig, SessionContext};

/// Partitions of plain DataFusion, which knows nothing of tasks.
const LOCAL_PARTITIONS: [usize; 3] = [1, 2, 4];
/// Partitions per task, with every table cut into tasks however few its rows are. One partition is
/// raised to two (DESIGN.md, traps).
const CUT: [&str; 2] = [
    "SET target_partitions = 1; SET one_task_rows = 0",
    "SET target_partitions = 4; SET one_task_rows = 0",
];
/// As sessions are before anything is set.
const DEFAULT: &str = "SET target_partitions = 4";

/// Queries that the checker refuses to cut, by a part of their text.
const ONE_TASK: [&str; 1] = [
    // Every round reads its inputs again, and an exchange can be read once.
    "WITH RECURSIVE",
];

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    find_files(&[folder.to_string_lossy().into_owned()]).unwrap()
}

fn check(topology: &str, reports: &[FileReport]) {
    let failures: Vec<_> = reports
        .iter()
        .flat_map(|report| &report.failures)
        .map(|failure| format!("{}:{}\n{}", failure.file, failure.line, failure.text))
        .collect();
    assert!(failures.is_empty(), "{topology}:\n{}", failures.join("\n\n"));
    for report in reports {
        assert!(report.passed > 0, "{topology}: no record of {} ran", report.path.display());
    }
}

/// A cluster that answers each query once per session and insists that the answers agree.
struct Sessions(Vec<(&'static str, FlightEngine)>);

impl Sessions {
    async fn connect(url: &str, settings: &[&'static str]) -> Result<Self, EngineError> {
        let mut sessions = Vec::new();
        for settings in settings {
            let mut engine = FlightEngine::connect(url).await?;
            for setting in settings.split("; ") {
                engine.run(setting).await?;
            }
            sessions.push((*settings, engine));
        }
        Ok(Self(sessions))
    }
}

#[async_trait]
impl Engine for Sessions {
    fn name(&self) -> &str {
        "basalt"
    }

    async fn run(&mut self, sql: &str) -> Result<Output, EngineError> {
        let (named, engine) = &mut self.0[0];
        let (named, first) = (*named, engine.run(sql).await?);
        if matches!(first, Output::Done { .. }) {
            if is_of_the_session(sql) {
                for (_, engine) in self.0.iter_mut().skip(1) {
                    engine.run(sql).await?;
                }
            }
            return Ok(first);
        }
        let expected = shown(&first, sql);
        for (settings, engine) in self.0.iter_mut().skip(1) {
            let other = shown(&engine.run(sql).await?, sql);
            if other != expected {
                let message = format!("{settings} gives {other:?}, {named} gives {expected:?}");
                return Err(EngineError { message, sqlstate: None, is_disconnect: false });
            }
        }
        Ok(first)
    }
}

/// Whether a statement changes the session and nothing else, so that each session needs it.
fn is_of_the_session(sql: &str) -> bool {
    matches!(sql.split_whitespace().next(), Some("SET" | "RESET"))
}

/// The rows as text: in their order when the query has one, else sorted.
fn shown(output: &Output, sql: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Output::Rows { batches, .. } = output {
        for batch in batches {
            text::append_rows(batch, &mut rows).unwrap();
        }
    }
    if !is_ordered(sql) {
        rows.sort();
    }
    rows
}

/// Whether a query has an ORDER BY outside of all parentheses.
fn is_ordered(sql: &str) -> bool {
    let mut depth = 0i32;
    let outside: String = sql
        .chars()
        .filter(|character| {
            depth += i32::from(*character == '(') - i32::from(*character == ')');
            depth == 0
        })
        .collect();
    outside.contains("ORDER BY")
}

/// Statements that were planned again as one task, and why.
async fn fallbacks(url: &str) -> Vec<(String, String)> {
    let mut client = Client::connect(url).await.unwrap();
    let sql = "SELECT DISTINCT text, fallback FROM sys.queries WHERE fallback IS NOT NULL";
    let (_, batches) = client.query_all(sql).await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        text::append_rows(batch, &mut rows).unwrap();
    }
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

async fn on_workers(workers: u16, links: Links, settings: &[&'static str]) {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { links, ..EmbeddedConfig::new(dir.path(), workers) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let url = cluster.url();
    let mut reports = Vec::new();
    let mut unexpected = Vec::new();
    for file in files() {
        let connect = || async { Sessions::connect(&url, settings).await };
        reports.push(run_file(&file, connect, &SltOptions::default()).await);
        // Only the last thousand statements are remembered, so after each file.
        let fallen = fallbacks(&url).await;
        let known = |sql: &str| ONE_TASK.iter().any(|part| sql.contains(part));
        unexpected.extend(fallen.into_iter().filter(|(sql, _)| !known(sql)));
    }
    check(&format!("{workers} workers"), &reports);
    unexpected.sort();
    unexpected.dedup();
    assert!(unexpected.is_empty(), "{workers} workers, planned as one task: {unexpected:#?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local() {
    for partitions in LOCAL_PARTITIONS {
        let mut reports = Vec::new();
        for file in files() {
            let config = SessionConfig::new()
                .with_target_partitions(partitions)
                .with_information_schema(true);
            let session = SessionContext::new_with_config(config);
            let connect = || async { Ok(DataFusionEngine::new(session.clone())) };
            reports.push(run_file(&file, connect, &SltOptions::default()).await);
        }
        check(&format!("plain DataFusion with {partitions} partitions"), &reports);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker() {
    on_workers(1, Links::Network, &CUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers() {
    on_workers(2, Links::InProcess, &CUT[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers() {
    on_workers(3, Links::Network, &[CUT[0], CUT[1], DEFAULT]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_workers() {
    on_workers(5, Links::InProcess, &[CUT[0], DEFAULT]).await;
}
