//! The day when the coordinator's disk is gone and so are the copies of its log: the workers'
//! commit records give the catalog back, and with it every row, and nothing that was deleted.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::faults::cluster::{Cluster, NodeId, Shape};
use basalt_sql_tests::faults::session::Session;

/// Tables with deleted, changed and compacted rows, and some that are gone.
const STATEMENTS: [&str; 15] = [
    "CREATE TABLE wide (k BIGINT, a BIGINT, t VARCHAR) DISTKEY(k) REPLICAS 2",
    "INSERT INTO wide SELECT 1, value, 'text ' || value FROM generate_series(1, 70000)",
    "CREATE TABLE small REPLICAS 2 AS SELECT value AS n, 3 * value AS m \
     FROM generate_series(1, 2000)",
    "DELETE FROM small WHERE n % 10 = 0",
    "UPDATE small SET m = -1 WHERE n % 7 = 0",
    "DELETE FROM wide WHERE a % 3 = 0",
    "CREATE SCHEMA other",
    "CREATE TABLE other.everywhere DISTSTYLE ALL AS SELECT 1 AS x",
    "INSERT INTO other.everywhere VALUES (2)",
    "CREATE VIEW other.seen AS SELECT sum(m) AS m FROM small",
    "CREATE TABLE gone REPLICAS 2 AS SELECT value AS x FROM generate_series(1, 500)",
    "INSERT INTO gone VALUES (7)",
    "DROP TABLE gone",
    "VACUUM small",
    // The background has nothing to analyse then, and commits no more.
    "ANALYZE",
];

const QUERIES: [&str; 4] = [
    "SELECT count(*), sum(k), sum(a), sum(length(t)) FROM wide",
    "SELECT count(*), sum(n), sum(m) FROM small",
    "SELECT count(*), sum(x) FROM other.everywhere",
    "SELECT m FROM other.seen",
];

/// How long workers may take to be told of the last commit.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

async fn answers(session: &mut Session) -> Vec<Vec<Vec<i64>>> {
    let mut answers = Vec::new();
    for sql in QUERIES {
        answers.push(session.read_until_answered(sql).await.unwrap());
    }
    answers
}

/// Waits until all three workers know the newest commit.
async fn wait_told(session: &mut Session) {
    let started = Instant::now();
    let told = "SELECT count(*) FROM sys.commit_records WHERE state = 'current'";
    while session.read_until_answered(told).await.unwrap() != [[3]] {
        assert!(started.elapsed() < TOLD_WITHIN, "workers do not know the newest commit");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn worker_urls(cluster: &Cluster) -> Vec<String> {
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let (_, batches) = client.query_all("SELECT url FROM sys.workers").await.unwrap();
    let column = |batch: &arrow::array::RecordBatch| {
        let urls = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8);
        let urls = urls.unwrap();
        urls.as_string::<i32>().iter().map(|url| url.unwrap().to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(column).collect()
}

/// Runs `basalt catalog <command>` into a new data folder.
fn catalog(
    command: &str,
    data_dir: &Path,
    secret: &Path,
    from: &[String],
    more: &[&str],
) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_basalt"));
    run.args(["catalog", command, "--data-dir"]).arg(data_dir);
    run.arg("--secret-file").arg(secret).args(more);
    for from in from {
        run.arg("--from").arg(from);
    }
    run.output().unwrap()
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

fn folders(cluster: &Cluster) -> Vec<String> {
    cluster.workers().iter().map(|id| cluster.home(*id).display().to_string()).collect()
}

/// A cluster with the tables, told of everything; and a copy of its secret.
async fn loaded(dir: &Path) -> (Cluster, Session, PathBuf) {
    loaded_by(dir, |_| true).await
}

/// The same, by some of the statements.
async fn loaded_by(dir: &Path, takes: fn(&str) -> bool) -> (Cluster, Session, PathBuf) {
    let cluster = Cluster::start(Shape::of(env!("CARGO_BIN_EXE_basalt"), 3), dir).unwrap();
    let mut session = Session::new(&cluster.url());
    for sql in STATEMENTS.into_iter().filter(|sql| takes(sql)) {
        session.write_until_acknowledged(sql).await.unwrap();
    }
    wait_told(&mut session).await;
    let secret = dir.join("kept.secret");
    std::fs::copy(cluster.home(NodeId::Coordinator).join("cluster.secret"), &secret).unwrap();
    (cluster, session, secret)
}

/// Loses the coordinator's disk and all copies of the command log, with nothing running.
fn lose_the_catalog(cluster: &mut Cluster) {
    cluster.kill(&cluster.nodes()).unwrap();
    std::fs::remove_dir_all(cluster.home(NodeId::Coordinator)).unwrap();
    for worker in cluster.workers() {
        std::fs::remove_dir_all(cluster.home(worker).join("log")).unwrap();
        let note = cluster.home(worker).join("LOG_IDENTITY");
        if note.try_exists().unwrap() {
            std::fs::remove_file(note).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_comes_back_from_commit_records_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, mut session, secret) = loaded(dir.path()).await;
    let before = answers(&mut session).await;
    lose_the_catalog(&mut cluster);

    let (home, from) = (cluster.home(NodeId::Coordinator).to_owned(), folders(&cluster));
    let restored = catalog("restore", &home, &secret, &from, &[]);
    assert!(!restored.status.success(), "there was no copy of the log: {}", text(&restored));
    let rebuilt = catalog("rebuild", &home, &secret, &from, &[]);
    assert!(rebuilt.status.success(), "{}", text(&rebuilt));
    let again = catalog("rebuild", &home, &secret, &from, &[]);
    assert!(text(&again).contains("holds a cluster already"), "{}", text(&again));

    cluster.start_missing().unwrap();
    assert_eq!(answers(&mut session).await, before);
    let gone = session.read("SELECT count(*) FROM gone").await.unwrap().unwrap_err();
    assert_eq!(gone.code(), Some("UNDEFINED_TABLE"), "{gone}");
    session.write_until_acknowledged("INSERT INTO small VALUES (0, 0)").await.unwrap();
    session.write_until_acknowledged("DELETE FROM small WHERE n = 0").await.unwrap();
    assert_eq!(answers(&mut session).await, before);

    // The log that begins anew replaces what workers know of the old one, and it all works twice.
    wait_told(&mut session).await;
    lose_the_catalog(&mut cluster);
    let rebuilt = catalog("rebuild", &home, &secret, &from, &[]);
    assert!(rebuilt.status.success(), "{}", text(&rebuilt));
    cluster.start_missing().unwrap();
    assert_eq!(answers(&mut session).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_worker_is_a_doubt_that_must_be_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, mut session, secret) = loaded(dir.path()).await;
    // Workers are told once a second. Of some of these segments none hears before they are gone.
    for n in 0..5 {
        let create = format!("CREATE TABLE brief{n} REPLICAS 2 AS SELECT 1 AS x");
        session.write_until_acknowledged(&create).await.unwrap();
        session.write_until_acknowledged(&format!("DELETE FROM brief{n}")).await.unwrap();
    }
    wait_told(&mut session).await;
    let before = answers(&mut session).await;
    let urls = worker_urls(&cluster).await;

    // The workers run on: they are asked.
    cluster.kill(&[NodeId::Coordinator]).unwrap();
    // Their copies of the log may have a commit more than their records: that is for `restore`.
    let accept = ["--accept-loss"];
    let asked = catalog("rebuild", &dir.path().join("asked"), &secret, &urls, &accept);
    assert!(asked.status.success(), "{}", text(&asked));
    let said = text(&asked);
    let mut doubts = said.lines().filter(|line| line.starts_with("doubt: "));
    assert!(doubts.all(|doubt| doubt.contains("copy of the command log")), "{said}");
    assert!(!said.contains("not salvaged"), "{said}");
    // Rows that were deleted or replaced, and are not removed yet, look like any others.
    assert!(text(&asked).contains("in recovered.\"public_brief"), "{}", text(&asked));

    lose_the_catalog(&mut cluster);
    let (home, mut from) = (cluster.home(NodeId::Coordinator).to_owned(), folders(&cluster));
    let lost = from.pop().unwrap();
    let refused = catalog("rebuild", &home, &secret, &from, &[]);
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(text(&refused).contains("is missing"), "{}", text(&refused));
    assert!(!home.join("catalog.redb").try_exists().unwrap(), "nothing was written");
    let accepted = catalog("rebuild", &home, &secret, &from, &["--accept-loss"]);
    assert!(accepted.status.success(), "{}", text(&accepted));

    // Its disk is gone for good; a copy of everything is elsewhere.
    std::fs::remove_dir_all(lost).unwrap();
    cluster.start_missing().unwrap();
    assert_eq!(answers(&mut session).await, before);
}

/// Has a worker emptied, and waits until it is.
async fn drain(session: &mut Session, cluster: &Cluster, worker: NodeId) {
    let id = std::fs::read_to_string(cluster.home(worker).join("WORKER_ID")).unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let drain = format!("ALTER SYSTEM DRAIN WORKER '{}'", id.trim());
    client.execute_update(&drain).await.unwrap();
    let started = Instant::now();
    let drained = "SELECT count(*) FROM sys.workers WHERE duty = 'drained'";
    while session.read_until_answered(drained).await.unwrap() != [[1]] {
        assert!(started.elapsed() < TOLD_WITHIN, "the worker does not get empty");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_record_names_are_in_the_schema_recovered() {
    let dir = tempfile::tempdir().unwrap();
    // What is deleted or replaced lies on the disks for a while, too.
    let adds = |sql: &str| {
        ["CREATE", "INSERT", "ANALYZE"].iter().any(|word| sql.starts_with(word))
            && !sql.contains("gone")
    };
    let (mut cluster, mut session, secret) = loaded_by(dir.path(), adds).await;
    let before = answers(&mut session).await;
    let kept = |worker: NodeId| dir.path().join(format!("kept-{worker}"));
    for worker in cluster.workers() {
        copy_folder(&cluster.home(worker).join("commits"), &kept(worker));
    }
    for sql in [
        "INSERT INTO small SELECT value, 1 FROM generate_series(1, 300)",
        "CREATE TABLE late (k BIGINT, t VARCHAR) REPLICAS 2",
        "INSERT INTO late SELECT value, 'row ' || value FROM generate_series(1, 100)",
    ] {
        session.write_until_acknowledged(sql).await.unwrap();
    }
    let after = answers(&mut session).await;
    // The records know nothing of the last commits.
    lose_the_catalog(&mut cluster);
    for worker in cluster.workers() {
        let commits = cluster.home(worker).join("commits");
        std::fs::remove_dir_all(&commits).unwrap();
        copy_folder(&kept(worker), &commits);
    }

    let (home, from) = (cluster.home(NodeId::Coordinator).to_owned(), folders(&cluster));
    let rebuilt = catalog("rebuild", &home, &secret, &from, &[]);
    let said = text(&rebuilt);
    assert!(rebuilt.status.success(), "{said}");
    assert!(said.contains("with 300 rows, in recovered.\"public_small\""), "{said}");
    cluster.start_missing().unwrap();
    assert_eq!(answers(&mut session).await, before);
    let late = session.read_until_answered(
        "SELECT count(*) FROM information_schema.tables \
         WHERE table_schema = 'recovered' AND table_name LIKE 'table%'",
    );
    assert_eq!(late.await.unwrap(), [[1]], "{said}");
    let rows =
        session.read_until_answered("SELECT count(*), sum(n), sum(m) FROM recovered.public_small");
    assert_eq!(rows.await.unwrap(), [[300, 45_150, 300]]);

    // They are rows like others: their copies move when a worker is emptied, and they can be taken
    // over.
    let drained = cluster.workers()[0];
    drain(&mut session, &cluster, drained).await;
    cluster.kill(&[drained]).unwrap();
    let rows =
        session.read_until_answered("SELECT count(*), sum(n), sum(m) FROM recovered.public_small");
    assert_eq!(rows.await.unwrap(), [[300, 45_150, 300]]);
    cluster.start_missing().unwrap();
    session
        .write_until_acknowledged("DELETE FROM recovered.public_small WHERE n > 300")
        .await
        .unwrap();
    let taken = "INSERT INTO small SELECT * FROM recovered.public_small";
    session.write_until_acknowledged(taken).await.unwrap();
    assert_eq!(answers(&mut session).await, after);
    session.write_until_acknowledged("DROP TABLE recovered.public_small").await.unwrap();
    assert_eq!(answers(&mut session).await, after);
}
