//! Which rows of a table stand for all of them: runs of adjacent rows, evenly spread.
//!
//! Runs, because what differences and dictionaries save depends on what stands together; spread,
//! because a sorted or growing table is not everywhere the same.

use std::collections::BTreeMap;

use basalt_engine::snapshot::TableSnapshot;
use basalt_engine::table::ChosenRows;
use basalt_storage::delete_vector::{DeleteVector, DeleteVectorBuilder};

/// Rows of a run: half a page, so that a run is not mostly its ends.
const RUN_ROWS: u64 = 8_192;

/// At most `rows_max` rows that a snapshot sees of a table, all of them where it has no more.
pub(super) fn rows(table: &TableSnapshot, rows_max: u64) -> ChosenRows {
    let segments = table.segments.iter().map(|segment| (segment.rows, segment.deleted.as_ref()));
    ChosenRows::new(spread(&segments.collect::<Vec<_>>(), rows_max))
}

/// The rows by segment, of segments with so many rows, some of them deleted.
fn spread(segments: &[(u64, Option<&DeleteVector>)], rows_max: u64) -> BTreeMap<u32, DeleteVector> {
    let total: u64 = segments.iter().map(|(rows, _)| *rows).sum();
    let everything = total <= rows_max;
    let runs = rows_max.div_ceil(RUN_ROWS).max(1);
    let run_rows = rows_max / runs;
    let mut first = 0;
    let mut chosen = BTreeMap::new();
    for (ordinal, (rows, deleted)) in (0..).zip(segments) {
        let here = first..first + rows;
        first = here.end;
        if everything {
            chosen.extend(DeleteVector::complement(*deleted, *rows).map(|live| (ordinal, live)));
            continue;
        }
        let mut builder = DeleteVectorBuilder::default();
        for run in 0..runs {
            // The first run begins with the table, and the last one ends with it.
            let start = (total - run_rows) * run / runs.saturating_sub(1).max(1);
            let (from, to) = (start.max(here.start), (start + run_rows).min(here.end));
            if from < to {
                // Fits: positions in a segment have 22 bits.
                add_live(
                    &mut builder,
                    (from - here.start) as u32..(to - here.start) as u32,
                    *deleted,
                );
            }
        }
        chosen.extend(builder.finish().map(|live| (ordinal, live)));
    }
    chosen
}

fn add_live(
    builder: &mut DeleteVectorBuilder,
    rows: std::ops::Range<u32>,
    deleted: Option<&DeleteVector>,
) {
    let live = deleted.map(|deleted| deleted.live(rows.clone()));
    for (place, row) in rows.enumerate() {
        if live.as_ref().is_none_or(|live| live.value(place)) {
            builder.insert(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(segments: &[(u64, Option<&DeleteVector>)], rows_max: u64) -> Vec<(u32, u64)> {
        spread(segments, rows_max).iter().map(|(n, rows)| (*n, rows.rows())).collect()
    }

    #[test]
    fn a_small_table_is_measured_whole_without_what_is_deleted() {
        let deleted = DeleteVector::from_positions([0, 5]).unwrap();
        let all = DeleteVector::complement(None, 4).unwrap();
        let segments = [(10, Some(&deleted)), (0, None), (4, Some(&all)), (7, None)];
        assert_eq!(counts(&segments, 100), [(0, 8), (3, 7)]);
        assert_eq!(counts(&[], 100), []);
    }

    #[test]
    fn a_large_table_is_measured_from_its_beginning_to_its_end() {
        let segments = [(1_000_000, None), (3, None), (1_000_000, None)];
        let chosen = spread(&segments, 100_000);
        let rows: u64 = chosen.values().map(DeleteVector::rows).sum();
        assert!((99_000..=100_000).contains(&rows), "{rows}");
        assert_eq!(chosen[&0].rows_within(0..100), 100, "the first rows are among them");
        assert_eq!(chosen[&2].rows_within(999_900..1_000_000), 100, "and so are the last");
        let halves = chosen[&0].rows().abs_diff(chosen[&2].rows());
        assert!(halves < RUN_ROWS, "both halves have as many");
        assert_eq!(chosen[&0].rows_within(200..300), 100, "in runs");
    }

    #[test]
    fn deleted_rows_are_never_measured() {
        let odd = DeleteVector::from_positions((0..500_000).map(|n| n * 2 + 1)).unwrap();
        let chosen = spread(&[(1_000_000, Some(&odd))], 10_000);
        assert_eq!(chosen[&0].rows_in_common(&odd), 0);
        assert_eq!(chosen[&0].rows(), 5_000);
    }

    #[test]
    fn one_run_is_enough_for_few_rows() {
        assert_eq!(counts(&[(100, None)], 10), [(0, 10)]);
    }
}
