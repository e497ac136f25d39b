//! A coordinator made again from the copies of members, or that goes on without them.

use std::sync::Arc;

use basalt_coordinator::catalog::restore::{Certainty, LogSource, detach, restore};
use basalt_coordinator::catalog::{Catalog, CatalogError, Change, LogStatus, Readable, verify};
use basalt_engine::log_protocol::MemberPosition;
use basalt_engine::secret::ClusterSecret;
use basalt_storage::command_log::LogCopy;
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use bytes::Bytes;

use super::fixtures::{Cluster, Machines, commit, crash, has, members, open, reach, wait_for};
use crate::catalog::fixtures::command;
use crate::log_simulation::log_disk::MemDisk;

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
    let is_gone =
        |status: &LogStatus| status.members.iter().any(|it| it.worker == lost && !it.is_reachable);
    wait_for(&new, is_gone).await;
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
