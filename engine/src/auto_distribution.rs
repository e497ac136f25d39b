//! What `DISTSTYLE AUTO` comes to.
//!
//! Rows of AUTO tables are given to slices as those of EVEN tables are. A table that is not large is copied to all workers
//! besides, in the background, so that each joins it where its other rows are; when it outgrows that, the copies go
//! again. So nothing is written anew either way, as it is in Redshift, whose AUTO goes from ALL to EVEN or KEY.
//!
//! Pure: decided from a snapshot alone, again and again.

use crate::settings::ONE_TASK_ROWS;
use crate::snapshot::{Distribution, TableSnapshot};

/// Tables of fewer rows are read by one task, wherever they lie: copies would spare little.
const ROWS_MIN: u64 = ONE_TASK_ROWS as u64;
/// Larger tables than these are copied nowhere that they need not be: every worker would read all of them.
const ROWS_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 64 << 20;
/// Copies that are there stay until the table is so much larger, of four: growth must not make them come and go.
const KEPT_FOURTHS: u64 = 5;

/// What is made of an AUTO table, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoChoice {
    /// Whether every worker should have a copy of all rows.
    pub everywhere: bool,
    /// Why, for those who look.
    pub reason: String,
}

/// What is made of a table whose distribution is left to the engine; `None` of any other, and where there is
/// nothing to choose.
pub fn auto_choice(table: &TableSnapshot, members: usize) -> Option<AutoChoice> {
    if table.distribution != Distribution::Auto {
        return None;
    }
    let rows: u64 = table.segments.iter().map(|segment| segment.live_rows()).sum();
    let bytes: u64 = table.segments.iter().map(|segment| segment.bytes).sum();
    let choice = |everywhere, reason| Some(AutoChoice { everywhere, reason });
    if table.replicas <= 1 {
        return choice(false, "EVEN: its definition asks for one copy".to_owned());
    }
    if rows < ROWS_MIN {
        return choice(false, format!("EVEN: with fewer than {ROWS_MIN} rows one task reads it"));
    }
    // No two copies of a segment are on one worker.
    let is_copied = table.segments.iter().all(|segment| segment.holders.len() >= members);
    let fourths = if is_copied { KEPT_FOURTHS } else { 4 };
    let (rows_max, bytes_max) = (ROWS_MAX / 4 * fourths, BYTES_MAX / 4 * fourths);
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    match rows <= rows_max && bytes <= bytes_max {
        true => choice(
            true,
            format!(
                "ALL: {rows} rows in {} MiB are at most {rows_max} in {} MiB",
                mebibytes(bytes),
                mebibytes(bytes_max)
            ),
        ),
        false => choice(
            false,
            format!(
                "EVEN: {rows} rows in {} MiB are more than {rows_max}, or than {} MiB",
                mebibytes(bytes),
                mebibytes(bytes_max)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{SegmentId, SliceId, TableId, TxnId, WorkerId};
    use basalt_storage::manifest::{Layout, SegmentRecord};
    use basalt_storage::schema::TableSchema;

    use super::*;

    const MEMBERS: usize = 3;

    fn table(distribution: Distribution, rows: u64, bytes: u64, copies: usize) -> TableSnapshot {
        let segment = SegmentRecord {
            table: TableId(1),
            slice: SliceId(0),
            segment: SegmentId::generate(),
            txn: TxnId::generate(),
            layout: Layout::Wide,
            rows,
            row_groups: vec![],
            columns: BTreeMap::new(),
            meta_digest: Digest::of(b""),
            bytes,
            holders: (0..copies).map(|_| WorkerId::generate()).collect(),
            deleted: None,
        };
        TableSnapshot {
            id: TableId(1),
            schema_name: "public".to_owned(),
            name: "t".to_owned(),
            version: 1,
            schema: Arc::new(TableSchema { version: 1, columns: vec![], keys: vec![] }),
            distribution,
            sort_key: vec![],
            replicas: 2,
            segments: vec![Arc::new(segment)].into(),
            statistics: None,
        }
    }

    fn is_everywhere(rows: u64, bytes: u64, copies: usize) -> bool {
        auto_choice(&table(Distribution::Auto, rows, bytes, copies), MEMBERS).unwrap().everywhere
    }

    #[test]
    fn only_auto_is_chosen_for() {
        for declared in [Distribution::Even, Distribution::All] {
            assert_eq!(auto_choice(&table(declared, 10_000, 1, 2), MEMBERS), None);
        }
    }

    #[test]
    fn tables_that_are_not_large_are_copied_to_all_workers() {
        assert!(!is_everywhere(ROWS_MIN - 1, 1, 2));
        assert!(is_everywhere(ROWS_MIN, 1, 2));
        assert!(is_everywhere(ROWS_MAX, BYTES_MAX, 2));
        assert!(!is_everywhere(ROWS_MAX + 1, 1, 2));
        assert!(!is_everywhere(ROWS_MIN, BYTES_MAX + 1, 2));
    }

    #[test]
    fn copies_that_are_there_stay_while_a_table_grows_a_little() {
        assert!(is_everywhere(ROWS_MAX + 1, 1, MEMBERS));
        assert!(!is_everywhere(ROWS_MAX / 4 * KEPT_FOURTHS + 1, 1, MEMBERS));
    }

    #[test]
    fn one_copy_stays_one() {
        let one = TableSnapshot { replicas: 1, ..table(Distribution::Auto, ROWS_MIN, 1, 1) };
        assert!(!auto_choice(&one, MEMBERS).unwrap().everywhere);
    }
}
