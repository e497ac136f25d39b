//! The 22 TPC-H queries on every topology give the rows that plain DataFusion gives on the same
//! Parquet files. Distribution may change how an answer is found, never the answer.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use basalt_cli::tpch::TPCH;
use basalt_cli::workload::{Declared, Query, generate, load, statements};
use basalt_engine::files::AllowedRoots;
use basalt_sql_tests::client::{Answer, Client};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::scan_counters;
use datafusion::prelude::{ParquetReadOptions, SessionContext};

/// Scale of the data in CI.
const SCALE: f64 = 0.05;

/// The rows of an answer as sorted text: decimals in full, the order of ties left open.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<_> =
                columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(values.join("|"));
        }
    }
    rows.sort();
    rows
}

async fn plain_datafusion(dir: &Path) -> Vec<Vec<String>> {
    let session = SessionContext::new();
    for table in TPCH.tables {
        let file = dir.join(format!("{}.parquet", table.name));
        let options = ParquetReadOptions::default();
        session.register_parquet(table.name, file.to_str().unwrap(), options).await.unwrap();
    }
    let mut answers = Vec::new();
    for query in TPCH.queries {
        let mut last = Vec::new();
        for statement in statements(query.sql) {
            let batches = session.sql(&statement).await.unwrap().collect().await.unwrap();
            if batches.iter().any(|batch| batch.num_columns() > 0) {
                last = rows(&batches);
            }
        }
        answers.push(last);
    }
    answers
}

async fn on_cluster(client: &mut Client, query: &Query) -> Vec<String> {
    let mut last = Vec::new();
    for statement in statements(query.sql) {
        if let Answer::Rows(mut stream) = client.run(&statement).await.unwrap() {
            let mut batches = Vec::new();
            while let Some(batch) = stream.next_batch().await.unwrap() {
                batches.push(batch);
            }
            last = rows(&batches);
        }
    }
    last
}

/// Each of three workers reads its part of lineitem and nothing but the column that is asked for.
async fn check_splits(client: &mut Client) {
    let sum = "SELECT sum(l_quantity) FROM lineitem";
    let read = scan_counters(client, sum, "lineitem", "rows_read").await.unwrap();
    let total: f64 = read.iter().sum();
    assert_eq!(read.len(), 3);
    for rows in &read {
        assert!((0.25..=0.42).contains(&(rows / total)), "{read:?}");
    }
    // What was read already would be in memory.
    client.execute_update("SET column_cache = off").await.unwrap();
    let sum = "SELECT sum(l_tax) FROM lineitem";
    let one = scan_counters(client, sum, "lineitem", "local_bytes").await.unwrap();
    let all = "SELECT * FROM lineitem";
    let all = scan_counters(client, all, "lineitem", "local_bytes").await.unwrap();
    let (one, all): (f64, f64) = (one.iter().sum(), all.iter().sum());
    assert!(one > 0.0 && one < all / 10.0, "one of 16 columns read {one} bytes of {all}");
    let from_peers = scan_counters(client, sum, "lineitem", "peer_bytes").await.unwrap();
    assert_eq!(from_peers, [0.0; 3]);
    client.execute_update("RESET column_cache").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_queries_agree_with_plain_datafusion_on_every_topology() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    generate(&TPCH, &data, SCALE).await.unwrap();
    let expected = plain_datafusion(&data).await;
    for workers in [1, 2, 3, 5] {
        let config = EmbeddedConfig {
            allowed_roots: AllowedRoots::new([&data]).unwrap(),
            ..EmbeddedConfig::new(dir.path().join(format!("w{workers}")), workers)
        };
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        load(&mut client, &TPCH, &data, Declared::default()).await.unwrap();
        // Otherwise it would depend on the background which plans are tested.
        client.execute_update("ANALYZE").await.unwrap();
        if workers == 3 {
            check_splits(&mut client).await;
        }
        for (partitions, statistics) in [(1, "on"), (2, "on"), (2, "off"), (4, "on")] {
            for set in [
                format!("SET target_partitions = {partitions}"),
                format!("SET statistics = {statistics}"),
            ] {
                client.execute_update(&set).await.unwrap();
            }
            for (query, expected) in TPCH.queries.iter().zip(&expected) {
                let found = on_cluster(&mut client, query).await;
                assert_eq!(
                    &found, expected,
                    "{} on {workers} workers with {partitions} partitions, statistics {statistics}",
                    query.name
                );
            }
        }
        let fallbacks = "SELECT text, fallback FROM sys.queries WHERE fallback IS NOT NULL";
        let (_, batches) = client.query_all(fallbacks).await.unwrap();
        assert_eq!(rows(&batches), Vec::<String>::new(), "no plan may need the one-task fallback");
        cluster.stop().await;
    }
}
