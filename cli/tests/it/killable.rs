//! A cluster of real processes that are killed and started again, and what its tests share.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use basalt_sql_tests::client::{Client, ClientError};
use basalt_sql_tests::processes::Process;

/// How long a restarted cluster may take to answer again.
pub(crate) const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// The latest moment of a kill, after the first acknowledgement of its round.
pub(crate) const KILL_AFTER_MAX_MS: u64 = 400;
/// Whom [`Cluster::kill`] can kill.
pub(crate) const VICTIMS: u64 = 4;
const WORKERS: usize = 2;

/// A seeded source of choices (Knuth's MMIX linear congruential generator).
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

pub(crate) struct Cluster {
    dir: PathBuf,
    pub(crate) url: String,
    coordinator: Option<Process>,
    workers: Vec<Option<Process>>,
}

impl Cluster {
    pub(crate) fn start(dir: &Path) -> Self {
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

    pub(crate) fn start_what_is_missing(&mut self) {
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
    pub(crate) fn kill(&mut self, victim: u64) -> &'static str {
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

/// Rows of integers.
fn integers(batches: &[RecordBatch]) -> Vec<Vec<i64>> {
    let row = |batch: &RecordBatch, row: usize| {
        let value = |column: &ArrayRef| column.as_primitive::<Int64Type>().value(row);
        batch.columns().iter().map(value).collect::<Vec<_>>()
    };
    let rows = |batch: &RecordBatch| {
        (0..batch.num_rows()).map(|index| row(batch, index)).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

/// A query of integers once the cluster answers again.
pub(crate) async fn numbers(url: &str, sql: &str) -> Vec<Vec<i64>> {
    let started = Instant::now();
    loop {
        let answer = async {
            let (_, batches) = Client::connect(url).await?.query_all(sql).await?;
            Ok::<_, ClientError>(batches)
        };
        match answer.await {
            Ok(batches) => return integers(&batches),
            Err(error) => {
                assert!(started.elapsed() < RECOVERY_MAX, "no answer after a restart: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
