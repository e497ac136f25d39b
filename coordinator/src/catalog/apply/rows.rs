//! What changes of rows mean: segments that come, go, or lose rows.
//!
//! Invariant: a segment that a statement read is changed only if it still is what the statement
//! read; otherwise the statement conflicts and nothing of it happens. Adding rows conflicts with
//! nothing but a change of the table's columns.

use std::collections::HashMap;
use std::sync::Arc;

use basalt_engine::snapshot::{Relation, TableSnapshot};
use basalt_storage::ids::TableId;
use basalt_storage::manifest::SegmentRecord;

use super::super::command::{SegmentDeletes, SegmentSeen};
use super::super::error::CatalogError;
use super::super::rules;
use super::super::state::TableEntry;
use super::Draft;
use super::statistics::{rows_moved, segments_gone};

impl Draft<'_> {
    pub(super) fn add_segments(
        &mut self,
        id: TableId,
        schema_version: u32,
        segments: Vec<SegmentRecord>,
    ) -> Result<(), CatalogError> {
        let (entry, mut table) = self.table_to_change(id)?;
        check_schema_version(&entry, &table, schema_version)?;
        self.add_to(&mut table, segments)?;
        self.put_table(entry, table)
    }

    pub(super) fn delete_rows(
        &mut self,
        id: TableId,
        deletes: Vec<SegmentDeletes>,
    ) -> Result<(), CatalogError> {
        let (entry, mut table) = self.table_to_change(id)?;
        let mut by_segment: HashMap<_, _> =
            deletes.into_iter().map(|deletes| (deletes.seen.segment, deletes)).collect();
        let (mut kept, mut gone) = (Vec::with_capacity(table.segments.len()), Vec::new());
        for segment in std::mem::take(&mut table.segments) {
            match by_segment.remove(&segment.segment) {
                None => kept.push(segment),
                Some(deletes) => match without_rows(&entry, &segment, &deletes)? {
                    Some(left) => kept.push(Arc::new(left)),
                    None => gone.push(segment.segment),
                },
            }
        }
        if !by_segment.is_empty() {
            return Err(conflict(&entry));
        }
        table.segments = kept.into();
        segments_gone(&mut table, &gone);
        self.next.segments_dropped.extend(gone);
        self.put_table(entry, table)
    }

    pub(super) fn replace_segments(
        &mut self,
        id: TableId,
        schema_version: u32,
        replaced: &[SegmentSeen],
        segments: Vec<SegmentRecord>,
    ) -> Result<(), CatalogError> {
        let (entry, table) = self.table(id)?;
        // Its version stays: no reader can tell that the rows lie elsewhere now.
        let mut table = TableSnapshot::clone(table);
        check_schema_version(&entry, &table, schema_version)?;
        let mut seen: HashMap<_, _> =
            replaced.iter().map(|seen| (seen.segment, seen.rows_deleted)).collect();
        let (mut kept, mut gone) = (Vec::with_capacity(table.segments.len()), Vec::new());
        for segment in std::mem::take(&mut table.segments) {
            match seen.remove(&segment.segment) {
                None => kept.push(segment),
                Some(deleted) if deleted == segment.rows_deleted() => gone.push(segment),
                Some(_) => return Err(conflict(&entry)),
            }
        }
        if !seen.is_empty() {
            return Err(conflict(&entry));
        }
        let rows: u64 = gone.iter().map(|segment| segment.live_rows()).sum();
        let new_rows: u64 = segments.iter().map(|segment| segment.rows).sum();
        if new_rows != rows {
            let problem = format!("{new_rows} rows cannot replace {rows} rows of table {id}");
            return Err(CatalogError::invalid(problem));
        }
        table.segments = kept.into();
        rows_moved(&mut table, &gone, &segments);
        self.next.segments_dropped.extend(gone.iter().map(|segment| segment.segment));
        self.add_to(&mut table, segments)?;
        self.put_table(entry, table)
    }

    /// A copy of a table and its entry, marked as changed by this command.
    fn table_to_change(&self, id: TableId) -> Result<(TableEntry, TableSnapshot), CatalogError> {
        let (entry, table) = self.table(id)?;
        let table = TableSnapshot { version: self.version, ..TableSnapshot::clone(table) };
        Ok((entry, table))
    }

    fn put_table(
        &mut self,
        mut entry: TableEntry,
        table: TableSnapshot,
    ) -> Result<(), CatalogError> {
        let (schema, name) = (entry.schema.clone(), entry.name.clone());
        entry.changed_by = self.txn;
        Arc::make_mut(&mut self.next.tables).insert(table.id, entry);
        self.put_relation(&schema, &name, Some(Relation::Table(Arc::new(table))))
    }

    fn add_to(
        &mut self,
        table: &mut TableSnapshot,
        segments: Vec<SegmentRecord>,
    ) -> Result<(), CatalogError> {
        let Some(cluster) = &self.next.cluster else {
            return Err(CatalogError::invalid("there is no cluster yet"));
        };
        for segment in &segments {
            rules::check_new_segment(segment, table, cluster, self.txn)?;
        }
        table.segments.reserve(segments.len());
        for segment in segments {
            let known = self.base.segments.contains(&segment.segment);
            if known || !self.next.segments_added.insert(segment.segment) {
                return Err(CatalogError::invalid(format!(
                    "segment {} is in the catalog already",
                    segment.segment
                )));
            }
            table.segments.push(Arc::new(segment));
        }
        Ok(())
    }
}

/// The segment without some rows; `None` when none is left.
fn without_rows(
    entry: &TableEntry,
    segment: &SegmentRecord,
    deletes: &SegmentDeletes,
) -> Result<Option<SegmentRecord>, CatalogError> {
    if deletes.seen.rows_deleted != segment.rows_deleted() {
        return Err(conflict(entry));
    }
    let invalid = |problem: String| {
        Err(CatalogError::invalid(format!("segment {}: {problem}", segment.segment)))
    };
    if let Err(error) = deletes.rows.check(segment.rows) {
        return invalid(error.to_string());
    }
    let deleted = match &segment.deleted {
        Some(before) if before.rows_in_common(&deletes.rows) > 0 => {
            return invalid("a row is deleted twice".to_owned());
        }
        Some(before) => before.union(&deletes.rows),
        None => deletes.rows.clone(),
    };
    let left = deleted.rows() < segment.rows;
    Ok(left.then(|| SegmentRecord { deleted: Some(deleted), ..segment.clone() }))
}

fn check_schema_version(
    entry: &TableEntry,
    table: &TableSnapshot,
    schema_version: u32,
) -> Result<(), CatalogError> {
    if table.schema.version == schema_version { Ok(()) } else { Err(conflict(entry)) }
}

fn conflict(entry: &TableEntry) -> CatalogError {
    CatalogError::Conflict {
        object: format!("table \"{}.{}\"", entry.schema, entry.name),
        what: "changed",
        winner: entry.changed_by,
    }
}
