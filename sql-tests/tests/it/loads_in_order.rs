//! What is loaded in an order by several partitions is found by its bounds, though the table is not sorted by it.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use basalt_engine::files::AllowedRoots;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::scan_counters;
use parquet::arrow::ArrowWriter;

const ROWS: i64 = 600_000;
/// Rows in the middle of the third row group of five.
const FEW: &str =
    "SELECT count(*) AS n, min(n) AS a, max(n) AS z FROM t WHERE n >= 310000 AND n < 342768";

/// One file of numbers in order.
fn numbers(path: &Path) {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_what_came_in_order_reads_the_row_groups_that_have_it() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = files.path().join("numbers.parquet");
    numbers(&path);
    let mut config = EmbeddedConfig::new(dir.path(), 3);
    config.allowed_roots = AllowedRoots::new([files.path()]).unwrap();
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    client.execute_update("SET target_partitions = 4").await.unwrap();
    let create = "CREATE TABLE t (n BIGINT, x BIGINT) DISTSTYLE ALL";
    client.execute_update(create).await.unwrap();
    let insert =
        format!("INSERT INTO t SELECT n, n * 7 % 1000 FROM read_parquet('{}')", path.display());
    client.execute_update(&insert).await.unwrap();
    let (_, rows) = client.query_all(FEW).await.unwrap();
    let answer = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(answer.contains("| 32768 | 310000 | 342767 |"), "{answer}");
    let read = scan_counters(&mut client, FEW, "t", "row_groups_read").await.unwrap();
    assert_eq!(read.iter().sum::<f64>(), 1.0);
    cluster.stop().await;
}
