//! Files, URLs and settings of the server (FAULTS A5: 10 to 14, 42).

use datafusion::config::ConfigOptions;

use super::arena::Arena;

#[tokio::test(flavor = "multi_thread")]
async fn sql_reads_nothing_outside_its_folders() {
    let mut arena = Arena::start().await;
    let readable = arena.readable();
    let secret = readable.with_file_name("secret.csv");
    std::fs::write(&secret, "n,s\n1,secret\n").unwrap();
    std::os::unix::fs::symlink(&secret, readable.join("link.csv")).unwrap();
    std::os::unix::fs::symlink("/", readable.join("root")).unwrap();
    let folder = readable.to_str().unwrap();
    let denied = [
        "/etc/passwd".to_owned(),
        "/proc/self/environ".to_owned(),
        "/dev/zero".to_owned(),
        "/etc/*".to_owned(),
        secret.to_str().unwrap().to_owned(),
        format!("{folder}/../secret.csv"),
        format!("{folder}/link.csv"),
        format!("{folder}/root/etc/passwd"),
        format!("{folder}/*.csv"),
        format!("{folder}/no/../../secret.csv"),
        "secret.csv".to_owned(),
        "../secret.csv".to_owned(),
        arena.data().join("coordinator/cluster.secret").to_str().unwrap().to_owned(),
    ];
    for path in &denied {
        for function in ["read_csv", "read_parquet"] {
            let sql = format!("SELECT * FROM {function}('{path}')");
            let error = arena.refuses(&sql, "PERMISSION_DENIED", "outside the folders").await;
            assert!(error.hint.unwrap_or_default().contains("--allow-path"), "{path}");
        }
        let copy = format!("COPY small FROM '{path}' FORMAT CSV");
        arena.refuses(&copy, "PERMISSION_DENIED", "outside the folders").await;
    }
    for url in [
        "file:///etc/passwd",
        "FILE:///proc/self/environ",
        "s3://bucket/key.csv",
        "http://169.254.169.254/latest/meta-data/",
        "https://localhost/x.parquet",
        "gs://bucket/x",
    ] {
        let read = format!("SELECT * FROM read_csv('{url}')");
        arena.refuses(&read, "FEATURE_NOT_SUPPORTED", "is a URL").await;
        let copy = format!("COPY small FROM '{url}' FORMAT CSV");
        arena.refuses(&copy, "FEATURE_NOT_SUPPORTED", "is a URL").await;
        arena.refuses(&format!("SELECT * FROM '{url}'"), "UNDEFINED_TABLE", "").await;
    }
    for path in denied.iter().take(4) {
        arena.refuses(&format!("SELECT * FROM '{path}'"), "UNDEFINED_TABLE", "").await;
        arena.refuses(&format!("SELECT * FROM \"{path}\""), "UNDEFINED_TABLE", "").await;
    }
    // What is no file is refused before it is opened: a pipe would wait for its other end.
    let pipe = readable.join("pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let copy = format!("COPY small FROM '{}'", pipe.display());
    let error = arena.run(&copy).await.unwrap_err();
    assert_eq!(error.code(), Some("SOURCE_FILE"), "{error}");
    arena.answers("SELECT count(*) FROM small", "3").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_writes_no_files_and_registers_none() {
    let mut arena = Arena::start().await;
    let target = arena.readable().join("out");
    let target = target.to_str().unwrap();
    for sql in [
        format!("COPY small TO '{target}.csv'"),
        format!("COPY (SELECT * FROM small) TO '{target}'"),
        format!("COPY (SELECT 1) TO '{target}/../../x' STORED AS CSV"),
        "COPY small TO '/root/.ssh/authorized_keys'".to_owned(),
        format!("UNLOAD ('SELECT 1') TO '{target}'"),
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "CREATE EXTERNAL TABLE x (a INT) STORED AS PARQUET LOCATION 'file:///proc/self/environ'"
            .to_owned(),
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION 's3://bucket/'".to_owned(),
        "CREATE UNBOUNDED EXTERNAL TABLE x STORED AS CSV LOCATION '/dev/zero'".to_owned(),
        "CREATE FUNCTION f() RETURNS INT LANGUAGE c AS '/lib/x.so'".to_owned(),
        "LOAD '/lib/x.so'".to_owned(),
        "ATTACH '/etc/passwd' AS x".to_owned(),
        "INSERT OVERWRITE small SELECT 1, 'x'".to_owned(),
        "EXPLAIN COPY small TO '/tmp/x'".to_owned(),
    ] {
        arena.refuses_with_one_of(&sql, &["FEATURE_NOT_SUPPORTED", "SYNTAX_ERROR"]).await;
    }
    assert_eq!(std::fs::read_dir(arena.readable()).unwrap().count(), 0, "something was written");
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_changes_nothing_and_one_statement_is_one() {
    let mut arena = Arena::start().await;
    for change in [
        "INSERT INTO small VALUES (4, 'd')",
        "UPDATE small SET n = 0",
        "DELETE FROM small",
        "CREATE TABLE made AS SELECT 1 AS n",
        "CREATE TABLE made (n INT)",
        "DROP TABLE small",
        "COPY small FROM '/etc/passwd'",
        "VACUUM",
        "SET batch_rows = 1",
    ] {
        let sql = format!("EXPLAIN ANALYZE {change}");
        arena.refuses_with_one_of(&sql, &["FEATURE_NOT_SUPPORTED", "SYNTAX_ERROR"]).await;
        arena.answers("SELECT sum(n) FROM small", "6").await;
    }
    for script in ["SELECT 1; DROP TABLE small", "DELETE FROM small; SELECT 1"] {
        arena.refuses(script, "SYNTAX_ERROR", "more than one statement").await;
        let error = arena.client.prepare(script).await.err().unwrap();
        arena.is_refusal(&error, &["SYNTAX_ERROR"], script).await;
    }
    // What is sent as an update is a script, which ends with the first error.
    let script = "DELETE FROM nothing; DELETE FROM small";
    let error = arena.client.execute_update(script).await.unwrap_err();
    arena.is_refusal(&error, &["UNDEFINED_TABLE"], script).await;
    arena.answers("SELECT sum(n) FROM small", "6").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_changes_no_limits_of_the_server() {
    let mut arena = Arena::start().await;
    // Names that our own settings also go by; their bounds are those of our settings.
    let ours = [
        "datafusion.execution.target_partitions",
        "datafusion.execution.batch_size",
        "datafusion.execution.time_zone",
    ];
    let keys = ConfigOptions::default().entries().into_iter().map(|entry| entry.key);
    let runtime =
        ["memory_limit", "temp_directory", "max_temp_directory_size", "metadata_cache_limit"];
    let runtime = runtime.into_iter().map(|key| format!("datafusion.runtime.{key}"));
    let others =
        ["distributed.max_tasks_per_stage", "basalt.batch_rows", "work_mem", "search_paths"];
    let keys = keys.chain(runtime).chain(others.into_iter().map(str::to_owned));
    let mut refused = 0;
    for key in keys.filter(|key| !ours.contains(&key.as_str())) {
        for value in ["'1'", "'true'"] {
            let error = arena.run(&format!("SET {key} = {value}")).await.unwrap_err();
            let refused = (error.code(), error.sqlstate());
            assert_eq!(refused, (Some("INVALID_PARAMETER"), Some("22023")), "{key}: {error}");
            let hint = error.server().and_then(|error| error.hint.clone()).unwrap_or_default();
            assert!(hint.contains("SHOW ALL"), "{key}: {hint}");
        }
        refused += 1;
    }
    arena.is_alive("SET").await;
    assert!(refused > 100, "DataFusion has some hundred settings, and {refused} were tried");
    for sql in [
        "SET target_partitions = 1000000",
        "SET datafusion.execution.target_partitions = 1000000",
        "SET datafusion.execution.batch_size = 0",
        "SET batch_rows = 9223372036854775807",
        "SET batch_rows = -1",
        "SET timezone = '../../etc/passwd'",
        "SET exchange_compression = 'bomb'",
    ] {
        arena.refuses(sql, "INVALID_PARAMETER", "cannot be").await;
    }
    // The smallest batches are slow, and right.
    arena.done("SET batch_rows = 1").await;
    arena.answers("SELECT count(*), sum(n) FROM small", "3|6").await;
    arena.done("RESET ALL").await;
    arena.stop().await;
}
