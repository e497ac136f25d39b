//! The vertical split: a query reads the chunks of its own columns and of no other.

use std::path::{Path, PathBuf};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};

/// Files of all columns but one, below a worker's chunks.
fn files_of_other_columns(dir: &Path, column: u32, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            files_of_other_columns(&path, column, found);
        } else if name.ends_with(".parquet") && !name.starts_with(&format!("c{column}.")) {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_needs_the_files_of_its_own_column_only() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 1)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    // More than 65,536 rows in each slice, so that segments are wide.
    let create = "CREATE TABLE wide DISTSTYLE ALL AS \
                  SELECT value AS a, value * 2 AS b, 'x' || value AS c \
                  FROM generate_series(1, 200000)";
    client.execute_update(create).await.unwrap();
    let mut others = Vec::new();
    files_of_other_columns(&dir.path().join("worker-0/chunks"), 2, &mut others);
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
