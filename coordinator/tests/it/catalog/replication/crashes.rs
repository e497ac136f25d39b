//! What a coordinator shows after a crash, and what it has to hear before.

use std::time::Duration;

use basalt_coordinator::catalog::{Catalog, CatalogError, Change, Readable, RequestKey, verify};
use basalt_storage::digest::Digest;

use super::fixtures::{Cluster, commit, crash, has, open, wait_for, wait_shown};
use crate::catalog::fixtures::command;

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
