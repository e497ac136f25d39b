//! What commits promise: visibility, conflicts, groups, idempotency, ids that are never reused.

use std::collections::BTreeSet;
use std::sync::Arc;

use basalt_coordinator::catalog::{CatalogError, Change, Command, RequestKey};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_storage::digest::Digest;
use basalt_storage::ids::TxnId;
use futures::future::join_all;

use super::fixtures::{Fixture, append, command, new_table, rows, segment};

#[tokio::test]
async fn a_commit_is_in_every_later_snapshot_and_in_no_earlier_one() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let before = fixture.table("t");
    let committed = fixture.append(table, 7).await;
    assert_eq!(committed.rows_affected, Some(7));
    assert_eq!(fixture.catalog.snapshot().version, committed.version);
    assert_eq!((rows(&before), rows(&fixture.table("t"))), (0, 7));
    assert_eq!(fixture.table("t").version, committed.version);
}

#[tokio::test]
async fn create_table_as_makes_the_table_and_its_rows_visible_in_one_step() {
    let fixture = Fixture::new().await;
    let id = fixture.catalog.allocate_table_id().await.unwrap();
    let txn = TxnId::generate();
    let segments = vec![segment(id, txn, 5, fixture.workers[1])];
    let changes = vec![
        Change::CreateTable(new_table(id, "t")),
        Change::AddSegments { table: id, schema_version: 1, segments },
    ];
    fixture.catalog.commit(Command::new(txn, 0, changes)).await.unwrap();
    assert_eq!(rows(&fixture.table("t")), 5);
}

#[tokio::test]
async fn replacing_a_table_swaps_it_for_another_in_one_step() {
    let fixture = Fixture::new().await;
    let old = fixture.create_table("t").await;
    fixture.append(old, 3).await;
    let new = fixture.catalog.allocate_table_id().await.unwrap();
    let txn = TxnId::generate();
    let segments = vec![segment(new, txn, 5, fixture.workers[0])];
    let changes = vec![
        Change::DropTable { table: old, version: None },
        Change::CreateTable(new_table(new, "t")),
        Change::AddSegments { table: new, schema_version: 1, segments },
    ];
    fixture.catalog.commit(Command::new(txn, 0, changes)).await.unwrap();
    assert_eq!((fixture.table("t").id, rows(&fixture.table("t"))), (new, 5));
}

#[tokio::test]
async fn replacing_a_table_that_changed_since_it_was_read_is_a_conflict_that_names_the_writer() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let read = fixture.table("t").version;
    let insert = append(table, 1, fixture.workers[0]);
    let winner = insert.txn;
    fixture.catalog.commit(insert).await.unwrap();
    let replace = command(vec![Change::DropTable { table, version: Some(read) }]);
    let error = fixture.catalog.commit(replace).await.unwrap_err();
    assert!(error.is_retryable());
    let message = format!("table \"public.t\" was changed by transaction {winner}");
    assert_eq!(error.to_string(), message);
    assert_eq!(rows(&fixture.table("t")), 1);
    let version = Some(fixture.table("t").version);
    fixture.catalog.commit(command(vec![Change::DropTable { table, version }])).await.unwrap();
}

#[tokio::test]
async fn a_command_with_one_bad_change_changes_nothing() {
    let fixture = Fixture::new().await;
    fixture.create_table("taken").await;
    let before = fixture.seen();
    let id = fixture.catalog.allocate_table_id().await.unwrap();
    let changes = vec![
        Change::CreateSchema { name: "new".to_owned() },
        Change::CreateTable(new_table(id, "taken")),
    ];
    let error = fixture.catalog.commit(command(changes)).await.unwrap_err();
    assert_eq!(error.to_string(), "table \"public.taken\" already exists");
    assert_eq!(fixture.seen(), before);
}

#[tokio::test]
async fn appending_to_a_dropped_table_is_a_retryable_conflict_that_names_the_winner() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let drop = command(vec![Change::DropTable { table, version: None }]);
    let winner = drop.txn;
    fixture.catalog.commit(drop).await.unwrap();
    fixture.create_table("t").await;
    let late = append(table, 1, fixture.workers[0]);
    let error = fixture.catalog.commit(late).await.unwrap_err();
    assert!(error.is_retryable());
    let message = format!("table \"public.t\" was dropped by transaction {winner}");
    let sql = SqlError::from(error);
    assert_eq!((sql.code, sql.message), (ErrorCode::Conflict, message));
    assert_eq!(sql.hint.as_deref(), Some("run the statement again"));
}

#[tokio::test]
async fn appending_for_another_schema_version_is_a_conflict() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let txn = TxnId::generate();
    let segments = vec![segment(table, txn, 1, fixture.workers[0])];
    let change = Change::AddSegments { table, schema_version: 2, segments };
    let error = fixture.catalog.commit(Command::new(txn, 0, vec![change])).await.unwrap_err();
    assert!(matches!(error, CatalogError::Conflict { what: "changed", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_all_succeed_and_each_has_a_version_of_its_own() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let appends = (0..200).map(|_| {
        let catalog = fixture.catalog.clone();
        let command = append(table, 1, fixture.workers[0]);
        tokio::spawn(async move { catalog.commit(command).await.unwrap().version })
    });
    let versions: BTreeSet<u64> =
        join_all(appends).await.into_iter().map(|version| version.unwrap()).collect();
    assert_eq!(versions.len(), 200);
    assert_eq!(rows(&fixture.table("t")), 200);
    let fixture = fixture.reopen();
    assert_eq!(rows(&fixture.table("t")), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_group_each_have_their_own_result() {
    let fixture = Fixture::new().await;
    let mut commands = Vec::new();
    for i in 0..40 {
        let id = fixture.catalog.allocate_table_id().await.unwrap();
        let name = format!("t{}", i % 10);
        commands.push(command(vec![Change::CreateTable(new_table(id, &name))]));
    }
    let results = join_all(commands.into_iter().map(|c| fixture.catalog.commit(c))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error, CatalogError::AlreadyExists { .. }), "{error}");
    }
    let seen = fixture.seen();
    assert_eq!(fixture.reopen().seen(), seen);
}

#[tokio::test]
async fn a_request_sent_again_has_its_first_outcome_and_no_second_effect() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let key = RequestKey::new("load-1").unwrap();
    let payload = Digest::of(b"insert into t ...");
    let send = |fixture: &Fixture| {
        let command = append(table, 4, fixture.workers[0]).with_request(key.clone(), payload);
        let catalog = fixture.catalog.clone();
        async move { catalog.commit(command).await }
    };
    let first = send(&fixture).await.unwrap();
    let again = send(&fixture).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!((first.version, first.txn), (again.version, again.txn));
    assert_eq!(again.rows_affected, Some(4));

    let fixture = fixture.reopen();
    assert!(send(&fixture).await.unwrap().replayed);
    assert_eq!(rows(&fixture.table("t")), 4);
    let outcome = fixture.catalog.request(key.clone()).await.unwrap().unwrap();
    assert_eq!((outcome.txn, outcome.version), (first.txn, first.version));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_sent_many_times_at_once_has_one_effect() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let send = || {
        let key = RequestKey::new("once").unwrap();
        append(table, 1, fixture.workers[0]).with_request(key, Digest::of(b"x"))
    };
    let results = join_all((0..20).map(|_| fixture.catalog.commit(send()))).await;
    let fresh = results.iter().filter(|result| !result.as_ref().unwrap().replayed).count();
    assert_eq!((fresh, rows(&fixture.table("t"))), (1, 1));
}

#[tokio::test]
async fn a_request_key_for_another_statement_is_an_error() {
    let fixture = Fixture::new().await;
    let key = || RequestKey::new("k").unwrap();
    let create = |name: &str| command(vec![Change::CreateSchema { name: name.to_owned() }]);
    let first = create("a").with_request(key(), Digest::of(b"a"));
    fixture.catalog.commit(first).await.unwrap();
    let second = create("b").with_request(key(), Digest::of(b"b"));
    let error = fixture.catalog.commit(second).await.unwrap_err();
    assert!(matches!(error, CatalogError::RequestKeyReused { .. }), "{error}");
    assert_eq!(fixture.catalog.request(RequestKey::new("other").unwrap()).await.unwrap(), None);
}

#[test]
fn an_unknown_outcome_names_the_transaction_and_where_to_look() {
    let txn = TxnId::generate();
    let error: SqlError = CatalogError::OutcomeUnknown { txn, cause: "EIO".to_owned() }.into();
    assert_eq!(error.message, format!("the outcome of transaction {txn} is unknown: EIO"));
    assert_eq!((error.code, error.code.is_retryable()), (ErrorCode::OutcomeUnknown, false));
    let hint = error.hint.unwrap();
    assert!(hint.contains("sys.requests") && hint.contains("same request key"), "{hint}");
}

#[tokio::test]
async fn requests_are_listed_by_age_also_those_that_changed_nothing() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let (some, none) = (RequestKey::new("some").unwrap(), RequestKey::new("none").unwrap());
    let rows = append(table, 3, fixture.workers[0]).with_request(some.clone(), Digest::of(b"s"));
    fixture.catalog.commit(rows).await.unwrap();
    let nothing =
        command(vec![]).with_rows_affected(0).with_request(none.clone(), Digest::of(b"n"));
    let nothing = fixture.catalog.commit(nothing).await.unwrap();

    let fixture = fixture.reopen();
    let all = fixture.catalog.requests().await.unwrap();
    let keys: Vec<_> = all.iter().map(|(key, outcome)| (key, outcome.rows_affected)).collect();
    assert_eq!(keys, [(&some, Some(3)), (&none, Some(0))]);
    assert_eq!((all[1].1.txn, all[1].1.version), (nothing.txn, nothing.version));
}

#[tokio::test]
async fn table_ids_are_never_handed_out_twice_also_after_a_restart() {
    let mut fixture = Fixture::new().await;
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        for _ in 0..70 {
            assert!(seen.insert(fixture.catalog.allocate_table_id().await.unwrap()));
        }
        fixture = fixture.reopen();
    }
}

#[tokio::test]
async fn a_dropped_table_does_not_give_its_id_back() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    fixture
        .catalog
        .commit(command(vec![Change::DropTable { table, version: None }]))
        .await
        .unwrap();
    let again = command(vec![Change::CreateTable(new_table(table, "t"))]);
    let error = fixture.catalog.commit(again).await.unwrap_err();
    assert!(matches!(error, CatalogError::InvalidCommand { .. }), "{error}");
}

#[tokio::test]
async fn worker_urls_reach_readers_without_a_commit() {
    let fixture = Fixture::new().await;
    let before = fixture.catalog.snapshot();
    let url: url::Url = "http://127.0.0.1:4000".parse().unwrap();
    let stranger = basalt_storage::ids::WorkerId::generate();
    let urls = [(fixture.workers[0], url.clone()), (stranger, url.clone())].into();
    fixture.catalog.set_worker_urls(urls);
    let after = fixture.catalog.wait_for(|snapshot| !snapshot.cluster.workers.is_empty()).await;
    assert_eq!(after.version, before.version);
    assert_eq!(after.cluster.workers, [(fixture.workers[0], url)].into());
    fixture.create_table("t").await;
    assert_eq!(fixture.catalog.snapshot().cluster.workers, after.cluster.workers);
}

#[tokio::test]
async fn a_commit_shares_what_it_does_not_touch() {
    let fixture = Fixture::new().await;
    let (a, _b) = (fixture.create_table("a").await, fixture.create_table("b").await);
    let before = (fixture.table("a"), fixture.table("b"));
    fixture.append(a, 1).await;
    let first = Arc::clone(&fixture.table("a").segments[0]);
    fixture.append(a, 1).await;
    assert!(!Arc::ptr_eq(&before.0, &fixture.table("a")));
    assert!(Arc::ptr_eq(&before.1, &fixture.table("b")));
    assert!(Arc::ptr_eq(&first, &fixture.table("a").segments[0]));
}
