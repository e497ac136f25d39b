//! The live segments of a table at one commit, and what was computed of them once.
//!
//! Invariant: what is kept here is of these segments. A list that changes forgets it; clones share it.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::datatypes::DataType;
use basalt_storage::ids::ColumnId;
use basalt_storage::manifest::SegmentRecord;
use datafusion::common::ColumnStatistics;

type Computed = Mutex<HashMap<(ColumnId, DataType), ColumnStatistics>>;

/// Segments in the order of their commits.
#[derive(Debug, Clone, Default)]
pub struct SegmentList {
    records: Arc<Vec<Arc<SegmentRecord>>>,
    computed: Arc<Computed>,
    routed_by: Arc<OnceLock<Option<ColumnId>>>,
    totals: Arc<OnceLock<Totals>>,
}

/// What all segments have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows that are there.
    pub live_rows: u64,
    /// Bytes of one copy on disk.
    pub bytes: u64,
}

impl SegmentList {
    /// The segments, without a copy.
    pub(crate) fn shared(&self) -> &Arc<Vec<Arc<SegmentRecord>>> {
        &self.records
    }

    /// What all segments have together: added up by the first who asks.
    pub fn totals(&self) -> Totals {
        *self.totals.get_or_init(|| {
            self.records.iter().fold(Totals::default(), |sum, segment| Totals {
                live_rows: sum.live_rows + segment.live_rows(),
                bytes: sum.bytes + segment.bytes,
            })
        })
    }

    /// Whether the slice hash of a column gave every row to its slice.
    pub fn are_routed_by(&self, key: ColumnId) -> bool {
        let of_all = || {
            let first = self.records.first()?.routed_by?;
            self.records.iter().all(|segment| segment.routed_by == Some(first)).then_some(first)
        };
        self.records.is_empty() || *self.routed_by.get_or_init(of_all) == Some(key)
    }

    /// What is known of a column over all segments: computed by the first who asks.
    pub(crate) fn column_statistics(
        &self,
        column: ColumnId,
        data_type: &DataType,
        compute: impl FnOnce() -> ColumnStatistics,
    ) -> ColumnStatistics {
        let key = (column, data_type.clone());
        let computed = || self.computed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = computed().get(&key) {
            return known.clone();
        }
        // Not under the lock: others plan meanwhile, and may compute the same.
        let known = compute();
        computed().insert(key, known.clone());
        known
    }
}

impl Deref for SegmentList {
    type Target = Vec<Arc<SegmentRecord>>;

    fn deref(&self) -> &Self::Target {
        &self.records
    }
}

impl DerefMut for SegmentList {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.computed = Arc::default();
        self.routed_by = Arc::default();
        self.totals = Arc::default();
        Arc::make_mut(&mut self.records)
    }
}

impl From<Vec<Arc<SegmentRecord>>> for SegmentList {
    fn from(records: Vec<Arc<SegmentRecord>>) -> Self {
        Self { records: Arc::new(records), ..Self::default() }
    }
}

impl IntoIterator for SegmentList {
    type Item = Arc<SegmentRecord>;
    type IntoIter = std::vec::IntoIter<Arc<SegmentRecord>>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.records).into_iter()
    }
}

impl<'a> IntoIterator for &'a SegmentList {
    type Item = &'a Arc<SegmentRecord>;
    type IntoIter = std::slice::Iter<'a, Arc<SegmentRecord>>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use basalt_storage::delete_vector::DeleteVector;
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{SegmentId, SliceId, TableId, TxnId};
    use basalt_storage::manifest::Layout;

    use super::*;

    #[test]
    fn what_segments_have_together_follows_them() {
        let segment = |rows, routed_by| {
            Arc::new(SegmentRecord {
                table: TableId(1),
                slice: SliceId(0),
                segment: SegmentId::generate(),
                txn: TxnId::generate(),
                layout: Layout::Packed,
                rows,
                row_groups: vec![],
                bytes: 10,
                meta_digest: Digest::of(b""),
                columns: BTreeMap::new(),
                holders: vec![],
                deleted: DeleteVector::from_positions([0]),
                routed_by,
            })
        };
        let key = ColumnId(4);
        let mut list = SegmentList::default();
        assert!(list.are_routed_by(key), "all of none");
        list.push(segment(5, Some(key)));
        assert!(list.are_routed_by(key) && !list.are_routed_by(ColumnId(5)));
        assert_eq!(list.totals(), Totals { live_rows: 4, bytes: 10 });
        let before = list.clone();
        list.push(segment(3, None));
        assert!(!list.are_routed_by(key));
        assert_eq!(list.totals(), Totals { live_rows: 6, bytes: 20 });
        assert!(before.are_routed_by(key));
        list.pop();
        assert!(list.are_routed_by(key));
        list[0] = segment(3, Some(ColumnId(5)));
        assert!(list.are_routed_by(ColumnId(5)) && !list.are_routed_by(key));
    }

    #[test]
    fn what_was_computed_is_forgotten_with_the_segments_it_was_of() {
        let known = |list: &SegmentList| {
            list.column_statistics(ColumnId(1), &DataType::Int64, ColumnStatistics::new_unknown)
        };
        let mut list = SegmentList::default();
        let first = ColumnStatistics {
            null_count: datafusion::common::stats::Precision::Exact(7),
            ..ColumnStatistics::new_unknown()
        };
        let kept = list.column_statistics(ColumnId(1), &DataType::Int64, || first.clone());
        assert_eq!(kept, first);
        let before = list.clone();
        assert_eq!(known(&before), first, "clones share it");
        let other_type =
            list.column_statistics(ColumnId(1), &DataType::Int32, ColumnStatistics::new_unknown);
        assert_ne!(other_type, first);
        list.reserve(1);
        assert_ne!(known(&list), first);
        assert_eq!(known(&before), first);
    }
}
