//! A cluster that is nothing but its catalog: workers that nobody started, segments that nobody wrote.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::datatypes::DataType;
use basalt_coordinator::catalog::command::NewTable;
use basalt_coordinator::catalog::{Change, Command, NewCluster, State};
use basalt_coordinator::placement::{Candidate, Problem, solve};
use basalt_engine::snapshot::{DEFAULT_SCHEMA, Distribution, Snapshot};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{
    ColumnId, ColumnVersion, Epoch, SegmentId, SliceId, TableId, TxnId, WorkerId,
};
use basalt_storage::manifest::{ColumnRecord, Layout, SegmentRecord};
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::zone_map::{ZoneMap, ZoneValue};
use url::Url;

/// Copies of each segment.
const REPLICAS: u16 = 2;
/// Rows of a segment, in eight row groups.
const SEGMENT_ROWS: u64 = 1 << 20;
const ROW_GROUPS: u64 = 8;
/// Table ids that are set aside at once.
const IDS_AT_ONCE: u64 = 1_000;

/// What there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) workers: usize,
    pub(super) tables: usize,
    /// Of each table.
    pub(super) segments: usize,
}

/// Slices of a cluster of so many workers: some for each, as an operator would choose.
pub(super) fn slices_of(workers: usize) -> u16 {
    let slices = (workers * 8).next_power_of_two().max(usize::from(NewCluster::SLICES_DEFAULT));
    u16::try_from(slices).unwrap_or(u16::MAX).min(NewCluster::SLICES_MAX)
}

/// A placement problem of so many workers that are alike.
pub(super) fn problem(slices: u16, workers: &[WorkerId]) -> Problem {
    let workers = workers.iter().map(|worker| (*worker, Candidate::default()));
    Problem { slices, copies: usize::from(REPLICAS), workers: workers.collect() }
}

/// Tables `t0`, `t1`, ... by `key`, sorted by it, as the catalog has them after one command per table.
pub(super) fn snapshot(size: Size) -> anyhow::Result<Snapshot> {
    let slices = slices_of(size.workers);
    let mut state = State::new();
    let new = NewCluster { slices, ..NewCluster::generate() };
    let public = Change::CreateSchema { name: DEFAULT_SCHEMA.to_owned() };
    apply(&mut state, vec![Change::CreateCluster(new), public])?;
    let workers: Vec<_> = (0..size.workers).map(|_| WorkerId::generate()).collect();
    let placed = solve(&problem(slices, &workers), &vec![]);
    let mut changes: Vec<_> =
        workers.iter().map(|worker| Change::RegisterWorker { worker: *worker }).collect();
    changes.push(Change::PlaceSlices { epoch: Epoch(1), workers: placed.clone() });
    apply(&mut state, changes)?;

    for number in 0..size.tables as u64 {
        if number % IDS_AT_ONCE == 0 {
            let count = IDS_AT_ONCE as u16;
            apply(&mut state, vec![Change::ReserveTableIds { count }])?;
        }
        let id = TableId(number + 1);
        let table = NewTable {
            id,
            schema: DEFAULT_SCHEMA.to_owned(),
            name: format!("t{number}"),
            columns: schema(),
            distribution: Distribution::Key(ColumnId(1)),
            sort_key: vec![ColumnId(1)],
            replicas: REPLICAS,
        };
        let txn = TxnId::generate();
        let segments = (0..size.segments).map(|place| segment(id, txn, place, &placed)).collect();
        apply_as(
            txn,
            &mut state,
            vec![
                Change::CreateTable(table),
                Change::AddSegments { table: id, schema_version: 1, segments },
            ],
        )?;
    }
    // Nobody listens there, and nobody is called.
    let url = Url::parse("http://127.0.0.1:1")?;
    let urls: BTreeMap<_, _> = workers.into_iter().map(|worker| (worker, url.clone())).collect();
    state.snapshot(&urls).context("the catalog has a cluster")
}

fn apply(state: &mut State, changes: Vec<Change>) -> anyhow::Result<()> {
    apply_as(TxnId::generate(), state, changes)
}

fn apply_as(txn: TxnId, state: &mut State, changes: Vec<Change>) -> anyhow::Result<()> {
    state.apply(Command::new(txn, 0, changes))?;
    Ok(())
}

fn schema() -> TableSchema {
    let columns = [
        ("key", DataType::Int64),
        ("other", DataType::Int64),
        ("amount", DataType::Decimal128(15, 2)),
        ("day", DataType::Date32),
        ("name", DataType::Utf8),
    ];
    let columns = (1..).zip(columns).map(|(id, (name, data_type))| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable: true,
        declared: Default::default(),
    });
    TableSchema { version: 1, columns: columns.collect(), keys: vec![] }
}

/// Segments of one slice follow each other by key.
fn segment(table: TableId, txn: TxnId, place: usize, placed: &[Vec<WorkerId>]) -> SegmentRecord {
    let slice = place % placed.len();
    let first = (place / placed.len()) as i64 * SEGMENT_ROWS as i64;
    let last = first + SEGMENT_ROWS as i64;
    // Loads of a thousand days, in turns.
    let first_day = 8_000 + place as i64 % 100 * 10;
    let bytes = |text: String| ZoneValue::Bytes { value: text.into_bytes(), exact: true };
    let int = ZoneValue::Int;
    let bounds = [
        (int(first), int(last)),
        (int(0), int(1_000_000)),
        (ZoneValue::Decimal(0), ZoneValue::Decimal(9_999_999)),
        (int(first_day), int(first_day + 30)),
        (bytes(format!("a{place}")), bytes(format!("z{place}"))),
    ];
    let columns = (1..).zip(bounds).map(|(id, (min, max))| {
        let zone = ZoneMap { null_count: 0, min: Some(min), max: Some(max) };
        let record = ColumnRecord {
            version: ColumnVersion(1),
            bytes: 4 * SEGMENT_ROWS,
            encoding: None,
            zone,
        };
        (ColumnId(id), record)
    });
    SegmentRecord {
        table,
        slice: SliceId(slice as u16),
        segment: SegmentId::generate(),
        txn,
        layout: Layout::Wide,
        rows: SEGMENT_ROWS,
        row_groups: vec![(SEGMENT_ROWS / ROW_GROUPS) as u32; ROW_GROUPS as usize],
        bytes: 20 * SEGMENT_ROWS,
        meta_digest: Digest::of(&place.to_le_bytes()),
        columns: columns.collect(),
        holders: placed[slice].clone(),
        deleted: None,
        routed_by: None,
    }
}
