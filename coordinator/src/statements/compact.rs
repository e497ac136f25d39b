//! Compaction: small segments, and those with many deleted rows, written again as few.
//!
//! A segment per statement is what makes a statement durable, and what makes a table slow that
//! was filled row by row. So after a write that leaves too many small segments behind, one
//! background task at a time reads some of them and commits other segments with the same rows in
//! their place. Readers keep the snapshot they pinned, and who deletes waits (`turns`).
//!
//! Which segments: size-tiered, as in log-structured merge trees (O'Neil et al. 1996): a segment
//! is written again only together with others that are as large in sum, so that every row is
//! written O(log n) times.
//!
//! Where a table has a sort key, segments of a slice whose ranges of it overlap are merged in its
//! order, so that they lie side by side afterwards: by VACUUM all of them, in the background when a
//! range of the key would be found in many.

mod choose;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use basalt_engine::dialect::ObjectRef;
use basalt_engine::error::{ErrorCode, Position, SqlError};
use basalt_engine::snapshot::{Snapshot, TableSnapshot};
use basalt_engine::table::{ChosenRows, SegmentTable};
use basalt_engine::write::AppendTarget;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::{ColumnId, SegmentId, TableId};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;

use super::Statements;
use super::session::Pinned;
use crate::backend::SessionId;
use crate::catalog::SegmentSeen;
use choose::{Aim, MERGE_SEGMENTS_MIN, Rewrite, next_merge, vacuumed};
pub(super) use choose::{mergeable_segments, unrouted};

/// Merges that one write starts at most, one after the other: the next write goes on.
const MERGES_MAX: usize = 64;

/// The session of statements that nobody sent.
const NO_SESSION: SessionId = SessionId(u64::MAX);

/// A compaction that was committed.
pub(super) struct Compacted {
    rows: u64,
    /// Segments before it, and after it.
    replaced: usize,
    written: usize,
    aim: Aim,
}

/// Tables whose small segments do not become fewer, as rows so wide that a segment of few of them
/// fills the memory for rows of writes: how many segments each had when that was found out.
#[derive(Debug, Default)]
pub(super) struct Unmergeable(Mutex<HashMap<TableId, usize>>);

impl Unmergeable {
    /// Whether it is worth trying to make a table's segments fewer: there are more than when it did
    /// not help.
    pub(super) fn may_shrink(&self, table: &TableSnapshot) -> bool {
        let tried = self.lock().get(&table.id).copied();
        tried.is_none_or(|tried| table.segments.len() >= tried + MERGE_SEGMENTS_MIN)
    }

    /// Notes that it did not help.
    fn note(&self, snapshot: &Snapshot, table: TableId) {
        let mut tried = self.lock();
        tried.retain(|table, _| table_by_id(snapshot, *table).is_some());
        if let Some(table) = table_by_id(snapshot, table) {
            tried.insert(table.id, table.segments.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Statements {
    /// Starts a compaction of a table in the background when the last write left many small
    /// segments, unless one is running: the next write will ask again.
    pub(super) fn compact_soon(&self, table: TableId) {
        let snapshot = self.inner.catalog.snapshot();
        let due = table_by_id(&snapshot, table).is_some_and(|table| {
            next_merge(table, self.inner.unmergeable.may_shrink(table)).is_some()
        });
        let Ok(turn) = Arc::clone(&self.inner.compaction).try_acquire_owned() else { return };
        if !due {
            return;
        }
        let statements = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            if let Err(error) = statements.merge_what_is_due(table).await {
                // Nothing changed, and the next write tries again.
                tracing::warn!(%table, %error, "a compaction was given up");
            }
        });
    }

    async fn merge_what_is_due(&self, table: TableId) -> Result<(), SqlError> {
        let unmergeable = &self.inner.unmergeable;
        for _ in 0..MERGES_MAX {
            let choose = |table: &TableSnapshot| next_merge(table, unmergeable.may_shrink(table));
            let Some(done) = self.compact(table, choose).await? else { break };
            if done.aim == Aim::Fewer && done.written >= done.replaced {
                let snapshot = self.inner.catalog.snapshot();
                unmergeable.note(&snapshot, table);
            }
        }
        Ok(())
    }

    /// `VACUUM t`, or of every table.
    pub(super) async fn vacuum(
        &self,
        session: SessionId,
        table: Option<(&ObjectRef, Position)>,
    ) -> Result<u64, SqlError> {
        let pinned = self.pin(session)?;
        let tables = match table {
            Some((name, position)) => vec![pinned.table_to_write(name, position)?.id],
            None => pinned.spec.snapshot.tables().map(|table| table.id).collect(),
        };
        let mut rows = 0;
        for table in tables {
            // One after the other, so that each commits by itself and who changes rows comes in
            // between. Each takes segments that are here now, so there is an end of it.
            let snapshot = self.inner.catalog.snapshot();
            let Some(seen) = table_by_id(&snapshot, table) else { continue };
            for rewrite in vacuumed(seen) {
                let ids: HashSet<_> = ids_of(seen, &rewrite).collect();
                let choose = |now: &TableSnapshot| {
                    vacuumed(now)
                        .into_iter()
                        .find(|now_due| ids_of(now, now_due).any(|id| ids.contains(&id)))
                };
                rows += self.compact(table, choose).await?.map_or(0, |done| done.rows);
            }
        }
        Ok(rows)
    }

    /// Writes the segments that `choose` names again; `None` when there are none.
    pub(super) async fn compact(
        &self,
        table: TableId,
        choose: impl Fn(&TableSnapshot) -> Option<Rewrite>,
    ) -> Result<Option<Compacted>, SqlError> {
        let _turn = self.inner.turns.of(table).await;
        let pinned = self.pin(NO_SESSION)?;
        let Some(table) = table_by_id(&pinned.spec.snapshot, table).map(Arc::clone) else {
            return Ok(None);
        };
        let Some(Rewrite { places, merged_slice, aim }) = choose(&table) else { return Ok(None) };
        let (seen, rows) = seen_and_live(&table, &places)?;
        let target = AppendTarget { merged_slice, ..pinned.target(&table)? };
        let (replaced, rows_expected) = (seen.len(), rows.rows());
        let routed_by = routed_alike(&table, &places);
        let written = self.rewrite(&pinned, &table, target, (seen, routed_by), rows).await?;
        Ok(Some(Compacted { rows: rows_expected, replaced, written, aim }))
    }

    /// Returns how many segments it wrote.
    async fn rewrite(
        &self,
        pinned: &Pinned,
        table: &Arc<TableSnapshot>,
        target: AppendTarget,
        (replaced, routed_by): (Vec<SegmentSeen>, Option<ColumnId>),
        rows: ChosenRows,
    ) -> Result<usize, SqlError> {
        let expected = rows.rows();
        let cluster = Arc::clone(&pinned.spec.snapshot.cluster);
        let source = SegmentTable::new(Arc::clone(table), cluster).with_only(Arc::new(rows));
        let plan = LogicalPlanBuilder::scan("replaced", provider_as_source(Arc::new(source)), None)
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| pinned.error(error))?;
        let transaction = self.begin(target);
        let written = self.append(pinned, plan, transaction.target()).await?;
        if written != expected {
            let message = format!("a compaction read {expected} rows and wrote {written}");
            return Err(SqlError::new(ErrorCode::Internal, message));
        }
        self.commit_replaced(transaction, replaced, routed_by, written).await
    }
}

/// The ids of the segments of a rewrite.
fn ids_of<'a>(
    table: &'a TableSnapshot,
    rewrite: &'a Rewrite,
) -> impl Iterator<Item = SegmentId> + 'a {
    rewrite.places.iter().filter_map(|place| Some(table.segments.get(*place as usize)?.segment))
}

/// The column that gave the rows of some segments to their slices, if it is one.
fn routed_alike(table: &TableSnapshot, places: &[u32]) -> Option<ColumnId> {
    let mut routed = places.iter().map(|place| table.segments.get(*place as usize)?.routed_by);
    let first = routed.next()??;
    routed.all(|other| other == Some(first)).then_some(first)
}

/// What the commit must find unchanged, and the rows to write again.
fn seen_and_live(
    table: &TableSnapshot,
    places: &[u32],
) -> Result<(Vec<SegmentSeen>, ChosenRows), SqlError> {
    let (mut seen, mut live) = (Vec::with_capacity(places.len()), BTreeMap::new());
    for place in places {
        let segment = table.segments.get(*place as usize).ok_or_else(|| {
            SqlError::new(ErrorCode::Internal, "a compaction chose a segment that is not there")
        })?;
        let rows_deleted = segment.rows_deleted();
        seen.push(SegmentSeen { segment: segment.segment, rows_deleted });
        if let Some(rows) = DeleteVector::complement(segment.deleted.as_ref(), segment.rows) {
            live.insert(*place, rows);
        }
    }
    Ok((seen, ChosenRows::new(live)))
}

pub(super) fn table_by_id(snapshot: &Snapshot, id: TableId) -> Option<&Arc<TableSnapshot>> {
    snapshot.tables().find(|table| table.id == id)
}
