//! What is declared: `SHOW CREATE TABLE` gives a statement that makes the same table again, all of
//! it survives a restart, and whatever writes rows uses it. A search path is its connection's own.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use basalt_engine::files::AllowedRoots;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;

/// Tables that use everything a declaration can say, each with the name of the table.
const TABLES: [(&str, &str); 5] = [
    ("s.plain", "CREATE TABLE s.plain (a INTEGER)"),
    (
        "s.\"Odd Name\"",
        "CREATE TABLE s.\"Odd Name\" (\"select\" INT8 DEFAULT -(1 + 2) NOT NULL, \"A\"\"b\" \
         VARCHAR(7) DEFAULT 'it''s', c CHAR(2) UNIQUE, d DATE DEFAULT current_date, PRIMARY KEY \
         (c, \"select\")) DISTKEY (\"select\") SORTKEY (\"A\"\"b\", c)",
    ),
    (
        "s.kinds",
        "CREATE TABLE s.kinds (a TINYINT, b SMALLINT UNSIGNED, c REAL, d DOUBLE, e DECIMAL(38, 0), \
         f TIMESTAMP, g TIMESTAMP(0), h TIMESTAMPTZ(3), i TIME(6), j TIME, k BYTEA, l TEXT[][], \
         m STRUCT<x INT, \"Y\" TEXT[]>, n MAP(TEXT, DECIMAL(5, 2)), o INTERVAL, p BOOLEAN) \
         DISTSTYLE EVEN",
    ),
    (
        "s.written",
        "CREATE TABLE s.written (a INTEGER ENCODE delta, b VARCHAR(9) NOT NULL ENCODE bytedict, c \
         DOUBLE DEFAULT 1 + 2 ENCODE RAW, d TEXT ENCODE lz4 DEFAULT 'encode', e BIGINT ENCODE auto, \
         f TEXT[] ENCODE zstd, \"encode\" TIMESTAMP DEFAULT now() ENCODE delta UNIQUE) SORTKEY (a)",
    ),
    (
        "s.child",
        "CREATE TABLE s.child (p BIGINT, q CHAR(2), me INTEGER, CONSTRAINT up FOREIGN KEY (q, p) \
         REFERENCES s.\"Odd Name\", UNIQUE (me), FOREIGN KEY (me) REFERENCES s.child (me)) \
         DISTSTYLE ALL",
    ),
];

async fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let (_, batches) = client.query_all(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut rows = Vec::new();
    for batch in &batches {
        text::append_rows(batch, &mut rows).unwrap();
    }
    rows
}

/// All that SQL tells about a table.
async fn described(client: &mut Client, table: &str) -> [Vec<Vec<String>>; 3] {
    let name = table.trim_start_matches("s.").trim_matches('"');
    [
        rows(client, &format!("DESCRIBE {table}")).await,
        rows(client, &format!("SHOW CREATE TABLE {table}")).await,
        rows(
            client,
            &format!(
                "SELECT distribution, sort_key FROM sys.tables WHERE table_name = '{name}' AND \
                 schema_name = 's'"
            ),
        )
        .await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_show_create_says_makes_the_same_table_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(dir.path(), 1);
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    client.execute_update("CREATE SCHEMA s").await.unwrap();
    let mut before = Vec::new();
    for (table, create) in TABLES {
        client.execute_update(create).await.unwrap_or_else(|e| panic!("{create}: {e}"));
        before.push(described(&mut client, table).await);
    }
    client.execute_update("DROP SCHEMA s CASCADE; CREATE SCHEMA s").await.unwrap();
    for ((table, _), before) in TABLES.iter().zip(&before) {
        let create = &before[1][0][1];
        client.execute_update(create).await.unwrap_or_else(|e| panic!("{create}: {e}"));
        assert_eq!(&described(&mut client, table).await, before, "{create}");
    }
    drop(client);
    cluster.stop().await;

    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for ((table, _), before) in TABLES.iter().zip(&before) {
        assert_eq!(&described(&mut client, table).await, before, "{table} after a restart");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_path_belongs_to_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 1)).await.unwrap();
    let mut one = Client::connect(&cluster.url()).await.unwrap();
    let mut other = Client::connect(&cluster.url()).await.unwrap();
    one.execute_update("CREATE SCHEMA s; SET search_path TO s; CREATE TABLE t AS SELECT 1 AS n")
        .await
        .unwrap();
    assert_eq!(rows(&mut one, "SELECT n, current_schema() FROM t").await, [["1", "s"]]);
    let error = other.query_all("SELECT n FROM t").await.err().unwrap();
    assert_eq!(error.sqlstate(), Some("42P01"));
    assert_eq!(rows(&mut other, "SELECT n, current_schema() FROM s.t").await, [["1", "public"]]);
    assert_eq!(rows(&mut one, "SHOW search_path").await[0][1], "s");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_parameters_use_defaults_and_keep_to_lengths() {
    let dir = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let mut config = EmbeddedConfig::new(dir.path(), 2);
    config.allowed_roots = AllowedRoots::new([files.path()]).unwrap();
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let create =
        "CREATE TABLE t (k INTEGER NOT NULL, s VARCHAR(3) DEFAULT 'no', n INTEGER DEFAULT 7)";
    client.execute_update(create).await.unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    // Columns that COPY's list leaves out get their defaults; a NULL in the file stays NULL.
    let short = file("short.csv", "k,n\n1,\n2,5\n");
    client.execute_update(&format!("COPY t (k, n) FROM '{short}'")).await.unwrap();
    let long = file("long.csv", "k,s,n\n3,abcd,1\n");
    let error = client.execute_update(&format!("COPY t FROM '{long}'")).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22000"), "{error}");
    // A column that the files lack is an error without a list.
    let error = client.execute_update(&format!("COPY t FROM '{short}'")).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42703"), "{error}");

    let mut insert = client.prepare("INSERT INTO t (k, s) VALUES (?, DEFAULT)").await.unwrap();
    let keys: ArrayRef = Arc::new(Int32Array::from(vec![10, 11]));
    let parameters = RecordBatch::try_from_iter([("1", keys)]).unwrap();
    for row in 0..2 {
        insert.run(Some(parameters.slice(row, 1))).await.unwrap();
    }
    assert_eq!(
        rows(&mut client, "SELECT k, s, n FROM t ORDER BY k, s").await,
        [["1", "no", "NULL"], ["2", "no", "5"], ["10", "no", "7"], ["11", "no", "7"]]
    );
    cluster.stop().await;
}
