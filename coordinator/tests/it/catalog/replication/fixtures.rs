//! A coordinator and members of its log that are real copies in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use basalt_coordinator::catalog::ledger::{Answer, Ask, Timing};
use basalt_coordinator::catalog::links::{MemberLinks, Question};
use basalt_coordinator::catalog::{Catalog, CatalogError, Change, LogStatus, NewCluster};
use basalt_storage::command_log::{Append, LogCopy, Position};
use basalt_storage::ids::WorkerId;
use bytes::Bytes;
use tempfile::TempDir;
use url::Url;

use crate::catalog::fixtures::{command, join};
use crate::log_simulation::log_disk::MemDisk;

/// Members in memory, which answer at once or not at all.
#[derive(Clone, Default)]
pub(super) struct Machines(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(super) struct Inner {
    pub(super) copies: BTreeMap<WorkerId, LogCopy>,
    pub(super) down: BTreeSet<WorkerId>,
    /// They promise, and take no records.
    pub(super) is_full: bool,
    pub(super) appends: usize,
}

impl Machines {
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_down(&self, worker: WorkerId, is_down: bool) {
        self.with(|inner| match is_down {
            true => inner.down.insert(worker),
            false => inner.down.remove(&worker),
        });
    }

    pub(super) fn position(&self, worker: WorkerId) -> Position {
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
pub(super) fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        retry: Duration::from_millis(10),
        retry_max: Duration::from_millis(50),
        leave_out_after: Duration::from_millis(300),
        reclaim_after: Duration::from_millis(100),
        stall_after: Duration::from_millis(1000),
    }
}

pub(super) struct Cluster {
    pub(super) dir: TempDir,
    pub(super) catalog: Catalog,
    pub(super) machines: Machines,
    pub(super) workers: Vec<WorkerId>,
}

impl Cluster {
    /// A cluster of so many workers, as many of which as are wanted keep copies.
    pub(super) async fn start(count: usize) -> Self {
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

    pub(super) async fn wait_members(&self, count: usize) {
        wait_for(&self.catalog, |status| members(status).len() == count && status.is_leading).await;
    }

    pub(super) async fn commit(&self, name: &str) -> Result<u64, CatalogError> {
        commit(&self.catalog, name).await
    }
}

pub(super) fn open(path: &Path, machines: &Machines, workers: &[WorkerId]) -> Catalog {
    open_timed(path, machines, workers, timing())
}

pub(super) fn open_timed(
    path: &Path,
    machines: &Machines,
    workers: &[WorkerId],
    timing: Timing,
) -> Catalog {
    let catalog = Catalog::open_timed(path, timing).unwrap();
    catalog.replicate(Arc::new(machines.clone()));
    reach(&catalog, workers);
    catalog
}

/// Tells a coordinator which workers can be reached.
pub(super) fn reach(catalog: &Catalog, workers: &[WorkerId]) {
    catalog.set_worker_urls(workers.iter().map(|worker| (*worker, url(*worker))).collect());
}

pub(super) async fn commit(catalog: &Catalog, name: &str) -> Result<u64, CatalogError> {
    let change = Change::CreateSchema { name: name.to_owned() };
    catalog.commit(command(vec![change])).await.map(|committed| committed.version)
}

pub(super) fn has(catalog: &Catalog, name: &str) -> bool {
    catalog.snapshot().schemas.contains_key(name)
}

pub(super) fn members(status: &LogStatus) -> Vec<WorkerId> {
    status.members.iter().filter(|member| member.is_member).map(|member| member.worker).collect()
}

pub(super) async fn wait_for(catalog: &Catalog, wanted: impl FnMut(&LogStatus) -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), catalog.wait_for_log(wanted)).await;
    waited.unwrap_or_else(|_| panic!("{:?}", catalog.log_status()));
}

pub(super) async fn wait_shown(catalog: &Catalog, name: &str) {
    let shown = catalog.wait_for(|snapshot| snapshot.schemas.contains_key(name));
    let waited = tokio::time::timeout(Duration::from_secs(30), shown).await;
    waited.unwrap_or_else(|_| panic!("{:?}", catalog.log_status()));
}

/// What a crash at this moment leaves: the same file with the content of now.
pub(super) fn crash(cluster: Cluster) -> (TempDir, Machines, Vec<WorkerId>) {
    let Cluster { dir, catalog, machines, workers } = cluster;
    let path = dir.path().join("catalog.redb");
    let image = std::fs::read(&path).unwrap();
    drop(catalog);
    std::fs::write(&path, image).unwrap();
    (dir, machines, workers)
}
