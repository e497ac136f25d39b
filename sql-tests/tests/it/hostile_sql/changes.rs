//! Values that do not fit, statements that there are not, names that move (FAULTS A5: 17, 18, 21,
//! 23 to 25).

use arrow::array::{ArrayRef, Int32Array, NullArray, RecordBatch, StringArray};
use basalt_sql_tests::client::{Client, IngestMode, IngestTarget};
use std::sync::Arc;

use super::arena::Arena;

#[tokio::test(flavor = "multi_thread")]
async fn values_that_do_not_fit_are_refused_and_nothing_of_them_stays() {
    let mut arena = Arena::start().await;
    arena
        .done(
            "CREATE TABLE v (i SMALLINT, n INTEGER NOT NULL, d DECIMAL(4, 2), f DOUBLE, \
             t TIMESTAMP, day DATE, b BOOLEAN, s VARCHAR, z TIMESTAMPTZ)",
        )
        .await;
    for (columns, values, code) in [
        ("n", "(1, 2)", "INVALID_STATEMENT"),
        ("n, i", "(1)", "INVALID_STATEMENT"),
        ("n", "(1), (1, 2)", "INVALID_STATEMENT"),
        ("n, nope", "(1, 2)", "UNDEFINED_COLUMN"),
        ("n, n", "(1, 2)", "INVALID_STATEMENT"),
        ("n", "(NULL)", "NOT_NULL_VIOLATION"),
        ("i", "(1)", "NOT_NULL_VIOLATION"),
        ("n", "(2147483648)", "NUMERIC_OUT_OF_RANGE"),
        ("n", "(-2147483649)", "NUMERIC_OUT_OF_RANGE"),
        ("n, i", "(1, 32768)", "NUMERIC_OUT_OF_RANGE"),
        ("n", "('abc')", "DATA_EXCEPTION"),
        ("n", "('0x10')", "DATA_EXCEPTION"),
        ("n", "('')", "DATA_EXCEPTION"),
        ("n", "(1e10)", "NUMERIC_OUT_OF_RANGE"),
        ("n", "('NaN'::DOUBLE)", "NUMERIC_OUT_OF_RANGE"),
        ("n", "(99999999999999999999999999999999999999999)", "NUMERIC_OUT_OF_RANGE"),
        ("n, d", "(1, 123.4)", "NUMERIC_OUT_OF_RANGE"),
        ("n, d", "(1, 'NaN')", "DATA_EXCEPTION"),
        ("n, day", "(1, '2026-02-30')", "DATA_EXCEPTION"),
        ("n, day", "(1, '294277-01-01')", "DATA_EXCEPTION"),
        ("n, t", "(1, '294277-01-01 00:00:00')", "DATA_EXCEPTION"),
        ("n, t", "(1, '2026-01-01 25:00:00')", "DATA_EXCEPTION"),
        ("n, t", "(1, '2026-01-01 23:59:61')", "DATA_EXCEPTION"),
        ("n, b", "(1, 'perhaps')", "DATA_EXCEPTION"),
        ("n, z", "(1, '2026-01-01 00:00:00 Mars/Phobos')", "DATA_EXCEPTION"),
        ("n, z", "(1, '2026-01-01 00:00:00+99:99')", "DATA_EXCEPTION"),
        ("n, d", "(1, 'Infinity'::DOUBLE)", "NUMERIC_OUT_OF_RANGE"),
        ("n", "(1), (2), ('three')", "DATA_EXCEPTION"),
    ] {
        arena.refuses_with(&format!("INSERT INTO v ({columns}) VALUES {values}"), code).await;
    }
    for sql in [
        "INSERT INTO v SELECT * FROM small",
        "INSERT INTO v (n) SELECT value FROM generate_series(2147483640, 2147483650)",
        "INSERT INTO v (n) SELECT CASE WHEN value = 99999 THEN NULL ELSE value END FROM generate_series(1, 100000)",
        "INSERT INTO nope VALUES (1)",
        "INSERT INTO sys.tables VALUES (1)",
        "INSERT INTO information_schema.tables VALUES (1)",
    ] {
        arena.survives(sql).await;
    }
    arena.answers("SELECT count(*) FROM v", "0").await;
    // A leap second is the second after it or an error, never another value.
    arena.survives("INSERT INTO v (n, t) VALUES (60, '2016-12-31 23:59:60')").await;
    arena
        .answers(
            "SELECT count(*) FROM v WHERE t <> TIMESTAMP '2017-01-01 00:00:00' AND t <> TIMESTAMP '2016-12-31 23:59:59'",
            "0",
        )
        .await;
    // What a double can be, it is; but there is one zero.
    let doubles =
        "INSERT INTO v (n, f) VALUES (1, 'NaN'), (2, 'Infinity'), (3, '-Infinity'), (4, -0.0)";
    arena.done(doubles).await;
    arena.answers("SELECT f FROM v WHERE n < 5 ORDER BY n", "NaN\ninf\n-inf\n0.0").await;
    arena.done("DROP TABLE v").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_like_any_column_and_readers_keep_what_they_pinned() {
    let mut arena = Arena::start().await;
    arena.done("CREATE TABLE keyed (k INT, o INT, v INT) DISTKEY(k) SORTKEY(o)").await;
    arena.done("INSERT INTO keyed SELECT value, value % 10, 0 FROM generate_series(1, 1000)").await;
    arena.done("UPDATE keyed SET k = k + 100000, o = 10 - o").await;
    let moved = "SELECT count(*), count(DISTINCT k), min(k), sum(o) FROM keyed \
                 WHERE k > 100000 AND o BETWEEN 1 AND 10";
    arena.answers(moved, "1000|1000|100001|5500").await;
    arena.answers("SELECT count(*) FROM keyed AS a JOIN keyed AS b ON a.k = b.k", "1000").await;
    arena.answers("SELECT k FROM keyed WHERE k = 100500 AND o = 10", "100500").await;
    // More values than one for a row: an error, whichever would win.
    for (value, code) in [
        ("(SELECT o FROM keyed)", "DATA_EXCEPTION"),
        ("(SELECT b.o FROM keyed AS b WHERE b.k <> keyed.k)", "DATA_EXCEPTION"),
        ("(SELECT o, k FROM keyed)", "INVALID_STATEMENT"),
    ] {
        arena.refuses_with(&format!("UPDATE keyed SET v = {value}"), code).await;
        let from = "UPDATE keyed SET v = b.o FROM keyed AS b WHERE b.o = keyed.o";
        arena.refuses(from, "FEATURE_NOT_SUPPORTED", "UPDATE with FROM").await;
    }
    arena.answers("SELECT min(v), max(v), count(*) FROM keyed", "0|0|1000").await;
    // A reader has begun when all of its rows go.
    arena.done("CREATE TABLE gone AS SELECT value AS v FROM generate_series(1, 500000)").await;
    let mut rows = arena.client.query("SELECT v FROM gone").await.unwrap();
    let first = rows.next_batch().await.unwrap().unwrap();
    arena.done("DELETE FROM gone").await;
    arena.done("INSERT INTO gone VALUES (-1)").await;
    arena.done("VACUUM gone").await;
    let (mut count, mut sum) = (first.num_rows(), sum_of(&first));
    while let Some(batch) = rows.next_batch().await.unwrap() {
        count += batch.num_rows();
        sum += sum_of(&batch);
    }
    assert_eq!((count, sum), (500_000, 500_000 * 500_001 / 2), "all of the old rows and no other");
    arena.answers("SELECT count(*), sum(v) FROM gone", "1|-1").await;
    arena.done("DROP TABLE gone, keyed").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_there_are_not_are_refused_by_name() {
    let mut arena = Arena::start().await;
    for sql in [
        "UPDATE small SET n = b.n FROM small b",
        "UPDATE small SET (n) = (2)",
        "DELETE FROM small USING small b",
        "DELETE FROM small WHERE n = 1 RETURNING n",
        "MERGE INTO small USING small b ON true WHEN MATCHED THEN DELETE",
        "TRUNCATE small",
        "ALTER TABLE small ADD COLUMN x INT",
        "GRANT ALL ON small TO public",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
    ] {
        let word = sql.split(' ').next().unwrap();
        let error = arena.refuses(sql, "FEATURE_NOT_SUPPORTED", word).await;
        assert!(error.hint.is_some(), "{sql}");
    }
    for sql in ["BEGIN", "COMMIT", "ROLLBACK"] {
        arena.survives(sql).await;
    }
    arena.answers("SELECT sum(n) FROM small", "6").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_the_wrong_number_or_type_are_refused() {
    let mut arena = Arena::start().await;
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let row = |columns: &[&ArrayRef]| {
        let named =
            columns.iter().enumerate().map(|(at, array)| (format!("p{at}"), (*array).clone()));
        RecordBatch::try_from_iter(named).unwrap()
    };
    for (sql, parameters, code) in [
        ("SELECT $1 + $2", row(&[&numbers]), "INVALID_PARAMETER"),
        ("SELECT n FROM small WHERE n = $1", row(&[&numbers, &numbers]), "INVALID_PARAMETER"),
        ("INSERT INTO small VALUES ($1, 'x')", row(&[&texts]), "DATA_EXCEPTION"),
        ("SELECT n FROM small WHERE n = $1::INT", row(&[&texts]), "DATA_EXCEPTION"),
    ] {
        let error = arena.run_prepared(sql, parameters).await.unwrap_err();
        arena.is_refusal(&error, &[code], sql).await;
    }
    for sql in ["SELECT $0", "SELECT $70000", "SELECT ?, $1", "SELECT :name"] {
        arena.refuses(sql, "INVALID_STATEMENT", "").await;
    }
    arena.refuses("SELECT $1", "INVALID_PARAMETER", "1 parameters and 0 values").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_prepared_and_never_closed_are_bounded() {
    let mut arena = Arena::start().await;
    let mut other = Client::connect(arena.client.url()).await.unwrap();
    let long = format!("SELECT length('{}')", "x".repeat(15 << 20));
    let mut open = Vec::new();
    let refusal = loop {
        match arena.client.prepare(&long).await {
            Ok(prepared) => open.push(prepared),
            Err(error) => break error,
        }
        assert!(open.len() < 100, "texts of {} bytes are kept", open.len() * long.len());
    };
    arena.is_refusal(&refusal, &["RESOURCES_EXHAUSTED"], "PREPARE").await;
    assert!(refusal.server().unwrap().hint.is_some(), "{refusal}");
    // Another connection has room of its own, and this one has it again when one is closed.
    other.prepare(&long).await.unwrap();
    open.pop().unwrap().close().await.unwrap();
    open.push(arena.client.prepare(&long).await.unwrap());
    assert!(arena.client.prepare(&long).await.is_err());
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_and_made_again_under_a_scan_is_read_as_it_was() {
    let mut arena = Arena::start().await;
    let old = "CREATE TABLE moved AS SELECT value AS v FROM generate_series(1, 500000)";
    arena.done(old).await;
    let mut rows = arena.client.query("SELECT v FROM moved").await.unwrap();
    let first = rows.next_batch().await.unwrap().unwrap();
    arena.done("DROP TABLE moved").await;
    arena.done("CREATE TABLE moved AS SELECT -value AS v FROM generate_series(1, 10)").await;
    let mut count = first.num_rows();
    let mut sum = sum_of(&first);
    while let Some(batch) = rows.next_batch().await.unwrap() {
        count += batch.num_rows();
        sum += sum_of(&batch);
    }
    assert_eq!((count, sum), (500_000, 500_000 * 500_001 / 2), "all of the old rows and no other");
    arena.answers("SELECT count(*), sum(v) FROM moved", "10|-55").await;
    arena.done("DROP TABLE moved").await;
    arena.refuses("SELECT * FROM moved", "UNDEFINED_TABLE", "\"moved\" does not exist").await;
    arena.refuses("DROP TABLE moved", "UNDEFINED_TABLE", "moved").await;
    arena.done("DROP TABLE IF EXISTS moved").await;
    arena.stop().await;
}

fn sum_of(batch: &RecordBatch) -> i64 {
    use arrow::array::AsArray;
    let values = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
    values.values().iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_too_many_rows_in_no_bytes_are_refused_and_tiny_batches_are_loaded() {
    let mut arena = Arena::start().await;
    let target = || IngestTarget {
        schema: None,
        table: "small".to_owned(),
        mode: IngestMode::Append,
        options: std::collections::HashMap::new(),
    };
    let nulls = |rows: usize| {
        let null = || Arc::new(NullArray::new(rows)) as ArrayRef;
        RecordBatch::try_from_iter([("n", null()), ("s", null())]).unwrap()
    };
    let batch = nulls((1 << 31) - 1);
    let (schema, stream) = (batch.schema(), futures::stream::iter([Ok(batch)]));
    let error = arena.client.ingest(target(), schema, stream).await.unwrap_err();
    assert_eq!(error.code(), Some("RESOURCES_EXHAUSTED"), "{error}");
    arena.answers("SELECT count(*) FROM small", "3").await;
    arena.done("CREATE TABLE tiny AS SELECT n, s FROM small WHERE false").await;
    let tiny = || IngestTarget { table: "tiny".to_owned(), ..target() };
    let batches = std::iter::repeat_with(move || Ok(nulls(1))).take(20_000);
    let rows = arena.client.ingest(tiny(), nulls(0).schema(), futures::stream::iter(batches));
    assert_eq!(rows.await.unwrap(), 20_000);
    arena.answers("SELECT count(*), count(n) FROM tiny", "20000|0").await;
    arena.done("DROP TABLE tiny").await;
    arena.stop().await;
}
