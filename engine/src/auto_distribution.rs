//! What `DISTSTYLE AUTO` comes to.
//!
//! Rows of AUTO tables are given to slices as those of EVEN tables are. A table that is not large is copied to all workers
//! besides, in the background, so that each joins it where its other rows are; when it outgrows that, the copies go
//! again. So nothing is written anew either way, as it is in Redshift, whose AUTO goes from ALL to EVEN or KEY.
//! A larger table gets a key once its joins have moved more rows than it costs to write it by that key ([`keys`]).
//!
//! Pure: decided from a snapshot alone, again and again, but for the rows that queries moved.

pub mod keys;

use basalt_storage::ids::ColumnId;
use basalt_storage::schema::KeyKind;

use crate::segment_list::Totals;
use crate::settings::ONE_TASK_ROWS;
use crate::snapshot::{Distribution, TableSnapshot};
use keys::KeyState;

/// Tables of fewer rows are read by one task, wherever they lie: copies would spare little.
const ROWS_MIN: u64 = ONE_TASK_ROWS as u64;
/// Larger tables than these are copied nowhere that they need not be: every worker would read all of them.
const ROWS_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 64 << 20;
/// Copies that are there stay until the table is so much larger, of four: growth must not make them come and go.
const KEPT_FOURTHS: u64 = 5;
/// Tables of fewer rows get no key: moving them costs little, and each slice should have a segment of some size.
const KEY_ROWS_MIN: u64 = 8 * ROWS_MIN;
/// Nor do tables whose segments have fewer rows: they are filled in small pieces, of which a key makes one for each slice.
const SEGMENT_ROWS_MIN: u64 = ROWS_MIN;

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
    let choice = |everywhere, reason| Some(AutoChoice { everywhere, reason });
    if let Some(key) = &table.chosen_key {
        return choice(false, reason_of_key(table, key.column, &key.reason));
    }
    let Totals { live_rows: rows, bytes } = table.segments.totals();
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

fn reason_of_key(table: &TableSnapshot, key: ColumnId, reason: &str) -> String {
    let by = format!("KEY({})", table.column_name(key));
    let (written, all) = (table.segments.iter()).fold((0, 0), |(written, all), segment| {
        let rows = segment.live_rows();
        (written + if segment.routed_by == Some(key) { rows } else { 0 }, all + rows)
    });
    match table.key_of_rows() {
        Some(_) => format!("{by}: {reason}"),
        None => format!("EVEN, {by} soon: {written} of {all} rows are written by it; {reason}"),
    }
}

/// What a table is to those who look for tables that should get a key.
pub fn key_state(table: &TableSnapshot, members: usize) -> KeyState {
    if let Distribution::Key(key) = table.appended_by() {
        return KeyState::By(key);
    }
    let rows = table.live_rows();
    let is_in_pieces = rows < table.segments.len() as u64 * SEGMENT_ROWS_MIN;
    if members < 2 || rows < KEY_ROWS_MIN || is_in_pieces {
        return KeyState::Other;
    }
    if auto_choice(table, members).is_none_or(|choice| choice.everywhere) {
        return KeyState::Other;
    }
    let primary = table.schema.keys.iter().find(|key| key.kind == KeyKind::Primary);
    let primary = primary.and_then(|key| match key.columns.as_slice() {
        [column] => Some(*column),
        _ => None,
    });
    KeyState::Open { rows, primary }
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
    use crate::snapshot::ChosenKey;

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
            routed_by: None,
        };
        TableSnapshot {
            id: TableId(1),
            schema_name: "public".to_owned(),
            name: "t".to_owned(),
            version: 1,
            schema: Arc::new(TableSchema { version: 1, columns: vec![], keys: vec![] }),
            distribution,
            chosen_key: None,
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
    fn a_table_is_said_to_lie_by_a_key_once_all_of_it_does() {
        let key = ColumnId(7);
        let chosen = Arc::new(ChosenKey { column: key, reason: "joins".to_owned() });
        let mut auto = TableSnapshot {
            chosen_key: Some(chosen),
            ..table(Distribution::Auto, ROWS_MAX, BYTES_MAX, 2)
        };
        assert_eq!(auto.appended_by(), Distribution::Key(key));
        assert_eq!(auto.key_of_rows(), None);
        let choice = auto_choice(&auto, MEMBERS).unwrap();
        assert!(!choice.everywhere, "{}", choice.reason);
        assert!(choice.reason.contains("0 of 1000000 rows"), "{}", choice.reason);
        Arc::make_mut(&mut auto.segments[0]).routed_by = Some(key);
        assert_eq!(auto.key_of_rows(), Some(key));
        assert_eq!(auto_choice(&auto, MEMBERS).unwrap().reason, "KEY(?): joins");
        let other = Arc::new(SegmentRecord {
            segment: SegmentId::generate(),
            routed_by: Some(ColumnId(8)),
            ..auto.segments[0].as_ref().clone()
        });
        auto.segments.push(other);
        assert_eq!(auto.key_of_rows(), None, "a segment of another key");
    }

    #[test]
    fn large_auto_tables_of_several_workers_may_get_a_key() {
        let large = table(Distribution::Auto, 2 * ROWS_MAX, BYTES_MAX, 2);
        let open = KeyState::Open { rows: 2 * ROWS_MAX, primary: None };
        assert_eq!(key_state(&large, MEMBERS), open);
        assert_eq!(key_state(&large, 1), KeyState::Other);
        let small = table(Distribution::Auto, ROWS_MAX, BYTES_MAX, 2);
        assert_eq!(key_state(&small, MEMBERS), KeyState::Other, "it is copied everywhere");
        let even = table(Distribution::Even, 2 * ROWS_MAX, BYTES_MAX, 2);
        assert_eq!(key_state(&even, MEMBERS), KeyState::Other);
        let declared = table(Distribution::Key(ColumnId(3)), 1, 1, 2);
        assert_eq!(key_state(&declared, MEMBERS), KeyState::By(ColumnId(3)));
    }

    #[test]
    fn one_copy_stays_one() {
        let one = TableSnapshot { replicas: 1, ..table(Distribution::Auto, ROWS_MIN, 1, 1) };
        assert!(!auto_choice(&one, MEMBERS).unwrap().everywhere);
    }
}
