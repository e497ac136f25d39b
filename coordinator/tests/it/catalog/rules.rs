//! What each change refuses, against a small state in memory.

use basalt_coordinator::catalog::{CatalogError, Change, NewCluster, NewTable, State};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::Distribution;
use basalt_storage::ids::{ColumnId, Epoch, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::fixtures::{command, join, new_table, segment};

/// A cluster with one worker and the table `public.t` with id 1; id 2 is set aside.
fn state() -> (State, WorkerId) {
    let worker = WorkerId::generate();
    let mut changes = vec![
        Change::CreateCluster(NewCluster::generate()),
        Change::CreateSchema { name: "public".to_owned() },
        Change::ReserveTableIds { count: 2 },
        Change::CreateTable(new_table(TableId(1), "t")),
    ];
    changes.extend(join(&[worker]));
    let mut state = State::new();
    state.apply(command(changes)).unwrap();
    (state, worker)
}

/// Applies changes that must fail, and checks that they changed nothing.
fn refused(changes: Vec<Change>) -> CatalogError {
    let (mut state, _) = state();
    let before = state.digest().unwrap();
    let error = state.apply(command(changes)).unwrap_err();
    assert_eq!(state.digest().unwrap(), before);
    error
}

fn check_table(edit: impl FnOnce(&mut NewTable), message: &str) {
    let mut table = new_table(TableId(2), "u");
    edit(&mut table);
    assert_eq!(refused(vec![Change::CreateTable(table)]).to_string(), message);
}

fn check_segment(edit: impl FnOnce(&mut SegmentRecord), problem: &str) {
    let error = refused_segment(edit);
    assert!(error.to_string().contains(problem), "{error}");
}

/// What is said to a segment with something wrong in it.
fn refused_segment(edit: impl FnOnce(&mut SegmentRecord)) -> CatalogError {
    let (mut state, worker) = state();
    let txn = TxnId::generate();
    let mut record = segment(TableId(1), txn, 3, worker);
    edit(&mut record);
    let add = Change::AddSegments { table: TableId(1), schema_version: 1, segments: vec![record] };
    let mut command = command(vec![add]);
    command.txn = txn;
    state.apply(command).unwrap_err()
}

fn named(name: &str) -> Change {
    Change::CreateSchema { name: name.to_owned() }
}

#[test]
fn a_table_definition_must_mean_something() {
    check_table(|t| t.name.clear(), "table name \"\" is empty");
    check_table(|t| t.name = "a\nb".into(), "table name \"a\\nb\" has control characters");
    check_table(
        |t| t.columns.columns[1].name = "id".into(),
        "\"u\" cannot be created: column \"id\" is there twice",
    );
    check_table(
        |t| t.columns.columns[1].id = ColumnId(1),
        "the command is wrong: two columns have id 1",
    );
    check_table(
        |t| t.columns.columns.clear(),
        "\"u\" cannot be created: it has 0 columns, and can have 1 to 32768",
    );
    check_table(
        |t| t.distribution = Distribution::Key(ColumnId(9)),
        "\"u\" cannot be created: its distribution key is none of its columns",
    );
    check_table(
        |t| t.sort_key.push(ColumnId(1)),
        "\"u\" cannot be created: its sort key names a column twice",
    );
    check_table(|t| t.replicas = 0, "\"u\" cannot be created: it wants 0 replicas, not 1 to 16");
    check_table(|t| t.schema = "pubic".into(), "schema \"pubic\" does not exist");
    check_table(|t| t.name = "t".into(), "table \"public.t\" already exists");
    check_table(
        |t| t.id = TableId(7),
        "the command is wrong: table id 7 was not set aside or is used up",
    );
}

#[test]
fn a_segment_on_a_worker_that_is_no_member_any_more_is_to_be_written_again() {
    let error = refused_segment(|s| s.holders[0] = WorkerId::generate());
    assert!(error.is_retryable(), "{error}");
}

#[test]
fn a_segment_must_fit_its_table() {
    check_segment(|s| s.table = TableId(2), "names another table");
    check_segment(|s| s.txn = TxnId::generate(), "written by another transaction");
    check_segment(|s| s.slice = SliceId(16), "slice that does not exist");
    check_segment(|s| s.rows = 4, "do not add up");
    check_segment(|s| s.row_groups = vec![3, 0], "do not add up");
    check_segment(|s| s.holders.clear(), "has no holder");
    check_segment(|s| s.holders.push(s.holders[0]), "has no holder, or one twice");
    check_segment(
        |s| {
            s.columns.remove(&ColumnId(2));
        },
        "another number of columns",
    );
    check_segment(
        |s| {
            let column = s.columns.remove(&ColumnId(2)).unwrap();
            s.columns.insert(ColumnId(3), column);
        },
        "lacks a column",
    );
    check_segment(
        |s| s.columns.get_mut(&ColumnId(2)).unwrap().zone.null_count = 4,
        "more NULLs than rows",
    );
    check_segment(
        |s| s.columns.get_mut(&ColumnId(1)).unwrap().zone.null_count = 2,
        "column \"id\" of table \"t\" is NOT NULL, and 2 new rows have NULL",
    );
}

#[test]
fn a_segment_can_be_added_once_only() {
    let (mut state, worker) = state();
    let txn = TxnId::generate();
    let record = segment(TableId(1), txn, 3, worker);
    let add = |segments| Change::AddSegments { table: TableId(1), schema_version: 1, segments };
    let mut twice = command(vec![add(vec![record.clone(), record.clone()])]);
    twice.txn = txn;
    assert!(matches!(state.apply(twice), Err(CatalogError::InvalidCommand { .. })));
    let mut once = command(vec![add(vec![record])]);
    once.txn = txn;
    state.apply(once.clone()).unwrap();
    assert!(matches!(state.apply(once), Err(CatalogError::InvalidCommand { .. })));
}

#[test]
fn schemas_and_views_have_rules_too() {
    let drop = |name: &str| Change::DropSchema { name: name.to_owned() };
    let view = |name: &str| Change::CreateView {
        schema: "public".to_owned(),
        name: name.to_owned(),
        query: "select 1".to_owned(),
    };
    let drop_view =
        |name: &str| Change::DropView { schema: "public".to_owned(), name: name.to_owned() };
    let check = |changes: Vec<Change>, message: &str| {
        assert_eq!(refused(changes).to_string(), message);
    };
    check(vec![named("public")], "schema \"public\" already exists");
    check(vec![named("sys")], "schema \"sys\" is built in");
    check(vec![drop("public")], "schema \"public\" is built in");
    check(vec![drop("other")], "schema \"other\" does not exist");
    check(vec![view("t")], "table \"public.t\" already exists");
    check(vec![view("v"), view("v")], "view \"public.v\" already exists");
    check(vec![drop_view("t")], "\"public.t\" is a table, not a view");
    check(vec![drop_view("w")], "table \"public.w\" does not exist");
    let mut table = new_table(TableId(2), "u");
    table.schema = "s".to_owned();
    check(
        vec![named("s"), Change::CreateTable(table), drop("s")],
        "schema \"s\" is not empty: it has 1 tables and views",
    );
}

#[test]
fn the_cluster_and_its_slice_map_have_rules_too() {
    let create = |slices| {
        let mut new = NewCluster::generate();
        new.slices = slices;
        State::new().apply(command(vec![Change::CreateCluster(new)]))
    };
    for slices in [0, 3, 8192] {
        assert!(create(slices).is_err(), "{slices} slices");
    }
    assert!(create(1).is_ok());
    assert!(State::new().apply(command(vec![named("a")])).is_err(), "no cluster");
    refused(vec![Change::CreateCluster(NewCluster::generate())]);

    let (mut state, worker) = state();
    let mut assign = |epoch, owners| {
        let change = Change::AssignSlices { epoch: Epoch(epoch), owners };
        state.apply(command(vec![change]))
    };
    assert!(matches!(assign(1, vec![worker; 16]), Err(CatalogError::Conflict { .. })));
    assert!(matches!(assign(3, vec![worker; 16]), Err(CatalogError::Conflict { .. })));
    assert!(assign(2, vec![worker; 15]).is_err());
    assert!(assign(2, vec![WorkerId::generate(); 16]).is_err());
    assert!(assign(2, vec![worker; 16]).is_ok());
}

#[test]
fn a_misspelt_name_gets_a_suggestion() {
    let mut table = new_table(TableId(2), "u");
    table.schema = "pubilc".to_owned();
    let error = SqlError::from(refused(vec![Change::CreateTable(table)]));
    assert_eq!(error.code, ErrorCode::UndefinedTable);
    assert_eq!(error.hint.as_deref(), Some("did you mean \"public\"?"));
}
