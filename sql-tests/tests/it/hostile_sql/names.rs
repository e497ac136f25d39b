//! Names that are SQL, and names that come to mean another table (FAULTS A5: 22 to 24).

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use basalt_sql_tests::client::{Client, ClientError, IngestMode, IngestTarget};
use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::arena::{Arena, eventually};

/// Names that would do something if they were pasted into a text.
const EVIL: [&str; 12] = [
    "x\"; DROP TABLE small; --",
    "x\" (a INT); DROP TABLE small; --",
    "'); DELETE FROM small; --",
    "' OR ''='",
    "$1",
    "?",
    ":name",
    "select",
    "/*",
    "--",
    "{0} %s \\",
    "DEFAULT",
];

#[tokio::test(flavor = "multi_thread")]
async fn names_are_quoted_wherever_we_write_sql_ourselves() {
    let mut arena = Arena::start().await;
    for name in EVIL {
        let (quoted, text) = (name.replace('"', "\"\""), name.replace('\'', "''"));
        let (q, t) = (format!("\"{quoted}\""), format!("'{text}'"));
        arena.done(&format!("CREATE SCHEMA {q}")).await;
        let table = format!("{q}.{q}");
        arena
            .done(&format!(
                "CREATE TABLE {table} ({q} INT DEFAULT 7 NOT NULL, s VARCHAR DEFAULT {t}, \
                 CONSTRAINT {q} PRIMARY KEY ({q})) DISTKEY({q}) SORTKEY({q})"
            ))
            .await;
        arena.done(&format!("INSERT INTO {table} DEFAULT VALUES")).await;
        arena.done(&format!("INSERT INTO {table} ({q}) VALUES (8)")).await;
        arena.done(&format!("INSERT INTO {table} VALUES (9, 'other')")).await;
        arena.done(&format!("UPDATE {table} SET {q} = DEFAULT, s = DEFAULT WHERE {q} = 9")).await;
        arena.done(&format!("UPDATE {table} SET s = s || {t} WHERE {q} = 8")).await;
        arena.done(&format!("DELETE FROM {table} WHERE {q} = 8 AND s = {t} || {t}")).await;
        arena.done(&format!("VACUUM {table}")).await;
        arena.answers(&format!("SELECT count(*) FROM {table} WHERE s = {t}"), "2").await;
        // Along a search path, and a view that keeps what the name meant.
        arena.done(&format!("SET search_path TO {q}")).await;
        arena.answers(&format!("SELECT sum({q}) FROM {q}"), "14").await;
        arena.done(&format!("CREATE VIEW public.{q} ({q}, s) AS SELECT {q}, s FROM {q}")).await;
        arena.done("RESET search_path").await;
        arena.answers(&format!("SELECT count({q}) FROM public.{q} WHERE s = {t}"), "2").await;
        for shown in [format!("TABLE {table}"), format!("VIEW public.{q}")] {
            let create = arena.run(&format!("SHOW CREATE {shown}")).await.unwrap();
            let (_, create) = create.split_once('|').unwrap();
            arena.done(&format!("DROP {shown}")).await;
            let made = arena.run(create).await;
            assert_eq!(made.unwrap_or_else(|error| panic!("{create}: {error}")), "done");
            let again = arena.run(&format!("SHOW CREATE {shown}")).await.unwrap();
            assert_eq!(again.split_once('|').unwrap().1, create);
        }
        let listed = format!(
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = {t} \
             AND table_name = {t} AND column_name = {t}"
        );
        arena.answers(&listed, "1").await;
        arena.done(&format!("DROP VIEW public.{q}")).await;
        arena.done(&format!("DROP SCHEMA {q} CASCADE")).await;
        arena.is_alive(name).await;
    }
    arena.stop().await;
}

/// A write into the table `moved`, by a client.
type Write = fn(Client) -> LocalBoxFuture<'static, Result<u64, ClientError>>;

/// Runs a write until it is under way, and puts another table of the same name in the place of
/// this one. Returns the error, or nothing when the write did not meet the change.
async fn replaced_under(arena: &mut Arena, text: &str, write: Write) -> Option<ClientError> {
    arena.done("CREATE TABLE moved (v BIGINT)").await;
    let registry = arena.cluster().coordinator().statements().registry().clone();
    let begun = || registry.list().iter().filter(|run| run.text == text).count();
    let before = begun();
    let writing = write(arena.client.clone());
    let replacing = async {
        eventually("the write begins", || begun() > before).await;
        arena.done("DROP TABLE moved").await;
        arena.done("CREATE TABLE moved (v BIGINT, other VARCHAR)").await;
    };
    let (written, ()) = tokio::join!(writing, replacing);
    written.err()
}

/// A write that meets the change is a conflict, and no row of it is anywhere.
async fn check_replaced(text: &str, write: Write) {
    let mut arena = Arena::start().await;
    // When exactly a write looks for its table cannot be seen from here: it may come too late.
    for _ in 0..20 {
        let error = replaced_under(&mut arena, text, write).await;
        if let Some(error) = &error {
            let codes = ["CONFLICT", "UNDEFINED_TABLE", "INVALID_STATEMENT", "UNDEFINED_COLUMN"];
            arena.is_refusal(error, &codes, text).await;
            arena.answers("SELECT count(*) FROM moved", "0").await;
        }
        arena.done("DROP TABLE moved").await;
        if error.is_some_and(|error| error.code() == Some("CONFLICT")) {
            return arena.stop().await;
        }
    }
    panic!("{text}: the table was never replaced in the middle of it");
}

const INSERT: &str = "INSERT INTO moved (v) SELECT value FROM generate_series(1, 500000)";

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_never_reaches_another_table_of_the_same_name() {
    let insert: Write =
        |mut client| async move { client.execute_update(INSERT).await }.boxed_local();
    check_replaced(INSERT, insert).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_never_reaches_another_table_of_the_same_name() {
    check_replaced("INGEST moved", |client| upload(client).boxed_local()).await;
}

async fn upload(mut client: Client) -> Result<u64, ClientError> {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let rows = RecordBatch::try_from_iter([("v", values)]).unwrap();
    let target = IngestTarget {
        schema: None,
        table: "moved".to_owned(),
        mode: IngestMode::Append,
        options: std::collections::HashMap::new(),
    };
    let batches: Vec<Result<_, ClientError>> =
        vec![rows.clone(); 500].into_iter().map(Ok).collect();
    client.ingest(target, rows.schema(), futures::stream::iter(batches)).await
}
