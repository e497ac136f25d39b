//! Membership: who may join and who lives (a table of decisions), who owns what (properties),
//! and the shell that joins both with the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_coordinator::catalog::{Catalog, NewCluster};
use basalt_coordinator::membership::{
    Beat, Incarnation, Join, Liveness, MemberState, Members, Refusal, RegisterError, Roster,
    Versions,
};
use basalt_coordinator::placement::Candidate;
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use futures::future::join_all;
use url::Url;
use uuid::Uuid;

use crate::catalog::fixtures::{command, join, new_table, segment};

const EPOCH: Epoch = Epoch(5);

fn versions() -> Versions {
    Versions { binary: "0.1.0".to_owned(), protocol: 1 }
}

fn url(port: u16) -> Url {
    format!("http://127.0.0.1:{port}").parse().unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A roster with the default times (suspect after 2 s, dead after 10 s) and one member that
/// registered at 0 s from port 1 and was last heard of at 0 s.
struct Scene {
    roster: Roster,
    member: Join,
}

impl Scene {
    fn new() -> Self {
        let cluster = ClusterId::generate();
        let mut roster = Roster::new(cluster, Liveness::default(), versions());
        let member = Join {
            cluster: Some(cluster),
            worker: WorkerId::generate(),
            incarnation: Incarnation::generate(),
            url: url(1),
            versions: versions(),
            epoch: EPOCH,
            candidate: Candidate::default(),
        };
        roster.register(member.clone(), EPOCH, at(0)).unwrap();
        let mut scene = Self { roster, member };
        assert_eq!(scene.beat(0), Beat::Alive { changed: true });
        scene
    }

    fn beat(&mut self, seconds: u64) -> Beat {
        let Join { worker, incarnation, .. } = self.member;
        self.roster.heartbeat(worker, incarnation, EPOCH, EPOCH, at(seconds))
    }

    fn state(&self, seconds: u64) -> MemberState {
        let members = self.roster.members(at(seconds));
        members.iter().find(|member| member.worker == self.member.worker).unwrap().state
    }
}

/// Registers a changed copy of the member at some second.
fn registers(seconds: u64, edit: impl FnOnce(&mut Join)) -> Result<(), Refusal> {
    let mut scene = Scene::new();
    let mut join = scene.member.clone();
    edit(&mut join);
    scene.roster.register(join, EPOCH, at(seconds))
}

fn restart(join: &mut Join) {
    join.incarnation = Incarnation::generate();
    join.url = url(2);
}

#[test]
fn the_same_worker_may_come_again_when_its_old_process_cannot_be_alive() {
    assert_eq!(registers(1, |_| {}), Ok(()), "the same process, its answer was lost");
    assert_eq!(registers(1, |j| j.url = url(2)), Ok(()), "the same process, another address");
    assert_eq!(registers(1, |j| j.incarnation = Incarnation::generate()), Ok(()), "same address");
    assert_eq!(registers(2, restart), Ok(()), "the old process is suspect");
    assert_eq!(registers(20, restart), Ok(()), "the old process is dead");
    let refused = registers(1, restart).unwrap_err();
    assert!(refused.is_retryable());
    assert!(
        matches!(&refused, Refusal::AlreadyLive { retry_after, .. } if *retry_after == at(1)),
        "{refused}"
    );
}

#[test]
fn a_worker_that_left_in_good_order_may_come_back_at_once() {
    let mut scene = Scene::new();
    let mut back = scene.member.clone();
    restart(&mut back);
    scene.roster.leave(back.worker, back.incarnation);
    assert_eq!(scene.state(1), MemberState::Live, "another incarnation cannot leave for it");
    scene.roster.leave(scene.member.worker, scene.member.incarnation);
    assert_eq!(scene.state(1), MemberState::Dead);
    assert_eq!(scene.beat(1), Beat::Register);
    scene.roster.register(back, EPOCH, at(1)).unwrap();
    assert_eq!(scene.beat(1), Beat::Register, "the old process is fenced");
    assert_eq!(scene.state(1), MemberState::Joining);
}

#[test]
fn strangers_are_refused_for_good() {
    let check = |edit: fn(&mut Join), message: &str| {
        let refused = registers(20, edit).unwrap_err();
        assert!(!refused.is_retryable());
        assert!(refused.to_string().contains(message), "{refused}");
    };
    check(|j| j.cluster = Some(ClusterId::generate()), "data directory belongs to cluster");
    check(|j| j.versions.protocol = 2, "the worker runs version 0.1.0 with protocol 2");
    check(|j| j.versions.binary = "0.2.0".into(), "the worker runs version 0.2.0");
    check(|j| j.epoch = Epoch(6), "has seen epoch 6, and this coordinator is at epoch 5");
    let bad = ["ftp://localhost:1", "http://u:p@localhost:1", "http://localhost:1/path"];
    let bad = bad.into_iter().chain(["http://localhost:1?q", "unix:/x", "http://10.0.0.1:1"]);
    for bad in bad {
        let refused = registers(20, |j| j.url = bad.parse().unwrap()).unwrap_err();
        assert!(matches!(refused, Refusal::BadAddress { .. }), "{bad}: {refused}");
    }
}

#[test]
fn a_worker_with_a_new_directory_names_no_cluster_and_joins() {
    let new = |join: &mut Join| {
        join.cluster = None;
        join.worker = WorkerId::generate();
        join.epoch = Epoch(0);
        join.url = url(2);
    };
    assert_eq!(registers(1, new), Ok(()));
}

#[test]
fn an_address_has_one_worker() {
    let other = |join: &mut Join| join.worker = WorkerId::generate();
    let refused = registers(1, other).unwrap_err();
    assert!(matches!(refused, Refusal::AddressTaken { .. }) && refused.is_retryable());

    let mut scene = Scene::new();
    let mut join = scene.member.clone();
    other(&mut join);
    let worker = join.worker;
    scene.roster.register(join, EPOCH, at(3)).unwrap();
    assert_eq!(scene.state(3), MemberState::Dead, "the silent holder lost its address");
    assert_eq!(scene.roster.urls(at(3)), BTreeMap::from([(worker, url(1))]));
}

#[test]
fn silence_makes_a_suspect_then_a_dead_worker_and_a_heartbeat_revives_the_first_only() {
    let mut scene = Scene::new();
    assert_eq!([1, 2, 9, 10].map(|s| scene.state(s)), {
        use MemberState::{Dead, Live, Suspect};
        [Live, Suspect, Suspect, Dead]
    });
    assert!(!scene.roster.urls(at(9)).is_empty(), "a suspect is better than nobody");
    assert!(scene.roster.urls(at(10)).is_empty());
    assert_eq!(scene.beat(1), Beat::Alive { changed: false });
    assert_eq!(scene.beat(9), Beat::Alive { changed: true });
    assert_eq!(scene.state(10), MemberState::Live);
    assert_eq!(scene.beat(30), Beat::Register);
}

#[test]
fn a_suspect_gets_no_work_while_another_worker_lives() {
    let mut scene = Scene::new();
    let other = Join { worker: WorkerId::generate(), url: url(9), ..scene.member.clone() };
    let worker = other.worker;
    scene.roster.register(other, EPOCH, at(3)).unwrap();
    assert_eq!(scene.state(3), MemberState::Suspect);
    assert_eq!(scene.roster.urls(at(3)), BTreeMap::from([(worker, url(9))]));
}

#[test]
fn who_does_not_answer_is_suspect_whatever_its_heartbeats_say_until_it_answers() {
    let mut scene = Scene::new();
    let Join { worker, incarnation, .. } = scene.member;
    scene.roster.accuse(worker, Incarnation::generate(), at(1));
    assert_eq!(scene.state(1), MemberState::Live, "another run of it was meant");
    scene.roster.accuse(worker, incarnation, at(1));
    assert_eq!(scene.state(1), MemberState::Suspect);
    scene.beat(1);
    assert_eq!(scene.state(1), MemberState::Suspect);
    scene.roster.answered(worker, incarnation, at(1));
    assert_eq!(scene.state(1), MemberState::Live);
}

#[test]
fn heartbeats_of_strangers_and_of_the_future_are_not_noted() {
    let mut scene = Scene::new();
    let Join { worker, incarnation, .. } = scene.member;
    let other = Incarnation(Uuid::nil());
    let roster = &mut scene.roster;
    assert_eq!(roster.heartbeat(worker, other, EPOCH, EPOCH, at(1)), Beat::Register);
    let stranger = WorkerId::generate();
    assert_eq!(roster.heartbeat(stranger, incarnation, EPOCH, EPOCH, at(1)), Beat::Register);
    let beat = roster.heartbeat(worker, incarnation, Epoch(6), EPOCH, at(1));
    assert_eq!(beat, Beat::FutureEpoch);
    assert_eq!(scene.state(2), MemberState::Suspect, "none of them counted");
}

fn joins(worker: WorkerId, port: u16) -> Join {
    Join {
        cluster: None,
        worker,
        incarnation: Incarnation::generate(),
        url: url(port),
        versions: versions(),
        epoch: Epoch(0),
        candidate: Candidate::default(),
    }
}

fn cluster(new: NewCluster) -> (tempfile::TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(dir.path(), new).unwrap();
    (dir, catalog)
}

#[tokio::test]
async fn workers_that_join_an_empty_cluster_share_its_slices() {
    let (_dir, catalog) = cluster(NewCluster::generate());
    let members = Members::new(catalog.clone(), Liveness::default(), versions());
    let mut ports = 1..;
    for count in 1..=3 {
        let registration =
            members.register(joins(WorkerId::generate(), ports.next().unwrap())).await.unwrap();
        assert_eq!(registration.cluster, catalog.cluster().cluster);
        assert_eq!(registration.epoch, Epoch(count));
        let view = catalog.snapshot().cluster.clone();
        assert_eq!(view.workers.len(), usize::try_from(count).unwrap());
        let owners: BTreeSet<_> = view.slice_owners.iter().collect();
        assert_eq!(owners.len(), view.workers.len());
    }
}

#[tokio::test]
async fn a_cluster_made_for_three_waits_for_three() {
    let (_dir, catalog) = cluster(NewCluster::generate().with_workers_expected(3));
    let members = Members::new(catalog.clone(), Liveness::default(), versions());
    let registered = (1..=3).map(|port| members.register(joins(WorkerId::generate(), port)));
    let mut registered: Vec<_> = registered.collect();
    let last = registered.pop().unwrap();
    for registration in registered {
        assert_eq!(registration.await.unwrap().epoch, Epoch(0));
        assert!(catalog.snapshot().cluster.slice_owners.is_empty());
    }
    assert_eq!(last.await.unwrap().epoch, Epoch(1));
    assert_eq!(catalog.snapshot().cluster.slice_owners.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_join_at_once_all_get_slices() {
    let (_dir, catalog) = cluster(NewCluster::generate());
    let members = Members::new(catalog.clone(), Liveness::default(), versions());
    let all = (1..=5).map(|port| members.register(joins(WorkerId::generate(), port)));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    let owners: BTreeSet<_> = catalog.cluster().slice_owners.iter().copied().collect();
    assert_eq!(owners, catalog.cluster().workers);
}

#[tokio::test]
async fn the_last_of_those_expected_brings_the_slices_also_when_all_join_at_once() {
    let (_dir, catalog) = cluster(NewCluster::generate().with_workers_expected(3));
    let members = Members::new(catalog.clone(), Liveness::default(), versions());
    let all = (1..=3).map(|port| members.register(joins(WorkerId::generate(), port)));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    let owners: BTreeSet<_> = catalog.cluster().slice_owners.iter().copied().collect();
    assert_eq!(owners, catalog.cluster().workers);
}

#[tokio::test]
async fn a_worker_that_joins_after_the_first_rows_owns_nothing_at_first() {
    let (_dir, catalog) = cluster(NewCluster::generate());
    let first = WorkerId::generate();
    catalog.commit(command(join(&[first]))).await.unwrap();
    let id = catalog.allocate_table_id().await.unwrap();
    let txn = basalt_storage::ids::TxnId::generate();
    let mut create = command(vec![
        basalt_coordinator::catalog::Change::CreateTable(new_table(id, "t")),
        basalt_coordinator::catalog::Change::AddSegments {
            table: id,
            schema_version: 1,
            segments: vec![segment(id, txn, 1, first)],
        },
    ]);
    create.txn = txn;
    catalog.commit(create).await.unwrap();
    let members = Members::new(catalog.clone(), Liveness::default(), versions());
    let late = WorkerId::generate();
    members.register(joins(late, 1)).await.unwrap();
    let cluster = catalog.cluster();
    assert!(cluster.workers.contains(&late));
    assert!(!cluster.slice_owners.contains(&late));
    assert_eq!(cluster.epoch, Epoch(1));
}

#[tokio::test]
async fn heartbeats_make_workers_live_and_leaving_takes_them_from_readers() {
    let (_dir, catalog) = cluster(NewCluster::generate());
    let members = Members::new(catalog.clone(), Liveness::default(), versions());
    let join = joins(WorkerId::generate(), 1);
    let (worker, incarnation) = (join.worker, join.incarnation);
    assert_eq!(members.heartbeat(worker, incarnation, Epoch(0)), Beat::Register);
    let epoch = members.register(join).await.unwrap().epoch;
    assert_eq!(members.members()[0].state, MemberState::Joining);
    let beat = members.heartbeat(worker, incarnation, epoch);
    assert_eq!(beat, Beat::Alive { changed: true });
    members.wait_live(1).await;
    assert_eq!(catalog.snapshot().cluster.workers.len(), 1);
    members.leave(worker, incarnation);
    assert_eq!(members.members()[0].state, MemberState::Dead);
    assert!(catalog.snapshot().cluster.workers.is_empty());
}

#[tokio::test]
async fn a_refused_worker_is_not_recorded() {
    let (_dir, catalog) = cluster(NewCluster::generate());
    let members = Members::new(catalog.clone(), Liveness::default(), versions());
    let mut stranger = joins(WorkerId::generate(), 1);
    stranger.cluster = Some(ClusterId::generate());
    let error = members.register(stranger).await.unwrap_err();
    assert!(matches!(error, RegisterError::Refused(_)) && !error.is_retryable());
    assert!(catalog.cluster().workers.is_empty());
}
