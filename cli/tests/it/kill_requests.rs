//! Real processes, killed with SIGKILL at random moments of writes whose client sends each again,
//! under its request key, until it is acknowledged: every one is there exactly once (RULES 11).
//!
//! `BASALT_KILL_ROUNDS` (6) and `BASALT_KILL_SEED` (1) choose a longer or another run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use basalt_sql_tests::client::{Client, ClientError, IngestMode, IngestTarget};
use futures::stream;
use parquet::arrow::ArrowWriter;
use tokio::sync::mpsc::UnboundedSender;

use crate::killable::{
    Choices, Cluster, KILL_AFTER_MAX_MS, RECOVERY_MAX, VICTIMS, from_environment, numbers,
};

/// Rows of every write, as many as the file has that COPY reads.
const ROWS: i64 = 1_000;

fn write_file(path: &Path) {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=ROWS));
    let batch = RecordBatch::try_from_iter([("n", n)]).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Sends the write of a number once, by one of the three ways there are.
async fn send(url: String, id: i64, file: PathBuf) -> Result<u64, ClientError> {
    let mut client = Client::connect(&url).await?;
    match id % 3 {
        0 => {
            let rows = format!("SELECT {id}, value FROM generate_series(1, {ROWS})");
            client.execute_update(&format!("INSERT INTO inserted {rows} LABEL '{id}'")).await
        }
        1 => {
            let copy = format!("COPY copied FROM '{}' FORMAT PARQUET", file.display());
            client.with_request_key(&id.to_string())?.execute_update(&copy).await
        }
        _ => {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| id)));
            let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
            let (table, mode) = ("uploaded".to_owned(), IngestMode::Append);
            let target = IngestTarget { schema: None, table, mode, options: Default::default() };
            let keyed = client.with_request_key(&id.to_string());
            keyed?.ingest(target, batch.schema(), stream::iter([Ok(batch)])).await
        }
    }
}

/// Sends one write after the other, each until it is acknowledged; tells of each that is. Returns
/// how many had to be sent again.
async fn send_until_told_to_stop(
    url: String,
    file: PathBuf,
    stop: Arc<AtomicBool>,
    told: UnboundedSender<i64>,
) -> usize {
    let mut again = 0;
    for id in 1.. {
        loop {
            let sent = tokio::time::timeout(RECOVERY_MAX, send(url.clone(), id, file.clone()));
            match sent.await.expect("a statement hangs") {
                Ok(rows) => {
                    assert_eq!(rows, ROWS as u64, "write {id}");
                    break;
                }
                Err(error) => {
                    assert_ne!(error.code(), Some("INVALID_PARAMETER"), "write {id}: {error}");
                    again += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        if told.send(id).is_err() || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    again
}

/// Every write that was acknowledged is there once, and no other.
async fn check(url: &str, acknowledged: &[i64]) {
    let of_kind = |kind: i64| acknowledged.iter().filter(move |id| **id % 3 == kind);
    for (kind, table) in [(0, "inserted"), (2, "uploaded")] {
        let counts = format!("SELECT id, count(*) FROM {table} GROUP BY id");
        let found: BTreeMap<i64, i64> =
            numbers(url, &counts).await.into_iter().map(|row| (row[0], row[1])).collect();
        let expected: BTreeMap<i64, i64> = of_kind(kind).map(|id| (*id, ROWS)).collect();
        assert_eq!(found, expected, "{table}");
    }
    let copied = numbers(url, "SELECT count(*) FROM copied").await[0][0];
    assert_eq!(copied, ROWS * i64::try_from(of_kind(1).count()).unwrap(), "copied");
    let known = "SELECT count(*), CAST(sum(rows_affected) AS BIGINT) FROM sys.requests \
                 WHERE state = 'COMMITTED' AND query_id IS DISTINCT FROM request";
    let all = i64::try_from(acknowledged.len()).unwrap();
    assert_eq!(numbers(url, known).await[0], [all, all * ROWS], "sys.requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_sent_again_through_sigkill_are_there_once() {
    let rounds = from_environment("BASALT_KILL_ROUNDS", 6);
    let seed = from_environment("BASALT_KILL_SEED", 1);
    let mut choices = Choices(seed);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("numbers.parquet");
    write_file(&file);
    let mut cluster = Cluster::start(dir.path());
    let mut client = Client::connect(&cluster.url).await.unwrap();
    for table in
        ["inserted (id BIGINT, n BIGINT) DISTKEY(n)", "copied (n BIGINT)", "uploaded (id BIGINT)"]
    {
        client.execute_update(&format!("CREATE TABLE {table}")).await.unwrap();
    }
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (url, told_to_stop) = (cluster.url.clone(), Arc::clone(&stop));
    // On a thread of its own: killing and starting processes blocks this one.
    let sending = tokio::task::spawn_blocking(move || {
        tokio::runtime::Handle::current().block_on(send_until_told_to_stop(
            url,
            file,
            told_to_stop,
            sender,
        ))
    });
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let next = tokio::time::timeout(RECOVERY_MAX, receiver.recv()).await;
        acknowledged.extend(next.expect("nothing is acknowledged any more"));
        // The moment is the fault that is injected, not a wait for something.
        tokio::time::sleep(Duration::from_millis(choices.below(KILL_AFTER_MAX_MS))).await;
        // The first rounds have every victim once.
        cluster.kill(if round < VICTIMS { round } else { choices.below(VICTIMS) });
        cluster.start_what_is_missing();
    }
    stop.store(true, Ordering::Relaxed);
    let again = tokio::time::timeout(RECOVERY_MAX, sending).await.expect("a write hangs").unwrap();
    while let Some(id) = receiver.recv().await {
        acknowledged.push(id);
    }
    check(&cluster.url, &acknowledged).await;
    println!(
        "{rounds} kills, seed {seed}: {} writes acknowledged, each there once; {again} sent again",
        acknowledged.len()
    );
}
