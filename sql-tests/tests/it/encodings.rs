//! Encodings end to end: whatever writes rows writes them as their columns declare, answers do not
//! depend on it, and what `ANALYZE COMPRESSION` promises is what it brings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use basalt_engine::files::AllowedRoots;
use basalt_sql_tests::client::{Client, IngestMode, IngestTarget};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;
use futures::stream;
use parquet::file::reader::{FileReader, SerializedFileReader};

async fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let (_, batches) = client.query_all(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut rows = Vec::new();
    batches.iter().for_each(|batch| text::append_rows(batch, &mut rows).unwrap());
    rows
}

async fn update(client: &mut Client, sql: &str) -> u64 {
    client.execute_update(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Codec and encodings of every column in all Parquet files below a folder, as another reader of
/// Parquet finds them, by the columns' names.
fn on_disk(folder: &Path, found: &mut BTreeMap<String, Vec<String>>) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += on_disk(&path, found);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        files += 1;
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        for chunk in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            for encoding in chunk.page_encoding_stats_mask().unwrap().encodings() {
                let codec = chunk.compression().to_string();
                let codec = codec.split('(').next().unwrap_or_default();
                let text = format!("{codec} {encoding}");
                let of_column = found.entry(chunk.column_descr().name().to_owned()).or_default();
                if !of_column.contains(&text) {
                    of_column.push(text);
                }
            }
        }
    }
    files
}

/// Every file of the first worker has what the columns `n`, `s`, `k` and `z` declare.
fn check_files(data: &Path, after: &str) {
    let mut found = BTreeMap::new();
    let files = on_disk(&data.join("worker-0/chunks"), &mut found);
    assert!(files > 0, "{after}: there are files");
    let one = |column: &str| match found[column].as_slice() {
        [only] => only.clone(),
        several => panic!("{after}: column {column} has {several:?}"),
    };
    assert_eq!(one("n"), "UNCOMPRESSED DELTA_BINARY_PACKED", "{after}");
    assert_eq!(one("z"), "ZSTD PLAIN", "{after}");
    assert_eq!(one("r"), "UNCOMPRESSED PLAIN", "{after}");
    assert!(one("s").starts_with("UNCOMPRESSED ") && one("s").contains("DICTIONARY"), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_writes_rows_writes_them_as_their_columns_declare() {
    let dir = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let mut config = EmbeddedConfig::new(dir.path(), 1);
    config.allowed_roots = AllowedRoots::new([files.path()]).unwrap();
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let columns = "(n BIGINT ENCODE delta, s VARCHAR ENCODE bytedict, r BIGINT ENCODE raw, \
                   z VARCHAR ENCODE zstd)";
    // Random numbers and few texts: a measurement would choose others.
    let source = "SELECT value * 7919 % 100003 AS n, 's' || value AS s, value % 3 AS r, \
                  'z' || (value % 10) AS z FROM generate_series(1, 2000) AS g(value)";

    update(&mut client, &format!("CREATE TABLE t {columns}")).await;
    update(&mut client, &format!("INSERT INTO t {source}")).await;
    check_files(dir.path(), "INSERT");

    update(&mut client, &format!("CREATE TABLE made {columns} DISTSTYLE ALL AS {source}")).await;
    check_files(dir.path(), "CREATE TABLE AS");

    let csv = files.path().join("rows.csv");
    let text: String = (0..500).map(|n| format!("{},s{n},{},z\n", n * 37 % 501, n % 2)).collect();
    std::fs::write(&csv, format!("n,s,r,z\n{text}")).unwrap();
    update(&mut client, &format!("COPY t FROM '{}'", csv.display())).await;
    check_files(dir.path(), "COPY");

    let numbers = || Arc::new(Int64Array::from_iter_values((0..700).map(|n| n * 37 % 701)));
    let texts = || Arc::new(StringArray::from_iter_values((0..700).map(|n| format!("u{n}"))));
    let batch = RecordBatch::try_from_iter([
        ("n", numbers() as ArrayRef),
        ("s", texts() as ArrayRef),
        ("r", numbers() as ArrayRef),
        ("z", texts() as ArrayRef),
    ]);
    let batch = batch.unwrap();
    let target = IngestTarget {
        schema: None,
        table: "t".to_owned(),
        mode: IngestMode::Append,
        options: Default::default(),
    };
    client.ingest(target, batch.schema(), stream::iter([Ok(batch)])).await.unwrap();
    check_files(dir.path(), "an upload");

    assert_eq!(update(&mut client, "UPDATE t SET n = n + 1, z = 'new' WHERE r = 1").await, 918);
    check_files(dir.path(), "UPDATE");

    update(&mut client, "VACUUM").await;
    check_files(dir.path(), "VACUUM");
    let count = "SELECT count(*), count(DISTINCT s) FROM t";
    let before = rows(&mut client, count).await;
    assert_eq!(before, [["3200", "2701"]]);
    drop(client);
    cluster.stop().await;

    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    update(&mut client, &format!("INSERT INTO t {source}")).await;
    check_files(dir.path(), "a restart and INSERT");
    cluster.stop().await;
}

/// Queries over what the encodings hold: filters, groups, joins, order, rows by position.
const QUERIES: [&str; 7] = [
    "SELECT count(*), count(i), sum(i), min(d), max(d), sum(p), count(DISTINCT s) FROM $",
    "SELECT s, count(*), sum(f), min(t) FROM $ GROUP BY s ORDER BY s",
    "SELECT * FROM $ WHERE i BETWEEN 400 AND 404 OR s = 'text 3' AND i % 500 = 3 ORDER BY i, s",
    "SELECT * FROM $ ORDER BY t DESC NULLS LAST, i LIMIT 5",
    "SELECT count(*) FROM $ x JOIN $ y ON x.i = y.i AND x.s = y.s WHERE y.d > DATE '2020-03-01'",
    "SELECT i FROM $ WHERE s LIKE '%9' AND b ORDER BY i",
    "SELECT l, count(*) FROM $ WHERE p < 0.5 GROUP BY l ORDER BY count(*), l LIMIT 9",
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_depend_on_encodings() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 2)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let types = [
        ("i", "INTEGER"),
        ("s", "VARCHAR"),
        ("d", "DATE"),
        ("p", "DECIMAL(9, 3)"),
        ("f", "DOUBLE"),
        ("t", "TIMESTAMP"),
        ("b", "BOOLEAN"),
        ("l", "INTEGER[]"),
    ];
    let source = "SELECT CASE WHEN value % 11 = 0 THEN NULL ELSE value END, \
         CASE WHEN value % 13 = 0 THEN NULL ELSE 'text ' || (value % 40) END, \
         DATE '2020-01-01' + CAST(value % 90 AS INTEGER), (value % 1000) / 1000.0, value / 8.0, \
         CASE WHEN value % 17 = 0 THEN NULL ELSE \
         to_timestamp(CAST(value * 7919 % 100000 AS BIGINT)) END, \
         value % 3 = 0, [value % 4, NULL] FROM generate_series(1, 4000) AS g(value)";
    let mut expected: Vec<Vec<Vec<String>>> = Vec::new();
    for encode in ["auto", "raw", "bytedict", "delta", "lz4", "zstd"] {
        let mut columns = Vec::new();
        for (name, data_type) in types {
            // A column that cannot have it says so by itself.
            let probe = format!("CREATE TABLE probe ({name} {data_type} ENCODE {encode})");
            let declared = match client.execute_update(&probe).await {
                Ok(_) => {
                    update(&mut client, "DROP TABLE probe").await;
                    encode
                }
                Err(error) => {
                    assert_eq!(error.sqlstate(), Some("42804"), "{error}");
                    "auto"
                }
            };
            columns.push(format!("{name} {data_type} ENCODE {declared}"));
        }
        let table = format!("as_{encode}");
        let columns = columns.join(", ");
        update(&mut client, &format!("CREATE TABLE {table} ({columns}) AS {source}")).await;
        let declared = format!(
            "SELECT count(*) FROM sys.columns WHERE table_name = '{table}' AND encode = '{encode}'"
        );
        let declaring: usize = rows(&mut client, &declared).await[0][0].parse().unwrap();
        assert!(declaring >= 4, "{table}: {declaring} columns declare it");
        let mut answers = Vec::new();
        for query in QUERIES {
            answers.push(rows(&mut client, &query.replace('$', &table)).await);
        }
        match expected.is_empty() {
            true => expected = answers,
            false => assert_eq!(answers, expected, "{encode}"),
        }
    }
    assert!(expected.iter().all(|answer| !answer.is_empty()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_suggested_brings_what_is_promised() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 2)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let source = "SELECT value AS k, 'place ' || (value % 6) AS place, \
                  'a comment that repeats its words, words, words: ' || (value * 7919 % 999983) \
                  AS note, random() AS noise FROM generate_series(1, 150000) AS g(value)";
    let raw = "(k BIGINT ENCODE raw, place VARCHAR ENCODE raw, note VARCHAR ENCODE raw, noise \
               DOUBLE ENCODE raw) SORTKEY (k)";
    update(&mut client, &format!("CREATE TABLE measured {raw} AS {source}")).await;
    let advice = rows(&mut client, "ANALYZE COMPRESSION measured").await;
    let again = rows(&mut client, "ANALYZE COMPRESSION measured").await;
    assert_eq!(advice, again, "a measurement is repeatable");
    let named: Vec<_> = advice.iter().map(|row| (row[1].as_str(), row[2].as_str())).collect();
    assert_eq!(named[0], ("k", "delta"));
    assert_eq!(named[1], ("place", "bytedict"));
    assert!(["lz4", "zstd"].contains(&named[2].1), "{named:?}");
    assert_eq!(named[3], ("noise", "raw"));
    assert_eq!(advice[3][3], "0");

    let declared: Vec<_> = ["BIGINT", "VARCHAR", "VARCHAR", "DOUBLE"]
        .iter()
        .zip(&named)
        .map(|(data_type, (column, encoding))| format!("{column} {data_type} ENCODE {encoding}"))
        .collect();
    let create = format!(
        "CREATE TABLE followed ({}) SORTKEY (k) AS SELECT * FROM measured",
        declared.join(", ")
    );
    update(&mut client, &create).await;
    let bytes = "SELECT bytes FROM sys.columns WHERE table_name = ";
    let before = rows(&mut client, &format!("{bytes} 'measured' ORDER BY column_id")).await;
    let after = rows(&mut client, &format!("{bytes} 'followed' ORDER BY column_id")).await;
    for ((row, before), after) in advice.iter().zip(&before).zip(&after) {
        assert_eq!(row[6], before[0], "bytes that are stored now: {row:?}");
        let number = |text: &str| text.parse::<f64>().unwrap();
        let brought = 100.0 * (1.0 - number(&after[0]) / number(&before[0]));
        let promised = number(&row[3]);
        assert!((brought - promised).abs() < 5.0, "{row:?}: {brought} per cent");
    }
    for row in rows(&mut client, "ANALYZE COMPRESSION followed").await {
        assert_eq!(row[2], row[5], "nothing is better: {row:?}");
        assert_eq!(row[3], "0", "{row:?}");
    }

    // Prepared, as drivers send it: the schema that is announced is the one that comes.
    let mut prepared = client.prepare("ANALYZE COMPRESSION measured (note, k)").await.unwrap();
    let _ = prepared.run(None).await.unwrap();
    let two = rows(&mut client, "ANALYZE COMPRESSION measured (note, k)").await;
    assert_eq!(two, [advice[2].clone(), advice[0].clone()]);
    cluster.stop().await;
}
