//! Real processes, killed with SIGKILL at random moments of writes and started again: what was
//! acknowledged is there, and no half of a statement is ever seen (RULES 8, 9).
//!
//! Here statements that add rows; those that change them are in `kill_changes`.
//! `BASALT_KILL_ROUNDS` (6) and `BASALT_KILL_SEED` (1) choose a longer or another run of both:
//! `BASALT_KILL_ROUNDS=200 cargo test --workspace -- --nocapture sigkill`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use basalt_sql_tests::client::Client;
use parquet::arrow::ArrowWriter;
use tokio::sync::mpsc::UnboundedSender;

use crate::killable::{
    Choices, Cluster, KILL_AFTER_MAX_MS, RECOVERY_MAX, VICTIMS, from_environment, numbers,
};

/// Rows of every statement: enough for all slices, so that each spans both workers.
const STATEMENT_ROWS: i64 = 1_000;
/// What a client was told about its statements.
#[derive(Debug, Default)]
struct History {
    /// Statement ids whose INSERT was acknowledged or not.
    inserts: BTreeMap<i64, bool>,
    /// The same of COPY.
    copies: BTreeMap<i64, bool>,
    /// The same of CREATE TABLE AS.
    tables: BTreeMap<i64, bool>,
}

impl History {
    fn of(&mut self, id: i64) -> &mut BTreeMap<i64, bool> {
        match id % 3 {
            0 => &mut self.inserts,
            1 => &mut self.copies,
            _ => &mut self.tables,
        }
    }

    fn record(&mut self, (id, acknowledged): (i64, bool)) {
        self.of(id).insert(id, acknowledged);
    }
}

fn statement(id: i64, file: &Path) -> String {
    match id % 3 {
        0 => format!(
            "INSERT INTO inserted SELECT {id}, value FROM generate_series(1, {STATEMENT_ROWS})"
        ),
        1 => format!("COPY copied FROM '{}' FORMAT PARQUET", file.display()),
        _ => format!(
            "CREATE TABLE made_{id} AS SELECT value AS n FROM generate_series(1, {STATEMENT_ROWS})"
        ),
    }
}

/// Runs statements until one fails, telling of each when it begins and when it is acknowledged.
async fn write_until_it_fails(
    url: String,
    from: i64,
    file: PathBuf,
    told: UnboundedSender<(i64, bool)>,
) {
    let Ok(mut client) = Client::connect(&url).await else { return };
    for id in from..from + 100_000 {
        if told.send((id, false)).is_err() {
            return;
        }
        if client.execute_update(&statement(id, &file)).await.is_err() {
            return;
        }
        if told.send((id, true)).is_err() {
            return;
        }
    }
}

/// Every statement is there whole or not at all, and those that were acknowledged are there.
async fn check(url: &str, history: &History) {
    let inserted = "SELECT id, count(*), sum(n) FROM inserted GROUP BY id";
    let mut found = BTreeMap::new();
    for row in numbers(url, inserted).await {
        let whole = [STATEMENT_ROWS, STATEMENT_ROWS * (STATEMENT_ROWS + 1) / 2];
        assert_eq!(row[1..], whole, "INSERT {} is there by half", row[0]);
        found.insert(row[0], ());
    }
    for (id, acknowledged) in &history.inserts {
        assert!(!acknowledged || found.contains_key(id), "acknowledged INSERT {id} is lost");
    }

    let copied = numbers(url, "SELECT count(*), coalesce(sum(n), 0) FROM copied").await;
    let times = copied[0][0] / STATEMENT_ROWS;
    let sum = times * (STATEMENT_ROWS * (STATEMENT_ROWS + 1) / 2);
    assert_eq!(copied[0], [times * STATEMENT_ROWS, sum], "a COPY is there by half");
    let acknowledged = history.copies.values().filter(|acknowledged| **acknowledged).count();
    let bounds =
        i64::try_from(acknowledged).unwrap()..=i64::try_from(history.copies.len()).unwrap();
    assert!(bounds.contains(&times), "{times} COPYs are there, of {bounds:?}");

    let tables = "SELECT cast(substr(table_name, 6) AS BIGINT), cast(rows AS BIGINT) \
                  FROM sys.tables WHERE table_name LIKE 'made_%'";
    let tables: BTreeMap<_, _> =
        numbers(url, tables).await.into_iter().map(|row| (row[0], row[1])).collect();
    for (id, acknowledged) in &history.tables {
        match tables.get(id) {
            Some(rows) => assert_eq!(*rows, STATEMENT_ROWS, "table made_{id} is there by half"),
            None => assert!(!acknowledged, "acknowledged table made_{id} is lost"),
        }
    }
    if let Some(id) = tables.keys().next_back() {
        let count = numbers(url, &format!("SELECT count(*) FROM made_{id}")).await;
        assert_eq!(count[0][0], STATEMENT_ROWS, "made_{id}");
    }
}

pub(crate) fn write_file(path: &Path) {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=STATEMENT_ROWS));
    let batch = RecordBatch::try_from_iter([("n", n)]).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_statements_survive_sigkill_whole() {
    let rounds = from_environment("BASALT_KILL_ROUNDS", 6);
    let seed = from_environment("BASALT_KILL_SEED", 1);
    let mut choices = Choices(seed);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("numbers.parquet");
    write_file(&file);
    let mut cluster = Cluster::start(dir.path());
    let mut client = Client::connect(&cluster.url).await.unwrap();
    for table in ["inserted (id BIGINT, n BIGINT) DISTKEY(n)", "copied (n BIGINT)"] {
        client.execute_update(&format!("CREATE TABLE {table}")).await.unwrap();
    }
    let mut history = History::default();
    let mut victims: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..rounds {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let from = i64::try_from(round).unwrap() * 100_000;
        let writer =
            tokio::spawn(write_until_it_fails(cluster.url.clone(), from, file.clone(), sender));
        // Kill in the middle of the writes: after one was acknowledged, while others run.
        while let Some(told) = receiver.recv().await {
            history.record(told);
            if told.1 {
                break;
            }
        }
        // The moment is the fault that is injected, not a wait for something.
        tokio::time::sleep(Duration::from_millis(choices.below(KILL_AFTER_MAX_MS))).await;
        // The first rounds have every victim once.
        let victim = if round < VICTIMS { round } else { choices.below(VICTIMS) };
        *victims.entry(cluster.kill(victim)).or_default() += 1;
        tokio::time::timeout(RECOVERY_MAX, writer).await.expect("a statement hangs").unwrap();
        while let Some(told) = receiver.recv().await {
            history.record(told);
        }
        cluster.start_what_is_missing();
        check(&cluster.url, &history).await;
    }
    let all =
        || history.inserts.values().chain(history.copies.values()).chain(history.tables.values());
    println!(
        "{rounds} kills, seed {seed}, {victims:?}: {} statements acknowledged, all there; \
         {} without an answer, none by half",
        all().filter(|acknowledged| **acknowledged).count(),
        all().filter(|acknowledged| !**acknowledged).count()
    );
}
