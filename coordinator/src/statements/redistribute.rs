//! AUTO tables that get a distribution key: what queries move is added up, and where a key would have spared
//! more than it costs, it is chosen and the rows are written again by it.
//!
//! ```text
//! query runs ─▶ rows it moves, by columns ─▶ a proposal ─▶ do the columns fit? ─▶ Change::ChooseKey
//!                                                                                     │
//!      table lies by its key ◀─ Change::ReplaceSegments, some segments at a time ◀────┘
//! ```
//! From the choice on, new rows go by the key. Old segments are replaced as compaction replaces them: readers
//! keep their snapshot, appends wait for nobody, deletes take turns. A segment says by which column its rows were
//! given to their slice, and a table counts as one by its key when all of its segments say so: an append that
//! was under way when the key was chosen only delays that. What a coordinator that stopped has not replaced is
//! replaced after the next statement that uses the table.
//!
//! What was moved is counted in memory: after a restart, evidence is gathered anew.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use basalt_engine::auto_distribution::key_state;
use basalt_engine::auto_distribution::keys::{KeyState, MovedRows, Proposal};
use basalt_engine::distribute::{StoredColumn, moved_keys};
use basalt_engine::error::SqlError;
use basalt_engine::snapshot::{ChosenKey, Snapshot, TableSnapshot};
use basalt_engine::statistics::ColumnSketch;
use basalt_storage::ids::{ColumnId, TableId, TxnId};
use basalt_storage::sketch::DistinctSketch;
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use tokio::sync::Semaphore;

use super::Statements;
use super::analyze::{SketchedColumn, in_background, sketch_plan, sketches};
use super::compact::{table_by_id, unrouted};
use crate::catalog::{Change, Command, wall_clock_ms};

/// A key has so many different values for each slice at least, so that slices come out alike.
const DISTINCT_OF_SLICE: u64 = 64;
/// One of so many rows may have the value that most have, or NULL: its worker has so many rows more.
const SAME_SHARE: u64 = 20;

/// What is known of keys that tables might have, and whose turn it is to give them one.
#[derive(Debug)]
pub(super) struct Redistribution {
    /// One turn: tables are written again one by one.
    turn: Arc<Semaphore>,
    evidence: Mutex<Evidence>,
}

#[derive(Debug, Default)]
struct Evidence {
    moved: MovedRows,
    /// Columns that were looked at and are no good keys.
    unfit: HashSet<StoredColumn>,
}

impl Default for Redistribution {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), evidence: Mutex::default() }
    }
}

impl Redistribution {
    fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proposal(&self, snapshot: &Snapshot) -> Option<Proposal> {
        let members = snapshot.cluster.members;
        let tables: HashMap<_, _> = snapshot.tables().map(|table| (table.id, table)).collect();
        let state = |id| tables.get(&id).map_or(KeyState::Other, |t| key_state(t, members));
        let mut evidence = self.evidence();
        let Evidence { moved, unfit } = &mut *evidence;
        moved.retain(|table| tables.contains_key(&table));
        unfit.retain(|column| tables.contains_key(&column.table));
        moved.proposal(state, unfit)
    }
}

/// Whether some segments of a table are not written by the key that was chosen for it.
fn is_being_routed(table: &TableSnapshot) -> bool {
    table.chosen_key.is_some() && table.key_of_rows().is_none()
}

impl Statements {
    /// Counts what a query moves that is about to run, and starts what follows from it.
    pub(super) fn note_moves(
        &self,
        snapshot: &Snapshot,
        tables: &[TableId],
        plan: &Arc<dyn ExecutionPlan>,
    ) {
        let members = snapshot.cluster.members;
        let tables = || tables.iter().filter_map(|id| table_by_id(snapshot, *id));
        let is_open =
            |table: &TableSnapshot| matches!(key_state(table, members), KeyState::Open { .. });
        let mut is_due = tables().any(|table| is_being_routed(table));
        if tables().any(|table| is_open(table)) {
            let moved = moved_keys(plan);
            if !moved.is_empty() {
                let mut evidence = self.inner.redistribution.evidence();
                moved.into_iter().for_each(|key| evidence.moved.note(key));
                drop(evidence);
                is_due = is_due || self.inner.redistribution.proposal(snapshot).is_some();
            }
        }
        if is_due {
            self.redistribute_soon();
        }
    }

    /// Goes on with a table that rows were appended to by none or another key than was chosen for it.
    pub(super) fn route_soon(&self, table: TableId) {
        if table_by_id(&self.inner.catalog.snapshot(), table).is_some_and(|t| is_being_routed(t)) {
            self.redistribute_soon();
        }
    }

    /// Starts it in the background, unless it is under way.
    fn redistribute_soon(&self) {
        let turn = Arc::clone(&self.inner.redistribution.turn).try_acquire_owned();
        let Ok(turn) = turn else { return };
        let statements = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            // Unwind safe: nothing of what panicked is looked at again.
            match AssertUnwindSafe(statements.redistribute()).catch_unwind().await {
                Ok(Ok(())) => {}
                // Nothing is half done, and the next statement goes on.
                Ok(Err(error)) => tracing::warn!(%error, "a redistribution was given up for now"),
                Err(_) => tracing::error!("a redistribution panicked"),
            }
        });
    }

    /// Writes what is to be written by chosen keys, and chooses those that pay, until neither is left.
    async fn redistribute(&self) -> Result<(), SqlError> {
        loop {
            let snapshot = self.inner.catalog.snapshot();
            let due = snapshot.tables().find(|table| is_being_routed(table)).map(|table| table.id);
            if let Some(table) = due {
                self.compact(table, unrouted).await?;
                continue;
            }
            let Some(proposal) = self.inner.redistribution.proposal(&snapshot) else {
                return Ok(());
            };
            drop(snapshot);
            self.choose_keys(&proposal).await?;
        }
    }

    /// Gives tables the proposed keys, or notes that a column does not fit.
    async fn choose_keys(&self, proposal: &Proposal) -> Result<(), SqlError> {
        for column in &proposal.columns {
            if !self.is_fit(*column).await? {
                self.inner.redistribution.evidence().unfit.insert(*column);
                return Ok(());
            }
        }
        let snapshot = self.inner.catalog.snapshot();
        let change = |column: &StoredColumn| {
            let reason = reason(&snapshot, *column, proposal);
            tracing::info!(table = %column.table, column = %column.column, reason, "a distribution key is chosen");
            let key = ChosenKey { column: column.column, reason };
            Change::ChooseKey { table: column.table, key }
        };
        let changes = proposal.columns.iter().map(change).collect();
        let command = Command::new(TxnId::generate(), wall_clock_ms(), changes);
        self.inner.catalog.commit(command).await.map_err(SqlError::from)?;
        Ok(())
    }

    /// Whether rows would be even over slices by a column.
    async fn is_fit(&self, StoredColumn { table, column }: StoredColumn) -> Result<bool, SqlError> {
        let pinned = self.pin_with(in_background())?;
        let cluster = Arc::clone(&pinned.spec.snapshot.cluster);
        let Some(table) = table_by_id(&pinned.spec.snapshot, table).map(Arc::clone) else {
            return Ok(false);
        };
        let Some(stored) = table.schema.column(column).filter(|c| can_be_key(&c.data_type)) else {
            return Ok(false);
        };
        let sketched = [SketchedColumn { id: column, name: stored.name.clone(), sampled: true }];
        let plan = sketch_plan(&table, &cluster, &sketched, None);
        let plan = plan.map_err(|error| pinned.error(error))?;
        let found = sketches(&pinned, &plan, &sketched).await?;
        let slices = cluster.slice_owners.len() as u64;
        let (nulls, rows) = nulls_and_rows(&table, column);
        Ok(found.get(&column).is_some_and(|sketch| is_even(sketch, slices, nulls, rows)))
    }
}

/// Whether a column of a type may be chosen. Floats and intervals are equal in other ways than by their bits.
fn can_be_key(data_type: &arrow::datatypes::DataType) -> bool {
    DistinctSketch::takes(data_type) && !data_type.is_floating() && !data_type.is_nested()
}

fn nulls_and_rows(table: &TableSnapshot, column: ColumnId) -> (u64, u64) {
    table.segments.iter().fold((0, 0), |(nulls, rows), segment| {
        let of_segment = segment.columns.get(&column).map_or(0, |column| column.zone.null_count);
        (nulls + of_segment, rows + segment.rows)
    })
}

/// Whether rows of a column with these values come out alike in slices by their hash.
fn is_even(sketch: &ColumnSketch, slices: u64, nulls: u64, rows: u64) -> bool {
    let common =
        sketch.sample.as_ref().map_or((0, 0), |s| (s.most_common() as u64, s.rows() as u64));
    sketch.distinct.estimate() >= slices * DISTINCT_OF_SLICE
        && common.0 * SAME_SHARE <= common.1
        && nulls * SAME_SHARE <= rows
}

/// Why a table gets a key.
fn reason(snapshot: &Snapshot, column: StoredColumn, proposal: &Proposal) -> String {
    let Proposal { joined: (one, other), rows, .. } = proposal;
    let with = if *one == column { other } else { one };
    let name = |column: &StoredColumn| {
        let table = table_by_id(snapshot, column.table);
        table.map_or("?".to_owned(), |table| format!("{}.{}", table.schema_name, table.name))
    };
    match with.table == column.table {
        true => format!("{rows} rows were moved to be grouped by it or joined with themselves"),
        false => format!("joins by it with {} moved {rows} rows", name(with)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, UInt64Array};
    use basalt_storage::sketch::RowSample;

    use super::*;

    const ROWS: u64 = 100_000;

    fn sketch(value: impl Fn(u64) -> u64) -> ColumnSketch {
        let values: ArrayRef =
            Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| value(row) as i64)));
        let (mut distinct, mut sample) = (DistinctSketch::default(), RowSample::default());
        distinct.add(&values).unwrap();
        sample.add(&values, &UInt64Array::from_iter_values(0..ROWS)).unwrap();
        ColumnSketch { distinct, sample: Some(sample) }
    }

    #[test]
    fn a_key_has_many_values_none_of_which_many_rows_have() {
        assert!(is_even(&sketch(|row| row), 16, 0, ROWS));
        assert!(is_even(&sketch(|row| row / 7), 16, ROWS / 20, ROWS));
        assert!(!is_even(&sketch(|row| row % 500), 16, 0, ROWS), "too few values");
        assert!(!is_even(&sketch(|row| row), 16, ROWS / 10, ROWS), "too many NULLs");
        let mostly_one = |row| if row % 8 == 0 { 0 } else { row };
        assert!(!is_even(&sketch(mostly_one), 16, 0, ROWS), "one row in eight has one value");
    }
}
