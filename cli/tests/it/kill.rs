//! Real processes, killed with SIGKILL at random moments of writes and started again: what was
//! acknowledged is there, and no half of a statement is ever seen (RULES 8, 9).
//!
//! `BASALT_KILL_ROUNDS` (6) and `BASALT_KILL_SEED` (1) choose a longer or another run:
//! `BASALT_KILL_ROUNDS=200 cargo test --workspace -- --nocapture sigkill`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use basalt_cli::processes::Process;
use basalt_sql_tests::client::{Client, ClientError};
use parquet::arrow::ArrowWriter;
use tokio::sync::mpsc::UnboundedSender;

/// How long a restarted cluster may take to answer again.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// Rows of every statement: enough for all slices, so that each spans both workers.
const STATEMENT_ROWS: i64 = 1_000;
/// The latest moment of a kill, after the first acknowledgement of its round.
const KILL_AFTER_MAX_MS: u64 = 400;
const WORKERS: usize = 2;

/// A seeded source of choices (Knuth's MMIX linear congruential generator).
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Cluster {
    dir: PathBuf,
    url: String,
    coordinator: Option<Process>,
    workers: Vec<Option<Process>>,
}

impl Cluster {
    fn start(dir: &Path) -> Self {
        let workers = (0..WORKERS).map(|_| None).collect();
        let mut cluster =
            Self { dir: dir.to_owned(), url: String::new(), coordinator: None, workers };
        cluster.start_what_is_missing();
        cluster
    }

    fn spawn(&self, role: &str, name: &str, more: &[&str]) -> Process {
        let (home, files) = (self.dir.join(name), self.dir.display().to_string());
        let mut args = vec![role.to_owned(), "--data-dir".to_owned(), home.display().to_string()];
        args.extend(["--allow-path".to_owned(), files]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        Process::spawn(Path::new(env!("CARGO_BIN_EXE_basalt")), &args).unwrap()
    }

    fn start_what_is_missing(&mut self) {
        if self.coordinator.is_none() {
            // The first start takes a free port, later ones the same again.
            let address = match self.url.strip_prefix("grpc://") {
                Some(address) => address.to_owned(),
                None => "127.0.0.1:0".to_owned(),
            };
            let coordinator = self.spawn("coordinator", "coordinator", &["--listen", &address]);
            self.url = coordinator.url().to_owned();
            self.coordinator = Some(coordinator);
        }
        let secret = self.dir.join("coordinator/cluster.secret").display().to_string();
        for index in 0..WORKERS {
            if self.workers[index].is_none() {
                let more = ["--coordinator", &self.url, "--secret-file", &secret];
                self.workers[index] = Some(self.spawn("worker", &format!("worker-{index}"), &more));
            }
        }
    }

    /// Kills one worker, the coordinator, or everything. Returns who that was.
    fn kill(&mut self, victim: u64) -> &'static str {
        let (name, coordinator, workers) = match victim {
            0 => ("coordinator", true, 0..0),
            1 => ("worker 0", false, 0..1),
            2 => ("worker 1", false, 1..2),
            _ => ("everything", true, 0..WORKERS),
        };
        let killed = coordinator.then(|| self.coordinator.take()).flatten();
        let workers = workers.filter_map(|index| self.workers[index].take());
        for mut process in killed.into_iter().chain(workers) {
            process.kill().unwrap();
        }
        name
    }
}

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

/// A query of integers once the cluster answers again.
async fn numbers(url: &str, sql: &str) -> Vec<Vec<i64>> {
    let started = Instant::now();
    loop {
        let answer = async {
            let (_, batches) = Client::connect(url).await?.query_all(sql).await?;
            Ok::<_, ClientError>(batches)
        };
        match answer.await {
            Ok(batches) => {
                let row = |batch: &RecordBatch, row: usize| {
                    let value = |column: &ArrayRef| column.as_primitive::<Int64Type>().value(row);
                    batch.columns().iter().map(value).collect::<Vec<_>>()
                };
                let rows = |batch: &RecordBatch| {
                    (0..batch.num_rows()).map(|index| row(batch, index)).collect::<Vec<_>>()
                };
                return batches.iter().flat_map(rows).collect();
            }
            Err(error) => {
                assert!(started.elapsed() < RECOVERY_MAX, "no answer after a restart: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
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

fn write_file(path: &Path) {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=STATEMENT_ROWS));
    let batch = RecordBatch::try_from_iter([("n", n)]).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
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
        // The first four rounds have every victim once.
        let victim = if round < 4 { round } else { choices.below(4) };
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
