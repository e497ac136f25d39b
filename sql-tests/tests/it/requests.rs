//! Writes that clients have named, through real connections: one effect however often and by how
//! many they are sent, the first answer for all, also after a restart (RULES 11, 12).

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use basalt_sql_tests::client::{Client, ClientError, IngestMode, IngestTarget};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;
use futures::future::{join_all, try_join_all};
use futures::stream;

/// Clients that send the same thing at once.
const SENDERS: usize = 6;
/// They meet by chance: in so many rounds they do.
const ROUNDS: usize = 8;

async fn start(dir: &std::path::Path) -> (EmbeddedCluster, Client) {
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir, 2)).await.unwrap();
    let client = Client::connect(&cluster.url()).await.unwrap();
    (cluster, client)
}

async fn answer(client: &mut Client, sql: &str) -> String {
    let (_, batches) = client.query_all(sql).await.unwrap();
    let mut rows = Vec::new();
    batches.iter().for_each(|batch| text::append_rows(batch, &mut rows).unwrap());
    rows.concat().join("|")
}

/// The rows 0..n of a table (n, s).
fn upload(n: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..n).map(|n| Some(format!("s{n}")))));
    RecordBatch::try_from_iter([("n", numbers), ("s", texts)]).unwrap()
}

async fn ingest(
    client: &Client,
    key: &str,
    mode: IngestMode,
    batches: Vec<Result<RecordBatch, ClientError>>,
) -> Result<u64, ClientError> {
    let target = IngestTarget {
        schema: None,
        table: "uploaded".to_owned(),
        mode,
        options: Default::default(),
    };
    let schema: SchemaRef = upload(0).schema();
    client.with_request_key(key)?.ingest(target, schema, stream::iter(batches)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_sent_at_once_under_one_key_have_one_effect_and_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    client.execute_update("CREATE TABLE t (k BIGINT, n BIGINT)").await.unwrap();
    client.execute_update("INSERT INTO t VALUES (0, 0)").await.unwrap();
    let connections = (0..SENDERS).map(|_| async { Client::connect(&cluster.url()).await });
    let mut senders = try_join_all(connections).await.unwrap();
    for round in 1..=ROUNDS {
        let statements = [
            format!("INSERT INTO t SELECT {round}, value FROM generate_series(1, 1000)"),
            "UPDATE t SET n = n + 1 WHERE k = 0".to_owned(),
            format!("CREATE TABLE made_{round} AS SELECT value FROM generate_series(1, 10)"),
            format!("DELETE FROM t WHERE k = {round} AND n > 500"),
        ];
        for (number, sql) in statements.iter().enumerate() {
            let labelled = format!("{sql} LABEL 'r{round}.{number}'");
            let sent = join_all(senders.iter_mut().map(|c| c.execute_update(&labelled))).await;
            let answers: Vec<u64> = sent.into_iter().map(Result::unwrap).collect();
            let expected = [1_000, 1, 10, 500][number];
            assert_eq!(answers, vec![expected; SENDERS], "{labelled}");
        }
    }
    let rows = answer(&mut client, "SELECT count(*), max(n) FILTER (WHERE k = 0) FROM t").await;
    assert_eq!(rows, format!("{}|{ROUNDS}", 1 + ROUNDS * 500));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_sent_at_once_under_one_key_have_one_effect_and_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    let connections = (0..SENDERS).map(|_| async { Client::connect(&cluster.url()).await });
    let senders = try_join_all(connections).await.unwrap();
    for mode in [IngestMode::Create, IngestMode::Append, IngestMode::Replace] {
        let key = format!("{mode:?}");
        let sent = senders.iter().map(|c| ingest(c, &key, mode, vec![Ok(upload(1_000))]));
        let answers: Vec<u64> = join_all(sent).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, vec![1_000; SENDERS], "{key}");
        let expected = if mode == IngestMode::Append { "2000" } else { "1000" };
        assert_eq!(answer(&mut client, "SELECT count(*) FROM uploaded").await, expected);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_after_a_restart_has_the_first_answer_and_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    client.execute_update("CREATE TABLE t (n BIGINT)").await.unwrap();
    let insert = "INSERT INTO t SELECT value FROM generate_series(1, 7)";
    assert_eq!(client.with_request_key("k").unwrap().execute_update(insert).await.unwrap(), 7);
    assert_eq!(ingest(&client, "u", IngestMode::Create, vec![Ok(upload(3))]).await.unwrap(), 3);
    let known = "SELECT request, state, txn, version, rows_affected FROM sys.requests \
                 WHERE request IN ('k', 'u') ORDER BY 1";
    let before = answer(&mut client, known).await;
    cluster.stop().await;

    let (cluster, mut client) = start(dir.path()).await;
    assert_eq!(answer(&mut client, known).await, before);
    let texts =
        "SELECT count(*), count(text), count(started) FROM sys.requests WHERE state = 'COMMITTED'";
    assert_eq!(answer(&mut client, texts).await, "2|0|2");
    // By the header or by a LABEL: it is the same key.
    assert_eq!(client.execute_update(&format!("{insert} LABEL 'k'")).await.unwrap(), 7);
    assert_eq!(client.with_request_key("k").unwrap().execute_update(insert).await.unwrap(), 7);
    assert_eq!(ingest(&client, "u", IngestMode::Create, vec![Ok(upload(3))]).await.unwrap(), 3);
    assert_eq!(answer(&mut client, "SELECT count(*) FROM t").await, "7");
    assert_eq!(answer(&mut client, "SELECT count(*) FROM uploaded").await, "3");
    let error = client.execute_update("INSERT INTO t VALUES (1) LABEL 'k'").await.unwrap_err();
    assert_eq!(error.code(), Some("INVALID_PARAMETER"));
    assert_eq!(answer(&mut client, known).await, before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_the_same_by_its_rows_and_not_by_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    let append = IngestMode::CreateAppend;
    assert_eq!(ingest(&client, "k", append, vec![Ok(upload(100))]).await.unwrap(), 100);
    let cut = vec![Ok(upload(100).slice(0, 1)), Ok(upload(100).slice(1, 99))];
    assert_eq!(ingest(&client, "k", append, cut).await.unwrap(), 100);
    for (mode, rows) in [(append, upload(99)), (IngestMode::Replace, upload(100))] {
        let error = ingest(&client, "k", mode, vec![Ok(rows)]).await.unwrap_err();
        assert_eq!(error.code(), Some("INVALID_PARAMETER"), "{error}");
        assert!(error.to_string().starts_with("request key \"k\" was used for another statement"));
    }
    assert_eq!(answer(&mut client, "SELECT count(*) FROM uploaded").await, "100");
    // A client that breaks off leaves a key that may be used again.
    let broken = vec![Ok(upload(5)), Err(ClientError::Local("the file ends here".into()))];
    ingest(&client, "broken", append, broken).await.unwrap_err();
    assert_eq!(ingest(&client, "broken", append, vec![Ok(upload(6))]).await.unwrap(), 6);
    assert_eq!(answer(&mut client, "SELECT count(*) FROM uploaded").await, "106");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_call_names_one_statement_that_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    client.execute_update("CREATE TABLE t (n BIGINT)").await.unwrap();
    let mut keyed = client.with_request_key("k").unwrap();
    for (sql, expected) in [
        ("SELECT 1", "SELECT cannot have a request key"),
        ("VACUUM t", "VACUUM cannot have a request key"),
        ("SET timezone = 'UTC'", "SET cannot have a request key"),
        (
            "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)",
            "request key \"k\" names one statement, and 2 were sent",
        ),
        (
            "INSERT INTO t VALUES (1) LABEL 'other'",
            "the statement has the label \"other\" and its call the request key \"k\"",
        ),
    ] {
        let error = keyed.execute_update(sql).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{sql}: {error}");
    }
    assert_eq!(answer(&mut client, "SELECT count(*) FROM t").await, "0");
    keyed.execute_update("INSERT INTO t VALUES (1) LABEL 'k'").await.unwrap();
    // The same statement by another call of the protocol, prepared.
    let mut prepared = keyed.prepare("INSERT INTO t VALUES (1)").await.unwrap();
    prepared.run(None).await.unwrap();
    assert_eq!(answer(&mut client, "SELECT count(*) FROM t").await, "1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_of_parameters_are_part_of_what_a_key_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    client.execute_update("CREATE TABLE t (n BIGINT, s VARCHAR)").await.unwrap();
    let insert = "INSERT INTO t VALUES ($1, $2) LABEL 'k'";
    let mut prepared = client.prepare(insert).await.unwrap();
    for rows in [upload(3), upload(3)] {
        prepared.run(Some(rows)).await.unwrap();
    }
    for rows in [upload(2), upload(4).slice(1, 3)] {
        let error = prepared.run(Some(rows)).await.err().unwrap();
        assert_eq!(error.code(), Some("INVALID_PARAMETER"), "{error}");
    }
    assert_eq!(answer(&mut client, "SELECT count(*), sum(n) FROM t").await, "3|3");
    cluster.stop().await;
}
