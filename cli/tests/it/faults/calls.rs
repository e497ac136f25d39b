//! System calls that fail, and disks without space (FAULTS F30 to F35): a failed write is an
//! error, never a loss, and reads go on.

use std::time::Duration;

use basalt_sql_tests::faults::choices::Choices;
use basalt_sql_tests::faults::cluster::{Cluster, NodeId};
use basalt_sql_tests::faults::figures::Figures;
use basalt_sql_tests::faults::full_disk::SmallDisk;
use basalt_sql_tests::faults::inject::{FailingCalls, Fault, Injection};
use basalt_sql_tests::faults::nemesis::Nemesis;
use basalt_sql_tests::faults::runner::Runner;
use basalt_sql_tests::faults::session::{Outcome, Session};
use basalt_sql_tests::faults::skip::skip;

use super::{Run, light_workload, report, shape};

const WORKERS: usize = 2;

/// Syncs of all kinds: ours, and those of the catalog's database.
const SYNCS: &[&str] = &["fsync", "fdatasync"];

/// A failing call of a node.
fn failing(cluster: &Cluster, kind: u64, choices: &mut Choices) -> Nemesis {
    let worker = *choices.pick(&cluster.workers());
    let from = 1 + u32::try_from(choices.below(3)).unwrap();
    let once = |calls, error| FailingCalls {
        from,
        once: true,
        ..FailingCalls::all(calls, Fault::Error(error))
    };
    let all = |calls, error| FailingCalls::all(calls, Fault::Error(error));
    let slow = FailingCalls::all(SYNCS, Fault::Delay(Duration::from_millis(200)));
    let (node, calls) = match kind % 8 {
        0 => (worker, once(SYNCS, "EIO")),
        1 => (NodeId::Coordinator, once(SYNCS, "EIO")),
        2 => (worker, all(SYNCS, "ENOSPC")),
        3 => (worker, once(&["renameat2"], "EIO")),
        4 => (worker, all(&["openat"], "EMFILE")),
        5 => (NodeId::Coordinator, slow),
        6 => (worker, FailingCalls { from, ..FailingCalls::all(SYNCS, Fault::Kill) }),
        _ => (worker, all(&["pread64"], "EIO")),
    };
    Nemesis::FailingCalls { node, calls: vec![calls], lasts: Duration::from_millis(700) }
}

/// System calls of one node fail for a while, which is then started again.
pub(super) async fn failing_calls(run: Run) -> anyhow::Result<Figures> {
    if let Err(reason) = Injection::possible() {
        skip("failing system calls", &reason);
        let skipped = vec![format!("failing system calls: {reason}")];
        return Ok(Figures { skipped, ..Figures::default() });
    }
    let test = "faults::calls::a_failing_system_call_is_an_error_and_never_a_loss";
    let mut runner = Runner::start(test, run.seed, shape(WORKERS), light_workload).await?;
    let first = run.seed.wrapping_sub(1);
    let schedule = |cluster: &Cluster, trial: u64, choices: &mut Choices| {
        failing(cluster, first.wrapping_add(trial), choices)
    };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_system_call_is_an_error_and_never_a_loss() {
    let run = Run::of(4);
    report("failing calls", run, &failing_calls(run).await.unwrap());
}

/// A cluster whose first worker keeps its data on a disk of a few MiB.
fn cluster_on(disk: &SmallDisk, dir: &std::path::Path) -> Cluster {
    let data = disk.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&data, dir.join(NodeId::Worker(0).to_string())).unwrap();
    Cluster::start(shape(1), dir).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_space_writes_fail_reads_go_on_and_nothing_need_be_restarted() {
    let disk = match SmallDisk::new(32) {
        Ok(disk) => disk,
        Err(error) => return skip("a full disk", &format!("{error:#}")),
    };
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster_on(&disk, dir.path());
    let mut session = Session::new(&cluster.url());
    session.write_until_acknowledged("CREATE TABLE t (n BIGINT)").await.unwrap();
    let insert = "INSERT INTO t SELECT value FROM generate_series(1, 1000)";
    session.write_until_acknowledged(insert).await.unwrap();

    let ballast = disk.fill().unwrap();
    for _ in 0..3 {
        let outcome = session.write(insert).await.unwrap();
        assert!(!matches!(outcome, Outcome::Acknowledged(_)), "{outcome:?}");
    }
    let count = "SELECT count(*), sum(n) FROM t";
    assert_eq!(session.read(count).await.unwrap().unwrap(), [[1_000, 500_500]]);

    std::fs::remove_file(ballast).unwrap();
    session.write_until_acknowledged(insert).await.unwrap();
    assert_eq!(session.read(count).await.unwrap().unwrap(), [[2_000, 1_001_000]]);
}
