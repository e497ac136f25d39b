//! Real processes, killed with SIGKILL in the middle of writes and started again: what was
//! acknowledged is there, and no half of a statement is ever seen.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use basalt_cli::processes::Process;
use basalt_sql_tests::client::Client;

/// How long a restarted cluster may take to answer again.
const RECOVERY_MAX: Duration = Duration::from_secs(40);

fn args(role: &str, dir: &Path, more: &[&str]) -> Vec<String> {
    let mut args = vec![role.to_owned(), "--data-dir".to_owned(), dir.display().to_string()];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    args
}

struct Cluster {
    dir: PathBuf,
    binary: PathBuf,
    url: String,
    coordinator: Option<Process>,
    workers: Vec<Option<Process>>,
}

impl Cluster {
    fn start(dir: &Path, workers: usize) -> Self {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_basalt"));
        let home = dir.join("coordinator");
        let coordinator =
            Process::spawn(&binary, &args("coordinator", &home, &["--listen", "127.0.0.1:0"]));
        let coordinator = coordinator.unwrap();
        let url = coordinator.url().to_owned();
        let mut cluster = Self {
            dir: dir.to_owned(),
            binary,
            url,
            coordinator: Some(coordinator),
            workers: (0..workers).map(|_| None).collect(),
        };
        for index in 0..workers {
            cluster.start_worker(index);
        }
        cluster
    }

    fn start_worker(&mut self, index: usize) {
        let secret = self.dir.join("coordinator/cluster.secret").display().to_string();
        let dir = self.dir.join(format!("worker-{index}"));
        let more = ["--coordinator", &self.url, "--secret-file", &secret];
        let worker = Process::spawn(&self.binary, &args("worker", &dir, &more));
        self.workers[index] = Some(worker.unwrap());
    }

    fn start_coordinator(&mut self) {
        let address = self.url.trim_start_matches("grpc://").to_owned();
        let home = self.dir.join("coordinator");
        let more = ["--listen", address.as_str()];
        let coordinator = Process::spawn(&self.binary, &args("coordinator", &home, &more));
        self.coordinator = Some(coordinator.unwrap());
    }
}

/// Inserts pairs until a statement fails; returns the ids that were acknowledged.
async fn insert_until_it_fails(
    url: String,
    from: u64,
    acknowledged: tokio::sync::mpsc::UnboundedSender<u64>,
) {
    let Ok(mut client) = Client::connect(&url).await else { return };
    for id in from..from + 10_000 {
        let sql = format!("INSERT INTO pairs VALUES ({id}, 1), ({id}, -1)");
        match client.execute_update(&sql).await {
            Ok(_) if acknowledged.send(id).is_ok() => {}
            _ => return,
        }
    }
}

/// Ids whose pair is whole, once the cluster answers again.
async fn whole_pairs(url: &str) -> Vec<u64> {
    let started = Instant::now();
    loop {
        let answer = async {
            let mut client = Client::connect(url).await?;
            let halves = "SELECT id FROM pairs GROUP BY id HAVING count(*) <> 2 OR sum(d) <> 0";
            let (_, halves) = client.query_all(halves).await?;
            let (_, ids) = client.query_all("SELECT DISTINCT id FROM pairs").await?;
            Ok::<_, basalt_sql_tests::client::ClientError>((halves, ids))
        };
        match answer.await {
            Ok((halves, ids)) => {
                assert_eq!(
                    halves.iter().map(|b| b.num_rows()).sum::<usize>(),
                    0,
                    "half a statement"
                );
                use arrow::array::AsArray;
                use arrow::datatypes::Int64Type;
                return ids
                    .iter()
                    .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
                    .map(|id| u64::try_from(id).unwrap())
                    .collect();
            }
            Err(error) => {
                assert!(started.elapsed() < RECOVERY_MAX, "no answer after a restart: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_survive_sigkill_of_worker_and_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 2);
    let mut client = Client::connect(&cluster.url).await.unwrap();
    client.execute_update("CREATE TABLE pairs (id BIGINT, d BIGINT) DISTKEY(id)").await.unwrap();
    let mut acknowledged = Vec::new();
    for (round, victim) in ["worker", "coordinator", "worker"].into_iter().enumerate() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let from = round as u64 * 100_000;
        let writer = tokio::spawn(insert_until_it_fails(cluster.url.clone(), from, sender));
        // Kill in the middle of the writes: after some were acknowledged, while others run.
        for _ in 0..5 {
            acknowledged.extend(receiver.recv().await);
        }
        match victim {
            "worker" => {
                cluster.workers[0].take().unwrap().kill().unwrap();
                writer.await.unwrap();
                cluster.start_worker(0);
            }
            _ => {
                cluster.coordinator.take().unwrap().kill().unwrap();
                writer.await.unwrap();
                cluster.start_coordinator();
            }
        }
        while let Some(id) = receiver.recv().await {
            acknowledged.push(id);
        }
        let found = whole_pairs(&cluster.url).await;
        for id in &acknowledged {
            assert!(found.contains(id), "acknowledged pair {id} is lost after killing a {victim}");
        }
    }
}
