//! Which tables are analysed in the background, and in which order.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use basalt_engine::snapshot::TableSnapshot;
use basalt_engine::statistics::ChangedRows;
use basalt_storage::ids::TableId;

use super::super::turns::Turns;

/// Rows that must have changed, however few there are: one task reads a table of fewer, whatever is
/// known of it.
const CHANGED_ROWS_MIN: u64 = 10_000;
/// One row of so many must have changed (PostgreSQL's `autovacuum_analyze_scale_factor`).
const CHANGED_SHARE: u64 = 10;

/// Whether so much of a table changed since it was analysed that plans may be worse for it.
pub(super) fn is_due(table: &TableSnapshot) -> bool {
    let rows: u64 = table.segments.iter().map(|segment| segment.live_rows()).sum();
    let changed = match &table.statistics {
        Some(known) => known.changed(&table.segments),
        None => ChangedRows { added: rows, deleted: 0 },
    };
    let changed = changed.added + changed.deleted;
    changed >= CHANGED_ROWS_MIN && changed > rows / CHANGED_SHARE
}

/// Tables that wait to be analysed in the background; one task takes them, one after the other.
#[derive(Debug, Default)]
pub(in crate::statements) struct Analyses {
    asked: Mutex<Asked>,
    /// Who analyses a table, in the background or not.
    pub(super) turns: Turns,
}

#[derive(Debug, Default)]
struct Asked {
    waiting: BTreeSet<TableId>,
    /// Whether there is a task that takes them.
    is_taken: bool,
}

impl Analyses {
    /// Asks for a table. `true` for who has to take what waits, because nobody does.
    pub(super) fn ask(&self, table: TableId) -> bool {
        let mut asked = self.lock();
        asked.waiting.insert(table);
        !std::mem::replace(&mut asked.is_taken, true)
    }

    /// The next table for who takes them; after `None` somebody else has to.
    pub(super) fn next(&self) -> Option<TableId> {
        let mut asked = self.lock();
        let next = asked.waiting.pop_first();
        asked.is_taken = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use basalt_engine::snapshot::Distribution;
    use basalt_engine::statistics::{Analysis, AnalysisKind, TableStatistics};
    use basalt_storage::delete_vector::DeleteVector;
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{SegmentId, SliceId, TxnId};
    use basalt_storage::manifest::{Layout, SegmentRecord};
    use basalt_storage::schema::TableSchema;

    use super::*;

    fn segment(rows: u64, rows_deleted: u32) -> Arc<SegmentRecord> {
        Arc::new(SegmentRecord {
            table: TableId(1),
            slice: SliceId(0),
            segment: SegmentId::generate(),
            txn: TxnId::generate(),
            layout: Layout::Wide,
            rows,
            row_groups: vec![],
            bytes: 0,
            meta_digest: Digest::of(b""),
            columns: BTreeMap::new(),
            holders: vec![],
            deleted: DeleteVector::from_positions(0..rows_deleted),
            routed_by: None,
        })
    }

    fn table(
        segments: &[Arc<SegmentRecord>],
        statistics: Option<&TableStatistics>,
    ) -> TableSnapshot {
        TableSnapshot {
            id: TableId(1),
            schema_name: "public".to_owned(),
            name: "t".to_owned(),
            version: 1,
            schema: Arc::new(TableSchema { version: 1, columns: vec![], keys: vec![] }),
            distribution: Distribution::Even,
            chosen_key: None,
            sort_key: vec![],
            replicas: 1,
            segments: segments.to_vec().into(),
            statistics: statistics.cloned().map(Arc::new),
        }
    }

    #[test]
    fn a_table_is_due_when_more_than_a_tenth_and_ten_thousand_rows_changed() {
        assert!(!is_due(&table(&[segment(9_999, 0)], None)), "too few to matter");
        assert!(is_due(&table(&[segment(10_000, 0)], None)));
        let read = segment(200_000, 0);
        let mut known = TableStatistics::default();
        let found = Analysis {
            kind: AnalysisKind::Whole,
            version: 1,
            time_ms: 0,
            rows: 200_000,
            segments: vec![read.segment],
            columns: BTreeMap::new(),
        };
        known.record(found, std::slice::from_ref(&read));
        let due = |segments: &[_]| is_due(&table(segments, Some(&known)));
        assert!(!due(&[Arc::clone(&read)]), "all of it was read");
        assert!(!due(&[Arc::clone(&read), segment(20_000, 0)]));
        assert!(due(&[Arc::clone(&read), segment(25_000, 0)]));
        let deleted = DeleteVector::from_positions(0..20_000);
        let deleted_from = Arc::new(SegmentRecord { deleted, ..(*read).clone() });
        assert!(due(&[deleted_from]), "of 180,000 rows 20,000 are too many to be gone");
    }

    #[test]
    fn one_takes_all_that_wait_and_then_another() {
        let analyses = Analyses::default();
        assert!(analyses.ask(TableId(2)), "who asks first takes them");
        assert!(!analyses.ask(TableId(1)), "somebody does");
        assert_eq!(analyses.next(), Some(TableId(1)));
        assert!(!analyses.ask(TableId(2)), "it waits already");
        assert_eq!(analyses.next(), Some(TableId(2)));
        assert!(!analyses.ask(TableId(2)), "who analysed it asks for the next");
        assert_eq!(analyses.next(), Some(TableId(2)));
        assert_eq!(analyses.next(), None);
        assert!(analyses.ask(TableId(3)), "nobody takes them any more");
    }
}
