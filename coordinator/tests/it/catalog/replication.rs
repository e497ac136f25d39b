//! A catalog whose log has members: how many copies a commit waits for with no, one and two
//! workers, what happens when they go and come, and what a restart and a restore show. Members are
//! real copies in memory; the protocol under every kind of fault is `log_simulation`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use basalt_coordinator::catalog::ledger::{Answer, Ask, Timing};
use basalt_coordinator::catalog::links::{MemberLinks, Question};
use basalt_coordinator::catalog::restore::{Certainty, LogSource, detach, restore};
use basalt_coordinator::catalog::{
    Catalog, CatalogError, Change, LogStatus, NewCluster, Readable, RequestKey, verify,
};
use basalt_engine::log_protocol::MemberPosition;
use basalt_engine::secret::ClusterSecret;
use basalt_storage::command_log::{Append, LogCopy, Position};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use bytes::Bytes;
use tempfile::TempDir;
use url::Url;

use super::fixtures::{command, join};
use crate::log_simulation::log_disk::MemDisk;

/// Members in memory, which answer at once or not at all.
#[derive(Clone, Default)]
struct Machines(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    copies: BTreeMap<WorkerId, LogCopy>,
    down: BTreeSet<WorkerId>,
    /// They promise, and take no records.
    is_full: bool,
    appends: usize,
}

impl Machines {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_down(&self, worker: WorkerId, is_down: bool) {
        self.with(|inner| match is_down {
            true => inner.down.insert(worker),
            false => inner.down.remove(&worker),
        });
    }

    fn position(&self, worker: WorkerId) -> Position {
        self.with(|inner| inner.copies[&worker].position())
    }
}

fn url(worker: WorkerId) -> Url {
    Url::parse(&format!("http://{worker}.test")).unwrap()
}

impl MemberLinks for Machines {
    fn ask(&self, _: &Url, question: Question, answer: Box<dyn FnOnce(Answer) + Send>) {
        let worker = question.ask.worker;
        let run = question.run().unwrap();
        answer(self.with(|inner| {
            let is_down = inner.down.contains(&worker);
            let Some(copy) = inner.copies.get_mut(&worker).filter(|_| !is_down) else {
                return Answer::Failed("it is down".to_owned());
            };
            let promise = question.ask.promise;
            if inner.is_full && matches!(question.ask.ask, Ask::Append { .. }) {
                return Answer::Failed("its disk is full".to_owned());
            }
            let (verdict, upto) = match (question.ask.ask, run) {
                (Ask::Read { after }, _) => return Answer::Records(copy.read(after, 100).unwrap()),
                (Ask::Append { committed, .. }, Some((after, run))) => {
                    let records: Vec<Bytes> =
                        run.records.iter().map(|record| Bytes::copy_from_slice(record)).collect();
                    let upto = after + records.len() as u64;
                    inner.appends += usize::from(!records.is_empty());
                    let hash = run.hash;
                    let append = Append { promise, after, hash, records, committed };
                    (copy.append(&append).unwrap(), upto)
                }
                _ => (copy.promise(promise).unwrap(), 0),
            };
            Answer::Position { verdict, position: copy.position(), upto }
        }));
    }
}

/// Short enough for tests, long enough for a loaded machine.
fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        retry: Duration::from_millis(10),
        retry_max: Duration::from_millis(50),
        leave_out_after: Duration::from_millis(300),
        reclaim_after: Duration::from_millis(100),
        stall_after: Duration::from_millis(1000),
    }
}

struct Cluster {
    dir: TempDir,
    catalog: Catalog,
    machines: Machines,
    workers: Vec<WorkerId>,
}

impl Cluster {
    /// A cluster of so many workers, as many of which as are wanted keep copies.
    async fn start(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let created = Catalog::create(dir.path(), NewCluster::generate()).unwrap();
        let workers: Vec<_> = (0..count).map(|_| WorkerId::generate()).collect();
        if count > 0 {
            created.commit(command(join(&workers))).await.unwrap();
        }
        drop(created);
        let machines = Machines::default();
        for worker in &workers {
            let copy = LogCopy::open(Arc::new(MemDisk::default())).unwrap();
            machines.with(|inner| inner.copies.insert(*worker, copy));
        }
        let catalog = open(dir.path(), &machines, &workers);
        let cluster = Self { dir, catalog, machines, workers };
        cluster.wait_members(count.min(2)).await;
        cluster
    }

    async fn wait_members(&self, count: usize) {
        wait_for(&self.catalog, |status| members(status).len() == count && status.is_leading).await;
    }

    async fn commit(&self, name: &str) -> Result<u64, CatalogError> {
        commit(&self.catalog, name).await
    }
}

fn open(path: &Path, machines: &Machines, workers: &[WorkerId]) -> Catalog {
    let catalog = Catalog::open_timed(path, timing()).unwrap();
    catalog.replicate(Arc::new(machines.clone()));
    reach(&catalog, workers);
    catalog
}

/// Tells a coordinator which workers can be reached.
fn reach(catalog: &Catalog, workers: &[WorkerId]) {
    catalog.set_worker_urls(workers.iter().map(|worker| (*worker, url(*worker))).collect());
}

async fn commit(catalog: &Catalog, name: &str) -> Result<u64, CatalogError> {
    let change = Change::CreateSchema { name: name.to_owned() };
    catalog.commit(command(vec![change])).await.map(|committed| committed.version)
}

fn has(catalog: &Catalog, name: &str) -> bool {
    catalog.snapshot().schemas.contains_key(name)
}

fn members(status: &LogStatus) -> Vec<WorkerId> {
    status.members.iter().filter(|member| member.is_member).map(|member| member.worker).collect()
}

async fn wait_for(catalog: &Catalog, wanted: impl FnMut(&LogStatus) -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), catalog.wait_for_log(wanted)).await;
    waited.unwrap_or_else(|_| panic!("{:?}", catalog.log_status()));
}

async fn wait_shown(catalog: &Catalog, name: &str) {
    let shown = catalog.wait_for(|snapshot| snapshot.schemas.contains_key(name));
    let waited = tokio::time::timeout(Duration::from_secs(30), shown).await;
    waited.unwrap_or_else(|_| panic!("{:?}", catalog.log_status()));
}

#[tokio::test]
async fn without_workers_the_coordinator_alone_makes_commits_durable() {
    let cluster = Cluster::start(0).await;
    cluster.commit("a").await.unwrap();
    let status = cluster.catalog.log_status();
    assert_eq!((status.readable, status.log_epoch.0), (Readable::Yes, 0));
    assert!(status.members.is_empty());
}

#[tokio::test]
async fn with_one_worker_both_have_every_commit_and_without_it_there_is_none() {
    let cluster = Cluster::start(1).await;
    let worker = cluster.workers[0];
    let version = cluster.commit("a").await.unwrap();
    assert_eq!(cluster.machines.position(worker).tail.seq, version);
    cluster.machines.set_down(worker, true);
    let unknown = cluster.commit("b").await.unwrap_err();
    assert!(matches!(unknown, CatalogError::OutcomeUnknown { .. }), "{unknown}");
    assert!(unknown.to_string().contains("needs 2 of its 2 members"), "{unknown}");
    let refused = cluster.commit("c").await.unwrap_err();
    assert!(matches!(refused, CatalogError::LogUnavailable { .. }), "{refused}");
    assert!(!has(&cluster.catalog, "b"), "nobody sees what one copy has");
    assert!(has(&cluster.catalog, "a"));
    // The one whose outcome was unknown is there in the end, the one that was refused is not.
    cluster.machines.set_down(worker, false);
    wait_shown(&cluster.catalog, "b").await;
    cluster.commit("d").await.unwrap();
    assert!(!has(&cluster.catalog, "c"));
}

#[tokio::test]
async fn with_two_workers_the_death_of_one_costs_no_commit_and_it_comes_back() {
    let cluster = Cluster::start(2).await;
    let (dead, other) = (cluster.workers[0], cluster.workers[1]);
    cluster.machines.set_down(dead, true);
    for number in 0..20 {
        cluster.commit(&format!("s{number}")).await.unwrap();
    }
    cluster.wait_members(1).await;
    assert_eq!(members(&cluster.catalog.log_status()), [other]);
    let version = cluster.commit("without_it").await.unwrap();
    assert_eq!(cluster.machines.position(other).tail.seq, version);
    cluster.machines.set_down(dead, false);
    cluster.wait_members(2).await;
    wait_for(&cluster.catalog, |status| status.members.iter().all(|m| m.seq == status.seq)).await;
    assert_eq!(cluster.machines.position(dead).tail, cluster.machines.position(other).tail);
}

#[tokio::test]
async fn a_third_worker_takes_the_place_of_a_dead_member() {
    let cluster = Cluster::start(3).await;
    let before = members(&cluster.catalog.log_status());
    let spare = *cluster.workers.iter().find(|worker| !before.contains(worker)).unwrap();
    cluster.machines.set_down(before[0], true);
    wait_for(&cluster.catalog, |status| members(status).contains(&spare)).await;
    let version = cluster.commit("a").await.unwrap();
    wait_for(&cluster.catalog, |status| {
        status.members.iter().any(|member| member.worker == spare && member.seq >= version)
    })
    .await;
    assert_eq!(members(&cluster.catalog.log_status()).len(), 2);
}

fn drain(worker: WorkerId) -> Change {
    Change::DrainWorker { worker, drain: true }
}

#[tokio::test]
async fn a_drained_member_leaves_when_another_worker_has_its_place_and_only_then_the_cluster() {
    let cluster = Cluster::start(3).await;
    let drained = members(&cluster.catalog.log_status())[0];
    let others = cluster.workers.iter().copied().filter(|worker| *worker != drained);
    let owners = others.cycle().take(16).collect();
    let assign = Change::AssignSlices { epoch: Epoch(2), owners };
    cluster.catalog.commit(command(vec![assign])).await.unwrap();
    let remove = || command(vec![Change::RemoveWorker { worker: drained }]);
    let refused = cluster.catalog.commit(remove()).await.unwrap_err().to_string();
    assert!(refused.contains("keeps a copy of the command log still"), "{refused}");
    cluster.catalog.commit(command(vec![drain(drained)])).await.unwrap();
    let has_left = |status: &LogStatus| {
        let members = members(status);
        members.len() == 2 && !members.contains(&drained)
    };
    wait_for(&cluster.catalog, has_left).await;
    cluster.catalog.commit(remove()).await.unwrap();
    cluster.commit("a").await.unwrap();
}

#[tokio::test]
async fn the_last_member_stays_one_though_it_is_drained() {
    let cluster = Cluster::start(1).await;
    let only = cluster.workers[0];
    cluster.catalog.commit(command(vec![drain(only)])).await.unwrap();
    let version = cluster.commit("a").await.unwrap();
    assert_eq!(members(&cluster.catalog.log_status()), [only]);
    assert_eq!(cluster.machines.position(only).tail.seq, version);
}

#[tokio::test]
async fn a_quiet_cluster_is_restored_without_the_member_that_was_replaced() {
    let cluster = Cluster::start(3).await;
    let dead = members(&cluster.catalog.log_status())[0];
    cluster.machines.set_down(dead, true);
    wait_for(&cluster.catalog, |status| {
        !members(status).contains(&dead) && members(status).len() == 2
    })
    .await;
    let secret = cluster.catalog.secret().clone();
    loop {
        let seq = cluster.catalog.log_status().seq;
        let dir = tempfile::tempdir().unwrap();
        if restore(dir.path(), &secret, &sources(&cluster), Certainty::Required).is_ok() {
            break;
        }
        // Nobody commits anything: what settles the new set is the catalog's own.
        wait_for(&cluster.catalog, |status| status.seq > seq).await;
    }
}

#[tokio::test]
async fn only_a_coordinator_that_members_answer_is_confirmed() {
    let cluster = Cluster::start(2).await;
    cluster.catalog.confirm().await.unwrap();
    let secret = cluster.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &secret, &sources(&cluster), Certainty::Required).unwrap();
    let new = open(dir.path(), &cluster.machines, &cluster.workers);
    new.confirm().await.unwrap();
    let refused = cluster.catalog.confirm().await.unwrap_err();
    assert!(matches!(refused, CatalogError::Stopped { .. }), "{refused}");
    new.confirm().await.unwrap();
}

#[tokio::test]
async fn commits_that_wait_together_share_one_append() {
    let cluster = Cluster::start(1).await;
    let before = cluster.machines.with(|inner| inner.appends);
    let names: Vec<_> = (0..200).map(|number| format!("s{number}")).collect();
    let commits = names.iter().map(|name| cluster.commit(name));
    let results = futures::future::join_all(commits).await;
    assert!(results.iter().all(Result::is_ok));
    let appends = cluster.machines.with(|inner| inner.appends) - before;
    assert!(appends <= 20, "{appends} appends for 200 commits");
}

/// What a crash at this moment leaves: the same file with the content of now.
fn crash(cluster: Cluster) -> (TempDir, Machines, Vec<WorkerId>) {
    let Cluster { dir, catalog, machines, workers } = cluster;
    let path = dir.path().join("catalog.redb");
    let image = std::fs::read(&path).unwrap();
    drop(catalog);
    std::fs::write(&path, image).unwrap();
    (dir, machines, workers)
}

#[tokio::test]
async fn after_a_crash_nothing_is_shown_until_a_member_has_said_what_was_acknowledged() {
    let cluster = Cluster::start(2).await;
    cluster.commit("a").await.unwrap();
    cluster.commit("b").await.unwrap();
    let (dir, machines, workers) = crash(cluster);
    for worker in &workers {
        machines.set_down(*worker, true);
    }
    let catalog = open(dir.path(), &machines, &workers);
    assert!(matches!(catalog.log_status().readable, Readable::NotYet(_)));
    let refused = commit(&catalog, "c").await.unwrap_err();
    assert!(matches!(refused, CatalogError::LogUnavailable { .. }), "{refused}");
    machines.set_down(workers[1], false);
    catalog.readable().await.unwrap();
    assert!(has(&catalog, "a") && has(&catalog, "b") && !has(&catalog, "c"));
    commit(&catalog, "d").await.unwrap();
}

#[tokio::test]
async fn what_only_a_member_has_after_a_crash_is_taken_over() {
    let cluster = Cluster::start(2).await;
    let path = cluster.dir.path().join("catalog.redb");
    let older = std::fs::read(&path).unwrap();
    cluster.commit("a").await.unwrap();
    let Cluster { dir, catalog, machines, workers } = cluster;
    drop(catalog);
    // The members wrote faster than the coordinator's own disk, in one start of it: an image of an
    // earlier one is another coordinator (`log/owner.rs`).
    std::fs::write(&path, older).unwrap();
    let catalog = open(dir.path(), &machines, &workers);
    wait_shown(&catalog, "a").await;
    commit(&catalog, "b").await.unwrap();
    drop(catalog);
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[tokio::test]
async fn a_retry_under_its_key_is_not_answered_by_what_is_not_durable() {
    let cluster = Cluster::start(1).await;
    let worker = cluster.workers[0];
    let version = cluster.commit("a").await.unwrap();
    let labelled = || {
        let key = RequestKey::new("label").unwrap();
        let create = Change::CreateSchema { name: "b".to_owned() };
        command(vec![create]).with_request(key, Digest::of(b"b"))
    };
    cluster.machines.set_down(worker, true);
    let unknown = cluster.catalog.commit(labelled()).await.unwrap_err();
    assert!(matches!(unknown, CatalogError::OutcomeUnknown { .. }), "{unknown}");
    for _ in 0..3 {
        let refused = cluster.catalog.commit(labelled()).await.unwrap_err();
        assert!(matches!(refused, CatalogError::LogUnavailable { .. }), "{refused}");
        assert!(cluster.catalog.requests().await.unwrap().is_empty());
    }
    assert_eq!(cluster.catalog.snapshot().version, version);
    cluster.machines.set_down(worker, false);
    wait_shown(&cluster.catalog, "b").await;
    let again = cluster.catalog.commit(labelled()).await.unwrap();
    assert!(again.replayed && again.version == version + 1, "{again:?}");
}

#[tokio::test]
async fn a_coordinator_that_stalls_on_its_first_record_leads_when_members_take_it() {
    let cluster = Cluster::start(1).await;
    cluster.commit("a").await.unwrap();
    let Cluster { dir, catalog, machines, workers } = cluster;
    drop(catalog);
    machines.with(|inner| inner.is_full = true);
    let catalog = open(dir.path(), &machines, &workers);
    for _ in 0..3 {
        let refused = commit(&catalog, "b").await.unwrap_err();
        assert!(matches!(refused, CatalogError::LogUnavailable { .. }), "{refused}");
    }
    machines.with(|inner| inner.is_full = false);
    wait_for(&catalog, |status| status.is_leading).await;
    commit(&catalog, "c").await.unwrap();
}

#[tokio::test]
async fn a_catalog_that_waits_for_members_is_dropped_at_once() {
    let cluster = Cluster::start(2).await;
    let Cluster { dir, catalog, machines, workers } = cluster;
    drop(catalog);
    for worker in workers {
        machines.set_down(worker, true);
    }
    let catalog = Catalog::open(dir.path()).unwrap();
    let began = std::time::Instant::now();
    drop(catalog);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

struct Source {
    cluster: ClusterId,
    worker: WorkerId,
    machines: Machines,
}

impl LogSource for Source {
    fn name(&self) -> String {
        self.worker.to_string()
    }

    fn position(&self) -> Result<MemberPosition, String> {
        if self.machines.with(|inner| inner.down.contains(&self.worker)) {
            return Err("it is down".to_owned());
        }
        let position = self.machines.position(self.worker);
        Ok(MemberPosition { cluster: self.cluster, worker: self.worker, position })
    }

    fn read(&self, _: ClusterId, after: u64) -> Result<Vec<Bytes>, String> {
        self.machines.with(|inner| {
            inner.copies[&self.worker].read(after, 1000).map_err(|error| error.to_string())
        })
    }
}

fn sources(cluster: &Cluster) -> Vec<Box<dyn LogSource>> {
    let id = cluster.catalog.cluster().cluster;
    let source = |worker: &WorkerId| {
        let machines = cluster.machines.clone();
        Box::new(Source { cluster: id, worker: *worker, machines }) as Box<dyn LogSource>
    };
    cluster.workers.iter().map(source).collect()
}

#[tokio::test]
async fn a_coordinator_whose_disk_is_gone_comes_back_with_everything_and_the_old_one_is_fenced() {
    let old = Cluster::start(2).await;
    for number in 0..30 {
        old.commit(&format!("s{number}")).await.unwrap();
    }
    let seen = old.catalog.snapshot();
    let secret = old.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    let restored = restore(dir.path(), &secret, &sources(&old), Certainty::Required).unwrap();
    assert!(restored.doubts.is_empty() && restored.records == seen.version, "{restored:?}");
    assert!(verify(dir.path()).unwrap().is_sound());
    let new = open(dir.path(), &old.machines, &old.workers);
    new.readable().await.unwrap();
    wait_for(&new, |status| status.is_leading).await;
    assert_eq!(new.snapshot().schemas.len(), seen.schemas.len());
    assert_eq!(new.secret(), &secret);
    commit(&new, "after").await.unwrap();
    // The old one was only slow: it learns that it was replaced, and shows nothing any more.
    wait_for(&old.catalog, |status| matches!(status.readable, Readable::No(_))).await;
    assert!(old.commit("too_late").await.is_err());
    assert!(matches!(old.catalog.readable().await, Err(CatalogError::Stopped { .. })));
    commit(&new, "goes_on").await.unwrap();
    // Started again it is told the same.
    let (old_dir, machines, workers) = crash(old);
    let again = open(old_dir.path(), &machines, &workers);
    wait_for(&again, |status| matches!(status.readable, Readable::No(_))).await;
    commit(&new, "and_on").await.unwrap();
}

#[tokio::test]
async fn a_restored_coordinator_shows_nothing_before_members_have_promised() {
    let old = Cluster::start(2).await;
    old.commit("a").await.unwrap();
    let secret = old.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &secret, &sources(&old), Certainty::Required).unwrap();
    let Cluster { dir: _old, catalog, machines, workers } = old;
    drop(catalog);
    for worker in &workers {
        machines.set_down(*worker, true);
    }
    // Also when it was started before and nobody answered.
    for _ in 0..2 {
        let new = open(dir.path(), &machines, &workers);
        assert!(matches!(new.log_status().readable, Readable::NotYet(_)));
        assert!(!has(&new, "a"));
    }
    for worker in &workers {
        machines.set_down(*worker, false);
    }
    let new = open(dir.path(), &machines, &workers);
    new.readable().await.unwrap();
    assert!(has(&new, "a"));
}

#[tokio::test]
async fn a_copied_coordinator_shows_nothing_before_members_have_promised() {
    let Cluster { dir, catalog, machines, workers } = Cluster::start(2).await;
    commit(&catalog, "a").await.unwrap();
    drop(catalog);
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    workers.iter().for_each(|worker| machines.set_down(*worker, true));
    let readable =
        |dir: &tempfile::TempDir| open(dir.path(), &machines, &workers).log_status().readable;
    assert!(matches!(readable(&copy), Readable::NotYet(_)), "the other one may have gone on");
    assert_eq!(readable(&dir), Readable::Yes, "all of it is known to be durable");
}

#[tokio::test]
async fn a_large_log_that_was_restored_opens_after_a_crash() {
    let old = Cluster::start(2).await;
    for number in 0..6 {
        let (schema, name) = ("public".to_owned(), format!("v{number}"));
        let query = format!("SELECT '{}'", "x".repeat(1_000_000));
        let view = Change::CreateView { schema, name, query };
        old.catalog.commit(command(vec![view])).await.unwrap();
    }
    let secret = old.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &secret, &sources(&old), Certainty::Required).unwrap();
    let new = open(dir.path(), &old.machines, &old.workers);
    new.readable().await.unwrap();
    let path = dir.path().join("catalog.redb");
    let image = std::fs::read(&path).unwrap();
    drop(new);
    std::fs::write(&path, image).unwrap();
    let again = open(dir.path(), &old.machines, &old.workers);
    commit(&again, "a").await.unwrap();
}

#[tokio::test]
async fn a_takeover_makes_a_new_epoch_of_the_slices_too() {
    let old = Cluster::start(2).await;
    let before = old.catalog.cluster();
    assert!(!before.slice_owners.is_empty());
    let secret = old.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &secret, &sources(&old), Certainty::Required).unwrap();
    let epoch = |catalog: &Catalog| catalog.cluster().epoch;
    let new = open(dir.path(), &old.machines, &old.workers);
    new.readable().await.unwrap();
    assert_eq!(epoch(&new), Epoch(before.epoch.0 + 1), "plans of the old one are stale");
    assert_eq!(new.cluster().slice_owners, before.slice_owners);
    drop(new);
    let again = open(dir.path(), &old.machines, &old.workers);
    again.readable().await.unwrap();
    assert_eq!(epoch(&again), Epoch(before.epoch.0 + 1), "a restart takes over from nobody");
}

#[tokio::test]
async fn records_that_an_operator_gave_up_are_not_overwritten() {
    let cluster = Cluster::start(2).await;
    let (lost, left) = (cluster.workers[0], cluster.workers[1]);
    cluster.machines.set_down(left, true);
    cluster.commit("only_on_the_lost").await.unwrap();
    cluster.machines.set_down(lost, true);
    cluster.machines.set_down(left, false);
    let secret = cluster.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &secret, &sources(&cluster), Certainty::Waived).unwrap();
    let Cluster { dir: _old, catalog, machines, workers } = cluster;
    drop(catalog);
    let new = open(dir.path(), &machines, &workers);
    commit(&new, "b").await.unwrap();
    let tail = machines.position(lost).tail;
    machines.set_down(lost, false);
    let is_told = |status: &LogStatus| {
        let found = status.members.iter().find(|member| member.worker == lost);
        let problem = found.and_then(|member| member.problem.as_deref());
        problem.is_some_and(|problem| problem.contains("an operator has given up"))
    };
    wait_for(&new, is_told).await;
    commit(&new, "c").await.unwrap();
    assert_eq!(machines.position(lost).tail, tail);
    // Emptied and started again, it is filled like any other.
    machines.with(|inner| {
        inner.copies.insert(lost, LogCopy::open(Arc::new(MemDisk::default())).unwrap())
    });
    reach(&new, &[left]);
    tokio::time::sleep(timing().heartbeat).await;
    reach(&new, &workers);
    let is_filled = |status: &LogStatus| {
        status.members.iter().any(|it| it.worker == lost && it.is_member && it.problem.is_none())
    };
    wait_for(&new, is_filled).await;
}

#[tokio::test]
async fn a_restore_without_enough_copies_is_refused_and_says_which_are_missing() {
    let cluster = Cluster::start(2).await;
    cluster.commit("a").await.unwrap();
    let missing = cluster.workers[0];
    cluster.machines.set_down(missing, true);
    let secret = ClusterSecret::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let again = |certainty| restore(dir.path(), &secret, &sources(&cluster), certainty);
    let refused = again(Certainty::Required).unwrap_err().to_string();
    assert!(refused.contains("needs the copies of 2 of these workers"), "{refused}");
    assert!(refused.contains(&format!("{missing} (has not answered)")), "{refused}");
    assert!(!dir.path().join("catalog.redb").try_exists().unwrap());
    // The operator knows that the other one is gone for good.
    let restored = again(Certainty::Waived).unwrap();
    assert_eq!((restored.answered.len(), restored.doubts.len()), (1, 1));
    let new = open(dir.path(), &cluster.machines, &cluster.workers);
    new.readable().await.unwrap();
    assert!(has(&new, "a"));
    commit(&new, "b").await.unwrap();
}

#[tokio::test]
async fn one_copy_is_enough_where_the_set_had_one_worker() {
    let cluster = Cluster::start(1).await;
    cluster.commit("a").await.unwrap();
    let secret = cluster.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &secret, &sources(&cluster), Certainty::Required).unwrap();
    let new = open(dir.path(), &cluster.machines, &cluster.workers);
    new.readable().await.unwrap();
    assert!(has(&new, "a"));
}

#[tokio::test]
async fn nothing_is_restored_over_a_catalog_or_from_nobody() {
    let cluster = Cluster::start(1).await;
    let secret = cluster.catalog.secret().clone();
    let dir = tempfile::tempdir().unwrap();
    cluster.machines.set_down(cluster.workers[0], true);
    let refused = restore(dir.path(), &secret, &sources(&cluster), Certainty::Waived).unwrap_err();
    assert!(refused.to_string().contains("no copy of the log answers"), "{refused}");
    let (old, ..) = crash(cluster);
    let refused = restore(old.path(), &secret, &[], Certainty::Waived).unwrap_err();
    assert!(matches!(refused, CatalogError::ClusterExists { .. }), "{refused}");
}

#[tokio::test]
async fn a_coordinator_goes_on_alone_when_its_operator_says_so() {
    let cluster = Cluster::start(1).await;
    let worker = cluster.workers[0];
    cluster.commit("a").await.unwrap();
    cluster.machines.set_down(worker, true);
    let Cluster { dir, catalog, machines, workers } = cluster;
    drop(catalog);
    assert_eq!(detach(dir.path()).unwrap(), [worker]);
    assert_eq!(detach(dir.path()).unwrap(), []);
    let catalog = open(dir.path(), &machines, &workers);
    commit(&catalog, "b").await.unwrap();
    machines.set_down(worker, false);
    wait_for(&catalog, |status| members(status) == [worker]).await;
    commit(&catalog, "c").await.unwrap();
}

#[tokio::test]
async fn a_damaged_record_of_the_own_copy_is_taken_from_a_member() {
    use redb::{Database, TableDefinition};
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
    let cluster = Cluster::start(1).await;
    for name in ["a", "b", "c"] {
        cluster.commit(name).await.unwrap();
    }
    let good = cluster.machines.with(|inner| {
        inner.copies[&cluster.workers[0]].read(3, 1).unwrap().into_iter().next().unwrap()
    });
    let Cluster { dir, catalog, machines, workers } = cluster;
    drop(catalog);
    let path = dir.path().join("catalog.redb");
    let sound = std::fs::read(&path).unwrap();
    let edit = |bytes: &[u8]| {
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(LOG).unwrap().insert(4, bytes).unwrap();
        txn.commit().unwrap();
    };
    let mut bad = good.to_vec();
    bad[80] ^= 1;
    edit(&bad);
    let damaged = std::fs::read(&path).unwrap();
    std::fs::write(&path, sound).unwrap();
    let catalog = open(dir.path(), &machines, &workers);
    catalog.readable().await.unwrap();
    let log = catalog.log();
    assert!(log.verify().unwrap().is_none());
    assert!(!log.repair(4, &bad).unwrap(), "a damaged record repairs nothing");
    assert!(!log.repair(5, &good).unwrap(), "nor does another one");
    assert!(log.repair(4, &good).unwrap());
    drop(catalog);
    // The same on a log that is damaged: opening it refuses, and reading it finds which record.
    std::fs::write(&path, damaged).unwrap();
    let refused = Catalog::open(dir.path()).err().unwrap().to_string();
    assert!(refused.contains("log record 4"), "{refused}");
}
