//! Our own sqllogictest files, each in three topologies: plain in-process DataFusion, one worker,
//! three workers. Equal answers catch distribution bugs; the expected text catches wrong answers.

use std::path::Path;

use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::{
    DataFusionEngine, FileReport, FlightEngine, SltOptions, find_files, run_file,
};
use datafusion::prelude::{SessionConfig, SessionContext};

fn check(topology: &str, reports: &[FileReport]) {
    let failures: Vec<_> = reports
        .iter()
        .flat_map(|report| &report.failures)
        .map(|failure| format!("{}:{}\n{}", failure.file, failure.line, failure.text))
        .collect();
    let passed: u64 = reports.iter().map(|report| report.passed).sum();
    assert!(failures.is_empty(), "{topology}:\n{}", failures.join("\n\n"));
    assert!(passed > 0, "{topology}: no record ran");
}

fn files() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    find_files(&[folder.to_string_lossy().into_owned()]).unwrap()
}

async fn on_workers(workers: u16) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), workers)).await.unwrap();
    let url = cluster.url();
    let mut reports = Vec::new();
    for file in files() {
        let connect = || async { FlightEngine::connect(&url).await };
        reports.push(run_file(&file, connect, &SltOptions::default()).await);
    }
    check(&format!("{workers} workers"), &reports);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local() {
    let mut reports = Vec::new();
    for file in files() {
        let config = SessionConfig::new().with_target_partitions(2).with_information_schema(true);
        let session = SessionContext::new_with_config(config);
        let connect = || async { Ok(DataFusionEngine::new(session.clone())) };
        reports.push(run_file(&file, connect, &SltOptions::default()).await);
    }
    check("plain DataFusion", &reports);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker() {
    on_workers(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers() {
    on_workers(3).await;
}
