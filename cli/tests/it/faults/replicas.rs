//! What only copies on other workers can give: reads that do not fail, disks that may be lost,
//! damage that is repaired.

use std::time::{Duration, Instant};

use basalt_sql_tests::faults::choices::Choices;
use basalt_sql_tests::faults::cluster::{Cluster, NodeId, Shape};
use basalt_sql_tests::faults::disk::{Damage, FileKind, Wanted};
use basalt_sql_tests::faults::figures::{DamageSeen, Figures};
use basalt_sql_tests::faults::nemesis::Nemesis;
use basalt_sql_tests::faults::power::PowerGrid;
use basalt_sql_tests::faults::proxy::Link;
use basalt_sql_tests::faults::runner::{Repro, Runner};
use basalt_sql_tests::faults::session::{RECOVERY_MAX, Session};
use basalt_sql_tests::faults::skip::skip;
use basalt_sql_tests::faults::violation::{Kind, Violation, expect};
use basalt_sql_tests::faults::workload::{Append, Queries, Workload};

use super::damage::{Answers, QUERIES, load};
use super::{Run, light_workload, report, shape};

const WORKERS: usize = 3;

/// How long one file may take to be whole again.
const REPAIR_MAX: Duration = Duration::from_secs(60);

fn worker(choices: &mut Choices) -> NodeId {
    NodeId::Worker(usize::try_from(choices.below(WORKERS as u64)).unwrap())
}

/// One worker of three is away for a while, and no query fails (P7), from those of one value to
/// those of all rows of a table of so many.
pub(super) async fn one_worker_away(run: Run, rows: i64) -> anyhow::Result<Figures> {
    let test = "faults::replicas::no_query_fails_while_one_worker_is_away";
    let workloads = |_: &std::path::Path| -> anyhow::Result<Vec<Box<dyn Workload>>> {
        Ok(vec![Box::new(Append::new(1, 1)), Box::new(Queries::new(2, rows))])
    };
    let mut runner = Runner::start(test, run.seed, repairing(), workloads).await?;
    runner.reads_must_not_fail();
    let schedule = |_: &_, _: u64, choices: &mut Choices| Nemesis::Kill {
        nodes: vec![worker(choices)],
        lasts: Duration::from_millis(500 + choices.below(3_000)),
    };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

/// One worker of three comes back with an empty disk; the next trial empties another one (P1).
pub(super) async fn wiped_disks(run: Run) -> anyhow::Result<Figures> {
    let test = "faults::replicas::a_wiped_disk_loses_nothing_and_is_filled_again";
    let mut runner = Runner::start(test, run.seed, repairing(), light_workload).await?;
    runner.reads_must_not_fail();
    let first = run.seed.wrapping_sub(1);
    let mut replications = Vec::new();
    for trial in 0..run.trials {
        let seed = run.seed.wrapping_add(trial);
        let number = first.wrapping_add(trial) % WORKERS as u64;
        let nemesis = Nemesis::Wipe(NodeId::Worker(usize::try_from(number)?));
        runner.trial(seed, &nemesis, &mut Choices::new(seed)).await?;
        let returned = Instant::now();
        wait_replicated(&mut Session::new(&runner.cluster().url())).await?;
        replications.push(returned.elapsed());
    }
    Ok(Figures { replications, ..runner.finish() })
}

/// Chunks that have fewer copies than they should, or one that is known to be bad.
const SHORT_OF_COPIES: &str = "SELECT count(*) FROM sys.chunks WHERE state <> 'full'";

/// Waits until every chunk has its copies again, and the command log: before, a second loss may be
/// one too many.
async fn wait_replicated(session: &mut Session) -> Result<(), Violation> {
    wait_log_copied(session).await?;
    let started = Instant::now();
    loop {
        let short = session.read_until_answered(SHORT_OF_COPIES).await?;
        if short == [[0]] {
            return Ok(());
        }
        let detail = || format!("{short:?} chunks are short of copies after {REPAIR_MAX:?}");
        expect(started.elapsed() < REPAIR_MAX, Kind::Hang, detail)?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A cluster that makes lost copies again soon, and reads all of them again and again.
fn repairing() -> Shape {
    let args = ["--repair-after", "2s", "--scrub-every", "1s", "--garbage-after", "5s"];
    let coordinator_args = args.map(str::to_owned).to_vec();
    Shape { coordinator_args, ..shape(WORKERS) }
}

/// The power of one node of four fails; the others go on.
pub(super) async fn power_of_one(run: Run) -> anyhow::Result<Figures> {
    if let Err(reason) = PowerGrid::possible() {
        skip("a power cut", &reason);
        let skipped = vec![format!("power cut of one node: {reason}")];
        return Ok(Figures { skipped, ..Figures::default() });
    }
    let mut shape = repairing();
    shape.power_cuts = true;
    let test = "faults::replicas::the_power_of_one_worker_fails_and_no_query_does";
    let mut runner = Runner::start(test, run.seed, shape, light_workload).await?;
    runner.reads_must_not_fail();
    let schedule = |_: &_, _: u64, choices: &mut Choices| Nemesis::PowerCutOf(worker(choices));
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

/// Two workers cannot reach each other while both reach the coordinator: nothing is acknowledged
/// with fewer copies (P4), which the loss of a worker afterwards would show.
pub(super) async fn no_copy_over_a_cut_link(run: Run) -> anyhow::Result<Figures> {
    let mut shape = repairing();
    shape.proxied = true;
    let test = "faults::replicas::nothing_is_acknowledged_with_fewer_copies";
    let mut runner = Runner::start(test, run.seed, shape, light_workload).await?;
    for trial in 0..run.trials {
        let seed = run.seed.wrapping_add(trial);
        let mut choices = Choices::new(seed);
        let one = worker(&mut choices);
        let mut others = runner.cluster().workers();
        others.retain(|other| *other != one);
        let other = *choices.pick(&others);
        let links = vec![(one, other, Link::hold()), (other, one, Link::hold())];
        let lasts = Duration::from_millis(500 + choices.below(2_000));
        runner.trial(seed, &Nemesis::Links { links, lasts }, &mut choices).await?;
        let lost = Nemesis::Wipe(one);
        runner.trial(seed, &lost, &mut choices).await?;
        wait_replicated(&mut Session::new(&runner.cluster().url())).await?;
    }
    Ok(runner.finish())
}

/// The coordinator comes back with an empty disk: the copies of its log have every commit.
pub(super) async fn coordinator_disk_lost(run: Run) -> anyhow::Result<Figures> {
    let test = "faults::replicas::a_coordinator_without_its_disk_has_every_commit";
    let mut runner = Runner::start(test, run.seed, repairing(), light_workload).await?;
    for trial in 0..run.trials {
        wait_log_copied(&mut Session::new(&runner.cluster().url())).await?;
        let seed = run.seed.wrapping_add(trial);
        runner.trial(seed, &Nemesis::LostCoordinator, &mut Choices::new(seed)).await?;
    }
    Ok(runner.finish())
}

/// Workers that keep a copy of the command log.
const LOG_COPIES: &str = "SELECT count(*) FROM sys.log_members \
                          WHERE member = 'worker' AND state IN ('current', 'lagging')";

/// Waits until the coordinator's disk is not the only one with the catalog.
async fn wait_log_copied(session: &mut Session) -> Result<(), Violation> {
    let started = Instant::now();
    loop {
        let copies = session.read_until_answered(LOG_COPIES).await?;
        if copies == [[2]] {
            return Ok(());
        }
        let detail = || format!("{copies:?} workers have the log after {REPAIR_MAX:?}");
        expect(started.elapsed() < REPAIR_MAX, Kind::Hang, detail)?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a damaged file is as it was.
async fn wait_repaired(damage: &Damage, home: &std::path::Path, before: &[u8]) -> bool {
    let started = Instant::now();
    while started.elapsed() < REPAIR_MAX {
        if std::fs::read(home.join(damage.file())).is_ok_and(|bytes| bytes == before) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// One damage that nobody takes back: answers are right at once, and the file is whole soon.
async fn repaired(
    cluster: &mut Cluster,
    (node, damage): &(NodeId, Damage),
    answers: &Answers,
) -> anyhow::Result<DamageSeen> {
    let home = cluster.home(*node).to_owned();
    let before = std::fs::read(home.join(damage.file()))?;
    cluster.kill(&[*node])?;
    damage.apply()?.leave();
    cluster.start_missing()?;
    let mut session = Session::new(&cluster.url());
    for ((_, sql), right) in QUERIES.into_iter().zip(answers) {
        let rows = session.read(sql).await?;
        let rows = rows.map_err(|error| Violation::new(Kind::Unavailable, error.to_string()))?;
        expect(rows == *right, Kind::WrongAnswer, || format!("{sql} gives {rows:?}"))?;
    }
    let whole = wait_repaired(damage, &home, &before).await;
    expect(whole, Kind::Undetected, || format!("not repaired within {REPAIR_MAX:?}"))?;
    Ok(DamageSeen { injected: 1, right: 1, repaired: 1, refused: 0 })
}

/// Damages one file after another.
pub(super) async fn repairs(run: Run) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir()?;
    let mut cluster = Cluster::start(repairing(), dir.path())?;
    let answers = load(&mut Session::new(&cluster.url()), 2).await?;
    let mut figures = Figures::default();
    for number in 0..run.trials {
        let seed = run.seed.wrapping_add(number);
        let mut choices = Choices::new(seed);
        let kinds = [FileKind::Column, FileKind::Pack, FileKind::SegmentMeta];
        let kind = kinds[usize::try_from(seed % kinds.len() as u64)?];
        let wanted = Wanted { file: Some(kind), ..Wanted::default() };
        let node = worker(&mut choices);
        let Some(damage) = Damage::choose(cluster.home(node), &wanted, &mut choices)? else {
            continue;
        };
        let chosen = (node, damage);
        let seen = repaired(&mut cluster, &chosen, &answers).await.inspect_err(|error| {
            let test = "faults::replicas::damage_is_repaired_from_a_copy".to_owned();
            Repro { test, seed, fault: chosen.1.to_string() }.print(&format!("FAILED {error:#}"));
        })?;
        *figures.trials.entry("damage to a file that has copies").or_default() += 1;
        let kind = figures.damage.entry(kind).or_default();
        kind.injected += seen.injected;
        kind.right += seen.right;
        kind.repaired += seen.repaired;
    }
    Ok(figures)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_fails_while_one_worker_is_away() {
    let run = Run::of(2);
    report("one worker away", run, &one_worker_away(run, 100_000).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_disk_loses_nothing_and_is_filled_again() {
    let run = Run::of(2);
    report("wiped disks", run, &wiped_disks(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_of_one_worker_fails_and_no_query_does() {
    let run = Run::of(2);
    report("power of one", run, &power_of_one(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_with_fewer_copies() {
    let run = Run::of(1);
    report("copies", run, &no_copy_over_a_cut_link(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_without_its_disk_has_every_commit() {
    let run = Run::of(2);
    report("coordinator's disk", run, &coordinator_disk_lost(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_repaired_from_a_copy() {
    let run = Run::of(4);
    report("repair", run, &repairs(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_worker_can_be_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(repairing(), dir.path()).unwrap();
    let answers = load(&mut Session::new(&cluster.url()), 2).await.unwrap();
    for node in cluster.workers() {
        cluster.kill(&[node]).unwrap();
        let mut session = Session::new(&cluster.url());
        for ((_, sql), right) in QUERIES.into_iter().zip(&answers) {
            assert_eq!(session.read(sql).await.unwrap().unwrap(), *right, "without {node}: {sql}");
        }
        cluster.start_missing().unwrap();
        let write = tokio::time::timeout(RECOVERY_MAX, async {
            session.write_until_acknowledged("INSERT INTO packed VALUES (0, 0)").await
        });
        write.await.expect("no write after a restart").unwrap();
        session.write_until_acknowledged("DELETE FROM packed WHERE n = 0").await.unwrap();
    }
}
