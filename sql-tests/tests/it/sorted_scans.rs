//! Scans read in the order of the sort key where a sort would be needed otherwise, and never in another.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};

async fn shown(client: &mut Client, sql: &str) -> String {
    let (_, rows) = client.query_all(sql).await.unwrap();
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

async fn run(client: &mut Client, sql: &str) {
    client.execute_update(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Overlapping loads, some rows of which were deleted and changed since.
async fn load(client: &mut Client) {
    run(
        client,
        "CREATE TABLE t (k BIGINT NOT NULL, b INTEGER, s VARCHAR) DISTKEY(s) SORTKEY(k, b)",
    )
    .await;
    for (load, keys) in [(1, 1_000), (2, 1_500), (3, 10), (4, 4_000)] {
        let insert = format!(
            "INSERT INTO t SELECT value % {keys}, CASE WHEN value % 11 > 0 THEN value % 7 END, \
             'load {load} row ' || value FROM generate_series(1, 5000)"
        );
        run(client, &insert).await;
    }
    run(client, "DELETE FROM t WHERE s LIKE 'load 2%' AND k % 3 = 0").await;
    run(client, "UPDATE t SET k = k + 100, b = NULL WHERE s LIKE 'load 1%' AND k % 5 = 0").await;
}

/// A query whose rows are in one order only, and whether a sort is left in its plan.
const QUERIES: [(&str, bool); 10] = [
    ("SELECT k, b FROM t ORDER BY k, b", false),
    ("SELECT b, k FROM t WHERE b > 2 ORDER BY k, b", false),
    ("SELECT k FROM t WHERE s LIKE '%7' ORDER BY k NULLS FIRST", false),
    ("SELECT k, b FROM t ORDER BY k, b NULLS FIRST", true),
    ("SELECT k, b FROM t ORDER BY k DESC, b", true),
    ("SELECT k, b FROM t ORDER BY b, k", true),
    ("SELECT k, b FROM t ORDER BY k, b LIMIT 30", true),
    ("SELECT k, b, s FROM t ORDER BY k DESC, s LIMIT 30 OFFSET 7", true),
    ("SELECT k, max(b) AS m, count(*) AS n FROM t GROUP BY k ORDER BY k", true),
    (
        "SELECT k, n FROM (SELECT k, row_number() OVER (ORDER BY k) AS n FROM t) WHERE n % 50 = 0 ORDER BY n",
        false,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_order_with_and_without_a_sort() {
    for workers in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path(), workers);
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        load(&mut client).await;
        for batch_rows in [8192, 7] {
            run(&mut client, &format!("SET batch_rows = {batch_rows}")).await;
            for (query, is_sorted) in QUERIES {
                run(&mut client, "SET sorted_scans = off").await;
                let expected = shown(&mut client, query).await;
                run(&mut client, "SET sorted_scans = on").await;
                assert_eq!(shown(&mut client, query).await, expected, "{query}");
                let plan = shown(&mut client, &format!("EXPLAIN {query}")).await;
                assert_eq!(plan.contains("SortExec"), is_sorted, "{query}\n{plan}");
            }
        }
        // Side by side, segments of a slice are one chain.
        run(&mut client, "VACUUM t").await;
        let plan = shown(&mut client, "EXPLAIN SELECT k FROM t ORDER BY k").await;
        assert!(plan.contains("sorted_by=[k]"), "{plan}");
        for (query, _) in QUERIES {
            let sorted = shown(&mut client, query).await;
            run(&mut client, "SET sorted_scans = off").await;
            assert_eq!(sorted, shown(&mut client, query).await, "{query}");
            run(&mut client, "RESET sorted_scans").await;
        }
        cluster.stop().await;
    }
}

/// More rows than a small hash table of groups.
const MANY: i64 = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_the_sort_key_come_one_after_the_other() {
    for workers in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path(), workers);
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        run(&mut client, "CREATE TABLE t (k BIGINT, v BIGINT) SORTKEY(k, v)").await;
        let rows = format!("SELECT value / 3, value % 4 FROM generate_series(1, {MANY})");
        run(&mut client, &format!("INSERT INTO t {rows}")).await;
        let many = "SELECT v, k, count(*) AS n FROM t GROUP BY v, k";
        let plan = shown(&mut client, &format!("EXPLAIN {many}")).await;
        assert!(plan.contains("ordering_mode=Sorted"), "{plan}");
        let counts =
            format!("SELECT count(*) AS groups, sum(n) AS n, sum(k * n) AS ks FROM ({many})");
        let streamed = shown(&mut client, &counts).await;
        run(&mut client, "SET sorted_scans = off").await;
        assert_eq!(streamed, shown(&mut client, &counts).await);
        cluster.stop().await;
    }
}

/// The first rows of a sorted table are found in the segments that begin with them.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_rows_of_many_loads_are_found_without_reading_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 1)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    run(&mut client, "CREATE TABLE t (at BIGINT, s VARCHAR) DISTSTYLE ALL SORTKEY(at)").await;
    for load in 0..6 {
        let (first, last) = (load * 70_000, (load + 1) * 70_000 - 1);
        let rows = format!("SELECT value, 'row ' || value FROM generate_series({first}, {last})");
        run(&mut client, &format!("INSERT INTO t {rows}")).await;
    }
    for (order, first) in [("at", 0), ("at DESC", 419_999)] {
        let query = format!("SELECT at, s FROM t ORDER BY {order} LIMIT 3");
        let rows = shown(&mut client, &query).await;
        assert!(rows.contains(&format!("row {first}")), "{rows}");
        let read: f64 =
            basalt_sql_tests::explain::scan_counters(&mut client, &query, "t", "rows_read")
                .await
                .unwrap()
                .iter()
                .sum();
        assert!(read <= 140_000.0, "{read} rows were read");
    }
    cluster.stop().await;
}
