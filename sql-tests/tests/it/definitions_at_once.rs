//! Sessions that create and drop the same names at once: with IF [NOT] EXISTS or OR REPLACE all of
//! them succeed, without it one does, and the others read what somebody reads who comes later.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use basalt_sql_tests::client::{Client, IngestMode, IngestTarget};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;
use futures::future::join_all;

const SESSIONS: usize = 8;
/// Sessions meet by chance; in so many rounds they do, more than once in each.
const ROUNDS: usize = 12;

struct Crowd {
    _dir: tempfile::TempDir,
    cluster: EmbeddedCluster,
    clients: Vec<Client>,
}

impl Crowd {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 1)).await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..SESSIONS {
            clients.push(Client::connect(&cluster.url()).await.unwrap());
        }
        Self { _dir: dir, cluster, clients }
    }

    /// Sends a statement of each session's at once; returns the SQLSTATEs of those that failed.
    async fn at_once(&mut self, sql: impl Fn(usize) -> String) -> Vec<String> {
        let sent = self.clients.iter_mut().enumerate().map(async |(session, client)| {
            let error = client.execute_update(&sql(session)).await.err()?;
            Some(error.sqlstate().unwrap_or_else(|| panic!("{error:?}")).to_owned())
        });
        join_all(sent).await.into_iter().flatten().collect()
    }

    async fn all_succeed(&mut self, sql: &str) {
        let failed = self.at_once(|_| sql.to_owned()).await;
        assert!(failed.is_empty(), "{sql}: {failed:?}");
    }

    async fn one_succeeds(&mut self, sql: &str, state: &str) {
        let failed = self.at_once(|_| sql.to_owned()).await;
        assert_eq!(failed, vec![state; SESSIONS - 1], "{sql}");
    }

    async fn answers(&mut self, sql: &str, expected: &str) {
        let (_, batches) = self.clients[0].query_all(sql).await.unwrap();
        let mut rows = Vec::new();
        batches.iter().for_each(|batch| text::append_rows(batch, &mut rows).unwrap());
        assert_eq!(rows.concat().join("|"), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_may_exist_are_created_and_dropped_by_all() {
    let mut crowd = Crowd::start().await;
    for _ in 0..ROUNDS {
        crowd.all_succeed("CREATE TABLE IF NOT EXISTS t (a INT)").await;
        crowd.all_succeed("CREATE OR REPLACE TABLE t (a INT, b INT)").await;
        crowd.answers("SELECT count(a), count(b) FROM t", "0|0").await;
        crowd.all_succeed("DROP TABLE IF EXISTS t").await;
        crowd.all_succeed("CREATE OR REPLACE TABLE t (a INT)").await;
        crowd.all_succeed("DROP TABLE IF EXISTS t, nothing, t").await;
        crowd.all_succeed("CREATE TABLE IF NOT EXISTS filled AS SELECT 7 AS a").await;
        crowd.answers("SELECT a FROM filled", "7").await;
        crowd.all_succeed("DROP TABLE IF EXISTS filled").await;
    }
    crowd.answers("SELECT count(*) FROM sys.tables", "0").await;
    crowd.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once_and_dropped_once() {
    let mut crowd = Crowd::start().await;
    for _ in 0..ROUNDS {
        crowd.one_succeeds("CREATE TABLE t (a INT)", "42P07").await;
        crowd.one_succeeds("DROP TABLE t", "42P01").await;
        crowd.one_succeeds("CREATE TABLE t AS SELECT 1 AS a", "42P07").await;
        crowd.one_succeeds("DROP TABLE t, t", "42P01").await;
        crowd.one_succeeds("CREATE VIEW v AS SELECT 1 AS a", "42P07").await;
        crowd.one_succeeds("DROP VIEW v", "42P01").await;
        crowd.one_succeeds("CREATE SCHEMA s", "42P07").await;
        crowd.one_succeeds("DROP SCHEMA s", "42P01").await;
    }
    crowd.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_schemas_that_may_exist_are_created_and_dropped_by_all() {
    let mut crowd = Crowd::start().await;
    for _ in 0..ROUNDS {
        crowd.all_succeed("CREATE SCHEMA IF NOT EXISTS s").await;
        crowd.all_succeed("CREATE VIEW IF NOT EXISTS s.v AS SELECT 1 AS a").await;
        crowd.all_succeed("CREATE OR REPLACE VIEW s.v AS SELECT 2 AS a").await;
        crowd.answers("SELECT a FROM s.v", "2").await;
        crowd.all_succeed("DROP VIEW IF EXISTS s.v").await;
        crowd.all_succeed("CREATE TABLE IF NOT EXISTS s.t (a INT)").await;
        crowd.all_succeed("DROP SCHEMA IF EXISTS s CASCADE").await;
    }
    crowd.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_creates_and_who_drops_hinder_nobody() {
    let mut crowd = Crowd::start().await;
    for round in 0..ROUNDS {
        let mixed = |session: usize| match (session + round) % 4 {
            0 => "CREATE TABLE IF NOT EXISTS t (a INT)".to_owned(),
            1 => "DROP TABLE IF EXISTS t".to_owned(),
            2 => "CREATE OR REPLACE TABLE t (a INT)".to_owned(),
            _ => format!("CREATE TABLE IF NOT EXISTS other_{session} (a INT)"),
        };
        assert_eq!(crowd.at_once(mixed).await, Vec::<String>::new());
    }
    crowd.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_make_their_table_are_told_to_be_sent_again() {
    let mut crowd = Crowd::start().await;
    let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let rows = RecordBatch::try_from_iter([("n", values)]).unwrap();
    for _ in 0..ROUNDS {
        let sent = crowd.clients.iter_mut().map(async |client| {
            let target = IngestTarget {
                schema: None,
                table: "uploaded".to_owned(),
                mode: IngestMode::CreateAppend,
                options: HashMap::new(),
            };
            let batches = futures::stream::iter([Ok(rows.clone())]);
            client.ingest(target, rows.schema(), batches).await
        });
        let sent = join_all(sent).await;
        let arrived = sent.iter().filter(|result| result.is_ok()).count();
        for error in sent.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.sqlstate(), Some("40001"), "{error:?}");
        }
        crowd.answers("SELECT count(*) FROM uploaded", &(3 * arrived).to_string()).await;
        crowd.all_succeed("DROP TABLE IF EXISTS uploaded").await;
    }
    crowd.cluster.stop().await;
}
