//! A catalog whose log has members: how many copies a commit waits for with no, one and two
//! workers, what happens when they go and come, and what a restart and a restore show. Members are
//! real copies in memory; the protocol under every kind of fault is `log_simulation`'s.
//!
//! - `crashes`, `restores`: what a restart and a restore show

mod crashes;
mod fixtures;
mod restores;

use std::time::Duration;

use basalt_coordinator::catalog::ledger::Timing;
use basalt_coordinator::catalog::{CatalogError, Change, LogStatus, Readable};
use basalt_storage::ids::{Epoch, WorkerId};

use super::fixtures::command;
use fixtures::{Cluster, has, members, open_timed, timing, wait_for, wait_shown};

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
async fn members_are_asked_at_once_whether_nobody_else_has_taken_over() {
    let Cluster { dir, catalog, machines, workers } = Cluster::start(2).await;
    drop(catalog);
    let timing = Timing { heartbeat: Duration::from_secs(3600), ..timing() };
    let catalog = open_timed(dir.path(), &machines, &workers, timing);
    wait_for(&catalog, |status| status.is_leading).await;
    for _ in 0..3 {
        catalog.confirm().await.unwrap();
    }
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
