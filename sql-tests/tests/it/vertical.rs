//! The vertical split: a query reads the chunks of its own columns and of no other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::scan_counters;

/// Column files below a worker's chunks.
fn column_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            column_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
}

/// Files of one column, and those of all others.
fn split_files(dir: &Path, column: u32) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut files = Vec::new();
    column_files(dir, &mut files);
    let prefix = format!("c{column}.");
    let is_of_column =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
    files.into_iter().partition(is_of_column)
}

/// Waits until the background has read all columns of the table, which it will not do again.
async fn wait_for_analysis(client: &mut Client) {
    let analysed = "SELECT count(*) AS n FROM sys.column_statistics WHERE rows_analysed = 200000";
    let started = Instant::now();
    loop {
        let (_, rows) = client.query_all(analysed).await.unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        if shown.contains("| 3 |") {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "it is not analysed");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_needs_the_files_of_its_own_column_only() {
    let dir = tempfile::tempdir().unwrap();
    // What is read is read from disk.
    let config = EmbeddedConfig { column_cache_bytes: 0, ..EmbeddedConfig::new(dir.path(), 1) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    // More than 65,536 rows in each slice, so that segments are wide.
    let create = "CREATE TABLE wide DISTSTYLE ALL AS \
                  SELECT value AS a, value * 2 AS b, 'x' || value AS c \
                  FROM generate_series(1, 200000)";
    client.execute_update(create).await.unwrap();
    // A worker that has read a file may go on reading it when it is gone.
    wait_for_analysis(&mut client).await;
    cluster.stop().await;
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let read = scan_counters(&mut client, "SELECT sum(b) FROM wide", "wide", "local_bytes").await;
    let read: f64 = read.unwrap().iter().sum();
    let (own, others) = split_files(&dir.path().join("worker-0/chunks"), 2);
    let stored: u64 = own.iter().map(|file| file.metadata().unwrap().len()).sum();
    // Whole blocks are read and checked, and two row groups may share one; counters have three digits.
    assert!(read > 0.0 && read <= 2.01 * stored as f64, "{read} bytes of {stored} of the column");
    let beside: u64 = others.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(read < beside as f64 / 4.0, "{read} bytes, and the other columns have {beside}");
    assert_eq!(others.len(), 2, "one segment with files of two other columns: {others:?}");
    for file in others {
        std::fs::remove_file(file).unwrap();
    }
    let (_, rows) = client.query_all("SELECT sum(b) AS s FROM wide").await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(shown.contains("40000200000"), "{shown}");
    let error = client.query_all("SELECT sum(a) FROM wide").await.unwrap_err().to_string();
    for named in ["column \"a\"", "public.wide", "slice", "segment"] {
        assert!(error.contains(named), "{error}");
    }
    cluster.stop().await;
}
