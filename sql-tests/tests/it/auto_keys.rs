//! Tables that are left to AUTO and joined get the key that they are joined by: their answers stay, also while
//! rows move and others write, and then they are joined where they lie.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use basalt_sql_tests::client::{Client, IngestMode, IngestTarget};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use basalt_sql_tests::explain::exchanges;
use futures::future::try_join_all;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// One copy: tables that are no larger would come to ALL otherwise.
const TABLES: [&str; 4] = [
    "CREATE TABLE orders (k BIGINT, d BIGINT) SORTKEY(d) REPLICAS 1",
    "CREATE TABLE lines (k BIGINT, q BIGINT) REPLICAS 1",
    "INSERT INTO orders SELECT value, value % 7 FROM generate_series(1, 100000)",
    "INSERT INTO lines SELECT value % 100000 + 1, value FROM generate_series(1, 200000)",
];
const QUERY: &str = "SELECT sum(q + d) FROM lines l JOIN orders o ON l.k = o.k";
const JOINED: &str = "SELECT count(*) FROM lines l JOIN orders o ON l.k = o.k";
/// Queries that move each row of both tables: twice as many as make a key pay.
const ENOUGH: usize = 9;
/// How long the background may take.
const WITHIN: Duration = Duration::from_secs(120);

async fn start(dir: &std::path::Path, statements: &[&str]) -> (EmbeddedCluster, Client) {
    let config = EmbeddedConfig { links: Links::Network, ..EmbeddedConfig::new(dir, 3) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    client.execute_update("SET result_cache = off").await.unwrap();
    for sql in statements {
        client.execute_update(sql).await.unwrap();
    }
    (cluster, client)
}

async fn number(client: &mut Client, sql: &str) -> i64 {
    let (_, rows) = client.query_all(sql).await.unwrap();
    let row = rows.iter().find(|batch| batch.num_rows() > 0).unwrap();
    row.column(0).as_primitive::<Int64Type>().value(0)
}

/// A column of `sys.tables` for one table.
async fn told(client: &mut Client, column: &str, table: &str) -> String {
    let sql = format!(
        "SELECT coalesce({column}, '') || '' AS told FROM sys.tables WHERE table_name = '{table}'"
    );
    let (_, rows) = client.query_all(&sql).await.unwrap();
    let row = rows.iter().find(|batch| batch.num_rows() > 0).unwrap();
    let mut text = Vec::new();
    basalt_sql_tests::slt::text::append_rows(row, &mut text).unwrap();
    text[0][0].clone()
}

/// Waits until the background has given a table its distribution.
async fn wait_for(client: &mut Client, table: &str, distribution: &str) {
    let started = Instant::now();
    while told(client, "distribution", table).await != distribution {
        let reason = told(client, "distribution_reason", table).await;
        assert!(started.elapsed() < WITHIN, "{table} does not get {distribution}: {reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_joined_again_and_again_get_the_key_and_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path(), &TABLES).await;
    assert_eq!(told(&mut client, "distribution", "lines").await, "AUTO(EVEN)");
    assert_ne!(exchanges(&mut client, QUERY).await.unwrap(), ["Coalesce"]);
    let before = number(&mut client, QUERY).await;
    for _ in 0..ENOUGH {
        assert_eq!(number(&mut client, QUERY).await, before);
    }
    for table in ["orders", "lines"] {
        wait_for(&mut client, table, "AUTO(KEY(k))").await;
        assert_eq!(told(&mut client, "colocation", table).await, "by integer");
    }
    let reason = told(&mut client, "distribution_reason", "lines").await;
    assert!(reason.starts_with("KEY(k): joins by it with public.orders moved about "), "{reason}");
    assert_eq!(exchanges(&mut client, QUERY).await.unwrap(), ["Coalesce"]);
    assert_eq!(number(&mut client, QUERY).await, before);
    // New rows go by the key as well, and stay by it when segments are merged, also in the order of the sort key.
    for first in [200_001, 200_501, 201_001] {
        for table in ["orders", "lines"] {
            let insert = format!(
                "INSERT INTO {table} SELECT value, 0 FROM generate_series({first}, {})",
                first + 499
            );
            assert_eq!(client.execute_update(&insert).await.unwrap(), 500);
        }
    }
    client.execute_update("DELETE FROM orders WHERE k > 201400").await.unwrap();
    client.execute_update("VACUUM").await.unwrap();
    for table in ["orders", "lines"] {
        assert_eq!(told(&mut client, "distribution", table).await, "AUTO(KEY(k))");
    }
    assert_eq!(exchanges(&mut client, QUERY).await.unwrap(), ["Coalesce"]);
    assert_eq!(number(&mut client, QUERY).await, before);
    assert_eq!(number(&mut client, JOINED).await, 200_000 + 1_400);
    cluster.stop().await;
}

/// Writes while rows move: each statement adds or takes away what the end is checked for.
async fn write(url: String, client: i64) {
    let mut connection = Client::connect(&url).await.unwrap();
    for number in 0..12 {
        let first = 1_000_000 + client * 100_000 + number * 1_000;
        let insert = format!(
            "INSERT INTO lines SELECT value, 1 FROM generate_series({first}, {})",
            first + 99
        );
        assert_eq!(connection.execute_update(&insert).await.unwrap(), 100);
        let update =
            format!("UPDATE lines SET q = q + 1 WHERE k BETWEEN {first} AND {}", first + 9);
        assert_eq!(connection.execute_update(&update).await.unwrap(), 10);
        let delete = format!("DELETE FROM lines WHERE k = {first}");
        assert_eq!(connection.execute_update(&delete).await.unwrap(), 1);
    }
}

async fn read(url: String, expected: i64) {
    let mut connection = Client::connect(&url).await.unwrap();
    connection.execute_update("SET result_cache = off").await.unwrap();
    for _ in 0..2 * ENOUGH {
        assert_eq!(number(&mut connection, QUERY).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_lost_and_no_answer_wrong_while_rows_move_and_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path(), &TABLES).await;
    let sums = "SELECT count(*) * 1000000000 + sum(q) FROM lines WHERE k > 1000000";
    // Of orders there are none for what is written, so that what is read stays.
    let expected = number(&mut client, QUERY).await;
    let readers = (0..2).map(|_| tokio::spawn(read(cluster.url(), expected)));
    let writers = (0..2).map(|n| tokio::spawn(write(cluster.url(), n + 1)));
    try_join_all(readers.chain(writers)).await.unwrap();
    for table in ["orders", "lines"] {
        wait_for(&mut client, table, "AUTO(KEY(k))").await;
    }
    // Of each 100 rows one is deleted that was 2, and of the rest nine are 2.
    assert_eq!(number(&mut client, sums).await, 24 * 99 * 1_000_000_000 + 24 * (99 + 9));
    assert_eq!(number(&mut client, QUERY).await, expected);
    assert_eq!(number(&mut client, "SELECT count(*) FROM lines").await, 200_000 + 24 * 99);
    assert_eq!(exchanges(&mut client, QUERY).await.unwrap(), ["Coalesce"]);
    cluster.stop().await;
}

/// An upload of lines that is open until somebody ends it: as many rows again as it began with.
fn upload(url: String, rows: i64) -> (oneshot::Sender<()>, JoinHandle<u64>) {
    let (end, ended) = oneshot::channel::<()>();
    let batch = |keys: std::ops::Range<i64>| {
        let k: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.clone()));
        let q: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.map(|_| 0)));
        RecordBatch::try_from_iter_with_nullable([("k", k, true), ("q", q, true)]).unwrap()
    };
    let (first, last) = (batch(1..rows + 1), batch(rows + 1..2 * rows + 1));
    let schema = first.schema();
    let last = async move {
        ended.await.unwrap();
        Ok(last)
    };
    let batches = stream::iter([Ok(first)]).chain(stream::once(last)).boxed();
    let upload = move || async move {
        let mut client = Client::connect(&url).await.unwrap();
        let target = IngestTarget {
            schema: None,
            table: "lines".to_owned(),
            mode: IngestMode::Append,
            options: Default::default(),
        };
        client.ingest(target, schema, batches).await.unwrap()
    };
    // By a thread of its own: the future is not one that may go from one to another.
    let upload = tokio::task::spawn_blocking(|| Handle::current().block_on(upload()));
    (end, upload)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_began_before_the_choice_ends_after_it_and_is_written_by_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path(), &TABLES).await;
    let before = number(&mut client, QUERY).await;
    let (end, upload) = upload(cluster.url(), 20_000);
    let running = "SELECT count(*) FROM sys.queries WHERE state = 'running'";
    while number(&mut client, running).await < 2 {}
    for _ in 0..ENOUGH {
        assert_eq!(number(&mut client, QUERY).await, before);
    }
    wait_for(&mut client, "lines", "AUTO(KEY(k))").await;
    end.send(()).unwrap();
    assert_eq!(upload.await.unwrap(), 40_000);
    // Whatever its rows lie by now, they are joined.
    assert_eq!(number(&mut client, JOINED).await, 240_000);
    for table in ["orders", "lines"] {
        wait_for(&mut client, table, "AUTO(KEY(k))").await;
    }
    assert_eq!(exchanges(&mut client, QUERY).await.unwrap(), ["Coalesce"]);
    assert_eq!(number(&mut client, JOINED).await, 240_000);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_which_most_rows_have_one_value_is_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let skewed = "INSERT INTO lines SELECT CASE WHEN value % 4 = 0 THEN value / 4 ELSE 1 END, value \
                  FROM generate_series(1, 200000)";
    let (cluster, mut client) = start(dir.path(), &[&TABLES[..3], &[skewed]].concat()).await;
    let expected = number(&mut client, QUERY).await;
    // Orders get the key by themselves: that their rows stay pays too.
    for _ in 0..2 * ENOUGH {
        assert_eq!(number(&mut client, QUERY).await, expected);
    }
    wait_for(&mut client, "orders", "AUTO(KEY(k))").await;
    assert_eq!(told(&mut client, "distribution", "lines").await, "AUTO(EVEN)");
    assert_eq!(number(&mut client, QUERY).await, expected);
    cluster.stop().await;
}
