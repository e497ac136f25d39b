//! What the first changes of a rebuilt catalog mean: a cluster and segments as they were.
//!
//! Invariant: the same as everywhere: segments name members and existing tables, none is there
//! twice. That their columns are right was checked when they were committed first.

use std::collections::BTreeSet;
use std::sync::Arc;

use basalt_engine::snapshot::{Relation, TableSnapshot};
use basalt_storage::ids::TableId;
use basalt_storage::manifest::SegmentRecord;

use super::Draft;
use crate::catalog::error::CatalogError;
use crate::catalog::state::ClusterState;

impl Draft<'_> {
    pub(super) fn rebuild_cluster(
        &mut self,
        cluster: ClusterState,
        tables: BTreeSet<TableId>,
        next_table: u64,
    ) -> Result<(), CatalogError> {
        if self.next.cluster.is_some() {
            return Err(CatalogError::invalid("the cluster exists"));
        }
        if tables.last().is_some_and(|last| last.0 >= next_table) {
            return Err(CatalogError::invalid("a table has an id that is free"));
        }
        self.next.cluster = Some(Arc::new(cluster));
        self.next.next_table = next_table;
        self.next.unused_tables = Arc::new(tables);
        Ok(())
    }

    pub(super) fn rebuild_segments(
        &mut self,
        id: TableId,
        written_for: TableId,
        segments: Vec<SegmentRecord>,
    ) -> Result<(), CatalogError> {
        let (entry, table) = self.table(id)?;
        let mut table = TableSnapshot { version: self.version, ..TableSnapshot::clone(table) };
        for segment in segments {
            self.check_rebuilt(&segment, written_for)?;
            table.segments.push(Arc::new(segment));
        }
        self.put_relation(&entry.schema, &entry.name, Some(Relation::Table(Arc::new(table))))
    }

    fn check_rebuilt(
        &mut self,
        record: &SegmentRecord,
        written_for: TableId,
    ) -> Result<(), CatalogError> {
        let segment = record.segment;
        let invalid =
            |problem: &str| Err(CatalogError::invalid(format!("segment {segment} {problem}")));
        let Some(cluster) = &self.next.cluster else { return invalid("has no cluster") };
        let holders: BTreeSet<_> = record.holders.iter().collect();
        if holders.is_empty() || holders.len() != record.holders.len() {
            return invalid("has no holder, or one twice");
        }
        if !holders.iter().all(|holder| cluster.workers.contains(holder)) {
            return invalid("has a holder that is no worker");
        }
        if record.table != written_for || record.slice.0 >= cluster.slices {
            return invalid("is of another table, or of no slice");
        }
        let rows: u64 = record.row_groups.iter().map(|rows| u64::from(*rows)).sum();
        if rows != record.rows || rows == 0 {
            return invalid("has row groups that do not add up to its rows");
        }
        if let Some(deleted) = &record.deleted
            && let Err(error) = deleted.check(record.rows)
        {
            return invalid(&error.to_string());
        }
        let known = self.base.segments.contains(&segment);
        if known || !self.next.segments_added.insert(segment) {
            return invalid("is in the catalog already");
        }
        Ok(())
    }
}
