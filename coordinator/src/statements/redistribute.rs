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
//! What was moved is counted in memory: after a restart, evidence is gathered anew. It takes half of the time at
//! most, a table that a step fails for waits longer each time, and the others go on.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use basalt_engine::auto_distribution::key_state;
use basalt_engine::auto_distribution::keys::{KeyState, MovedRows, Proposal};
use basalt_engine::distribute::{StoredColumn, moved_keys};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::{ChosenKey, Distribution, Snapshot, TableSnapshot};
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
/// A column that was no good key is looked at again when its table has so many times the rows.
const GROWN: u64 = 2;
/// Between two steps it pauses as long as the first took, up to this: half of what there is is others'.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The first wait before a table is tried again that a step failed for, and the longest: it doubles each time.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(600);

/// What is known of keys that tables might have, and whose turn it is to give them one.
#[derive(Debug)]
pub(super) struct Redistribution {
    /// One turn: tables are written again one by one.
    turn: Arc<Semaphore>,
    /// Whether something happened since whoever has the turn looked.
    asked: AtomicBool,
    evidence: Mutex<Evidence>,
}

#[derive(Debug, Default)]
struct Evidence {
    moved: MovedRows,
    /// Columns that were looked at and are no good keys, with the rows that their tables had.
    unfit: HashMap<StoredColumn, u64>,
    /// Tables that a step failed for: how often in a row, and when the next may be tried.
    held_back: HashMap<TableId, (u32, Instant)>,
}

impl Default for Redistribution {
    fn default() -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self { turn, asked: AtomicBool::new(false), evidence: Mutex::default() }
    }
}

impl Redistribution {
    fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a table waits after a step that failed.
    fn is_held_back(&self, table: TableId, now: Instant) -> bool {
        let until = self.evidence().held_back.get(&table).map(|(_, until)| *until);
        until.is_some_and(|until| until > now)
    }

    /// Notes how a step went.
    fn note_step(&self, table: TableId, went_well: bool, now: Instant) {
        let held_back = &mut self.evidence().held_back;
        if went_well {
            held_back.remove(&table);
            return;
        }
        let failures = held_back.get(&table).map_or(0, |(failures, _)| *failures);
        let wait = AGAIN_AFTER.saturating_mul(1 << failures.min(16)).min(AGAIN_AFTER_MAX);
        held_back.insert(table, (failures + 1, now + wait));
    }

    /// What should be done next about keys. Not under the lock, as it looks at all that was noted.
    fn proposal(&self, snapshot: &Snapshot, now: Instant) -> Option<Proposal> {
        let (moved, unfit) = {
            let evidence = self.evidence();
            (evidence.moved.clone(), evidence.unfit.clone())
        };
        let members = snapshot.cluster.members;
        let noted = moved.tables();
        let tables = snapshot.tables().filter(|table| noted.contains(&table.id));
        let tables: BTreeMap<_, _> = tables.map(|table| (table.id, table)).collect();
        if tables.len() < noted.len() {
            let mut evidence = self.evidence();
            evidence.moved.retain(|table| tables.contains_key(&table));
            evidence.unfit.retain(|column, _| tables.contains_key(&column.table));
            evidence.held_back.retain(|table, _| tables.contains_key(table));
        }
        let state_of = |table: &TableSnapshot| match self.is_held_back(table.id, now) {
            true => KeyState::Other,
            false => key_state(table, members),
        };
        let states: BTreeMap<_, _> = tables.values().map(|t| (t.id, state_of(t))).collect();
        let is_fit = |column: StoredColumn| {
            let rows = tables.get(&column.table).map_or(0, |table| table.live_rows());
            unfit.get(&column).is_none_or(|then| rows >= then.saturating_mul(GROWN))
        };
        moved.proposal(|table| states.get(&table).copied().unwrap_or(KeyState::Other), is_fit)
    }
}

/// Whether some segments of a table are not written by the key that was chosen for it.
fn is_being_routed(table: &TableSnapshot) -> bool {
    table.chosen_key.is_some() && table.key_of_rows().is_none()
}

impl Statements {
    /// Counts what a query moves that is about to run over some tables, and starts what follows from it.
    pub(super) fn note_moves(
        &self,
        tables: &BTreeMap<TableId, Arc<TableSnapshot>>,
        members: usize,
        plan: &Arc<dyn ExecutionPlan>,
    ) {
        let auto = || tables.values().filter(|table| table.distribution == Distribution::Auto);
        let mut is_due = auto().any(|table| is_being_routed(table));
        if auto().any(|table| table.chosen_key.is_none()) {
            let moved = moved_keys(plan);
            let is_open = |table: &Arc<TableSnapshot>| {
                matches!(key_state(table, members), KeyState::Open { .. })
            };
            if !moved.is_empty() && auto().any(is_open) {
                let mut evidence = self.inner.redistribution.evidence();
                moved.into_iter().for_each(|key| evidence.moved.note(key));
                is_due = true;
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

    /// Does in the background what there is to do; who is at it already looks again when it is done.
    fn redistribute_soon(&self) {
        let redistribution = &self.inner.redistribution;
        redistribution.asked.store(true, Ordering::SeqCst);
        let turn = Arc::clone(&redistribution.turn).try_acquire_owned();
        let Ok(mut turn) = turn else { return };
        let statements = self.clone();
        tokio::spawn(async move {
            let redistribution = &statements.inner.redistribution;
            loop {
                while redistribution.asked.swap(false, Ordering::SeqCst) {
                    // Unwind safe: nothing of what panicked is looked at again.
                    let step = AssertUnwindSafe(statements.redistribute()).catch_unwind();
                    if step.await.is_err() {
                        tracing::error!("a redistribution panicked");
                        return;
                    }
                }
                drop(turn);
                // Who asked since the last look found the turn taken.
                if !redistribution.asked.load(Ordering::SeqCst) {
                    return;
                }
                let again = Arc::clone(&redistribution.turn).try_acquire_owned();
                let Ok(again) = again else { return };
                turn = again;
            }
        });
    }

    /// Writes what is to be written by chosen keys, and chooses those that pay, until neither is left.
    async fn redistribute(&self) {
        let redistribution = &self.inner.redistribution;
        let mut pause = Duration::ZERO;
        loop {
            tokio::time::sleep(pause).await;
            let started = Instant::now();
            let snapshot = self.inner.catalog.snapshot();
            let is_due = |table: &&Arc<TableSnapshot>| {
                is_being_routed(table) && !redistribution.is_held_back(table.id, started)
            };
            let due = snapshot.tables().find(is_due).map(|table| table.id);
            let proposal =
                if due.is_none() { redistribution.proposal(&snapshot, started) } else { None };
            // What it names must not stay for the sake of a step.
            drop(snapshot);
            let (tables, step) = match (due, proposal) {
                (Some(table), _) => (vec![table], self.route(table).await),
                (None, Some(proposal)) => {
                    let tables = proposal.columns.iter().map(|column| column.table).collect();
                    (tables, self.choose_keys(&proposal).await)
                }
                (None, None) => return,
            };
            if let Err(error) = &step {
                // Nothing is half done, and later statements go on.
                tracing::warn!(?tables, %error, "a redistribution was given up for now");
            }
            let now = Instant::now();
            tables.into_iter().for_each(|table| redistribution.note_step(table, step.is_ok(), now));
            pause = now.duration_since(started).min(PAUSE_MAX);
        }
    }

    /// Writes some segments of a table again by its key. Compactions wait for each other.
    async fn route(&self, table: TableId) -> Result<(), SqlError> {
        let closed = |_| SqlError::new(ErrorCode::Internal, "no compaction has a turn any more");
        let _turn = self.inner.compaction.acquire().await.map_err(closed)?;
        match self.compact(table, unrouted).await? {
            Some(_) => Ok(()),
            None => {
                let message = "a table has nothing more to be written by its key";
                Err(SqlError::new(ErrorCode::Internal, message))
            }
        }
    }

    /// Gives tables the proposed keys, or notes that a column does not fit.
    async fn choose_keys(&self, proposal: &Proposal) -> Result<(), SqlError> {
        for column in &proposal.columns {
            if let Fit::No { rows } = self.fit(*column).await? {
                self.inner.redistribution.evidence().unfit.insert(*column, rows);
                return Ok(());
            }
        }
        let snapshot = self.inner.catalog.snapshot();
        let change = |column: &StoredColumn| {
            let reason = reason(&snapshot, *column, proposal);
            let StoredColumn { table, column } = *column;
            tracing::info!(%table, %column, reason, "a distribution key is chosen");
            Change::ChooseKey { table, key: ChosenKey { column, reason } }
        };
        let changes = proposal.columns.iter().map(change).collect();
        let command = Command::new(TxnId::generate(), wall_clock_ms(), changes);
        self.inner.catalog.commit(command).await.map_err(SqlError::from)?;
        Ok(())
    }

    /// Whether rows would be even over slices by a column.
    async fn fit(&self, StoredColumn { table, column }: StoredColumn) -> Result<Fit, SqlError> {
        let pinned = self.pin_with(in_background())?;
        let cluster = Arc::clone(&pinned.spec.snapshot.cluster);
        let Some(table) = table_by_id(&pinned.spec.snapshot, table).map(Arc::clone) else {
            return Ok(Fit::No { rows: 0 });
        };
        let no = Fit::No { rows: table.live_rows() };
        let Some(stored) = table.schema.column(column).filter(|c| can_be_key(&c.data_type)) else {
            return Ok(no);
        };
        let sketched = [SketchedColumn { id: column, name: stored.name.clone(), sampled: true }];
        let plan = sketch_plan(&table, &cluster, &sketched, None);
        let plan = plan.map_err(|error| pinned.error(error))?;
        let found = sketches(&pinned, &plan, &sketched).await?;
        let slices = cluster.slice_owners.len() as u64;
        let (nulls, rows) = nulls_and_rows(&table, column);
        let is_even = found.get(&column).is_some_and(|sketch| is_even(sketch, slices, nulls, rows));
        Ok(if is_even { Fit::Yes } else { no })
    }
}

/// Whether a column is a good key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    /// Not for a table with so many rows.
    No {
        rows: u64,
    },
}

/// Whether a column of a type may be chosen: not intervals, of which equal ones have other hashes, nor what
/// is measured and not counted.
fn can_be_key(data_type: &DataType) -> bool {
    let is_measured = data_type.is_floating() || matches!(data_type, DataType::Interval(_));
    DistinctSketch::takes(data_type) && !is_measured && !data_type.is_nested()
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
        && common.1 > 0
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
        true => format!("about {rows} rows were moved to be grouped or joined by it"),
        false => format!("joins by it with {} moved about {rows} rows", name(with)),
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
        let unsampled = ColumnSketch { sample: None, ..sketch(|row| row) };
        assert!(!is_even(&unsampled, 16, 0, ROWS), "nobody knows");
    }

    #[test]
    fn a_table_that_a_step_failed_for_waits_longer_each_time() {
        let redistribution = Redistribution::default();
        let (bad, good, mut now) = (TableId(1), TableId(2), Instant::now());
        for failures in 0..12 {
            redistribution.note_step(bad, false, now);
            let wait = AGAIN_AFTER.saturating_mul(1 << failures).min(AGAIN_AFTER_MAX);
            let almost = now + wait - Duration::from_millis(1);
            assert!(redistribution.is_held_back(bad, almost));
            assert!(!redistribution.is_held_back(good, almost));
            now += wait;
            assert!(!redistribution.is_held_back(bad, now));
        }
        redistribution.note_step(bad, true, now);
        redistribution.note_step(bad, false, now);
        assert!(!redistribution.is_held_back(bad, now + AGAIN_AFTER));
    }
}
