//! `basalt catalog`: what it prints, how it ends, and what a coordinator makes of it afterwards.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use basalt_sql_tests::faults::cluster::{Cluster, NodeId, Shape};
use basalt_sql_tests::faults::session::Session;
use tempfile::TempDir;

/// How long workers may take to get a copy of the log.
const COPIED_WITHIN: Duration = Duration::from_secs(60);

struct Rig {
    dir: TempDir,
    cluster: Cluster,
}

impl Rig {
    /// A cluster whose workers have copies of the log, with a table of three rows.
    async fn start(workers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape::of(env!("CARGO_BIN_EXE_basalt"), workers);
        let rig = Self { cluster: Cluster::start(shape, dir.path()).unwrap(), dir };
        rig.wait_copies(i64::try_from(workers.min(2)).unwrap()).await;
        rig.write("CREATE TABLE t (n BIGINT)").await;
        rig.write("INSERT INTO t VALUES (1), (2), (3)").await;
        rig
    }

    async fn write(&self, sql: &str) {
        Session::new(&self.cluster.url()).write_until_acknowledged(sql).await.unwrap();
    }

    async fn read(&self, sql: &str) -> Vec<Vec<i64>> {
        Session::new(&self.cluster.url()).read_until_answered(sql).await.unwrap()
    }

    async fn wait_copies(&self, count: i64) {
        let sql =
            "SELECT count(*) FROM sys.log_members WHERE member = 'worker' AND state = 'current'";
        let started = Instant::now();
        while self.read(sql).await != [[count]] {
            assert!(started.elapsed() < COPIED_WITHIN, "fewer than {count} copies of the log");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn home(&self, node: NodeId) -> String {
        self.cluster.home(node).display().to_string()
    }

    /// `basalt catalog restore` into the coordinator's old folder.
    fn restore(&self, more: &[&str]) -> Output {
        let (home, secret) = (self.home(NodeId::Coordinator), self.dir.path().join("kept.secret"));
        let secret = secret.display().to_string();
        let args = ["restore", "--data-dir", &home, "--secret-file", &secret];
        catalog(&[args.as_slice(), more].concat())
    }
}

fn catalog(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_basalt")).arg("catalog").args(args).output().unwrap()
}

fn check(output: &Output, code: i32, message: &str) {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert_eq!(output.status.code(), Some(code), "{text:?}");
    assert!(text.iter().any(|text| text.contains(message)), "{message}: {text:?}");
}

fn verify(folder: &Path) -> Output {
    catalog(&["verify", "--data-dir", &folder.display().to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_coordinator_is_restored_from_an_address_and_a_folder() {
    let mut rig = Rig::start(2).await;
    let workers = rig.cluster.workers();
    rig.cluster.lose_coordinator().unwrap();
    rig.cluster.kill(&workers[..1]).unwrap();
    let (folder, address) = (rig.home(workers[0]), rig.cluster.url_of(workers[1]));
    check(&rig.restore(&["--from", &folder, "--from", &address]), 0, "log records restored into");
    check(&verify(rig.cluster.home(NodeId::Coordinator)), 0, "tables: 1, segments: ");
    check(&verify(rig.cluster.home(workers[0])), 0, "log records: ");
    rig.cluster.start_missing().unwrap();
    assert_eq!(rig.read("SELECT sum(n) FROM t").await, [[6]]);
    rig.write("INSERT INTO t VALUES (4)").await;
    assert_eq!(rig.read("SELECT sum(n) FROM t").await, [[10]]);
    rig.wait_copies(2).await;
    rig.cluster.kill(&[NodeId::Coordinator]).unwrap();
    check(&rig.restore(&["--from", "grpc://127.0.0.1:1"]), 1, "holds a cluster already");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_copies_restore_nothing_unless_the_operator_takes_the_loss() {
    let mut rig = Rig::start(2).await;
    let workers = rig.cluster.workers();
    rig.cluster.lose_coordinator().unwrap();
    rig.cluster.kill(&workers).unwrap();
    let folder = rig.home(workers[1]);
    let from = ["--from", folder.as_str()];
    check(&rig.restore(&from), 1, "(has not answered)");
    assert!(!rig.cluster.home(NodeId::Coordinator).join("catalog.redb").try_exists().unwrap());
    let accepted = rig.restore(&["--from", &folder, "--accept-loss"]);
    check(&accepted, 0, "acknowledged commits may be missing");
    rig.cluster.start_missing().unwrap();
    assert_eq!(rig.read("SELECT sum(n) FROM t").await, [[6]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_coordinator_takes_commits_without_its_only_worker() {
    let mut rig = Rig::start(1).await;
    let all = rig.cluster.nodes();
    rig.cluster.kill(&all).unwrap();
    let home = rig.home(NodeId::Coordinator);
    check(&catalog(&["detach", "--data-dir", &home]), 0, "has no say any more");
    check(&catalog(&["detach", "--data-dir", &home]), 0, "alone has the log already");
    rig.cluster.start_missing().unwrap();
    rig.write("INSERT INTO t VALUES (4)").await;
    assert_eq!(rig.read("SELECT sum(n) FROM t").await, [[10]]);
    // The worker came back, and has a copy again.
    rig.wait_copies(1).await;
}

#[test]
fn a_folder_without_a_catalog_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let output = verify(dir.path());
    check(&output, 1, &dir.path().display().to_string());
    let path = dir.path().display().to_string();
    check(&catalog(&["detach", "--data-dir", &path]), 1, &path);
    let secret = dir.path().join("secret");
    basalt_engine::secret::ClusterSecret::generate().unwrap().write_new(&secret).unwrap();
    let (secret, none) = (secret.display().to_string(), format!("{path}/no-worker"));
    for command in ["restore", "rebuild"] {
        let new = format!("{path}/new");
        let args = [command, "--data-dir", &new, "--secret-file", &secret, "--from", none.as_str()];
        check(&catalog(&args), 1, "neither a folder nor an address");
    }
}
