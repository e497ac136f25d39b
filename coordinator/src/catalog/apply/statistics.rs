//! What changes of statistics mean. Nobody can see them but planners: the table's version and who
//! changed it stay, and no other statement conflicts.

use std::sync::Arc;

use basalt_engine::snapshot::{Relation, TableSnapshot};
use basalt_engine::statistics::Analysis;
use basalt_storage::ids::{SegmentId, TableId};
use basalt_storage::manifest::SegmentRecord;

use super::super::error::CatalogError;
use super::Draft;

impl Draft<'_> {
    pub(super) fn record_analysis(
        &mut self,
        id: TableId,
        analysis: Analysis,
    ) -> Result<(), CatalogError> {
        let (entry, table) = self.table(id)?;
        let mut table = TableSnapshot::clone(table);
        let unknown =
            analysis.columns.keys().find(|column| table.schema.column(**column).is_none());
        if let Some(column) = unknown {
            let problem = format!("table {id} has no column {column} to analyse");
            return Err(CatalogError::invalid(problem));
        }
        let statistics = table.statistics.get_or_insert_default();
        Arc::make_mut(statistics).record(analysis, &table.segments);
        self.put_relation(&entry.schema, &entry.name, Some(Relation::Table(Arc::new(table))))
    }
}

/// Keeps statistics true when the same rows lie in other segments.
pub(super) fn rows_moved(
    table: &mut TableSnapshot,
    before: &[Arc<SegmentRecord>],
    now: &[SegmentRecord],
) {
    if let Some(statistics) = &mut table.statistics {
        Arc::make_mut(statistics).replaced(before, now);
    }
}

/// Keeps statistics from naming segments that are gone.
pub(super) fn segments_gone(table: &mut TableSnapshot, gone: &[SegmentId]) {
    if let Some(statistics) = &mut table.statistics
        && gone.iter().any(|segment| statistics.covers(*segment))
    {
        let statistics = Arc::make_mut(statistics);
        gone.iter().for_each(|segment| statistics.forget(*segment));
    }
}
