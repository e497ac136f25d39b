//! The pages of a row group that may hold rows: what a scan reads of it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use basalt_storage::layout::PAGE_ROWS;
use basalt_storage::row_group::RowSelection;

/// Some pages of a row group. Everything that a scan does with its rows is then about the rows of
/// these pages, as if there were no others.
#[derive(Debug, Clone)]
pub(super) struct KeptPages {
    /// For each page, whether it is one of them.
    pub(super) wanted: Arc<[bool]>,
    /// Their rows, as places in the row group.
    pub(super) ranges: Vec<Range<usize>>,
    /// How many rows that are.
    pub(super) rows: usize,
    selection: RowSelection,
}

impl KeptPages {
    /// The wanted pages of a row group of `rows` rows.
    pub(super) fn new(wanted: Vec<bool>, rows: usize) -> Self {
        let page = PAGE_ROWS as usize;
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (number, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted) {
            let (start, end) = (number * page, rows.min((number + 1) * page));
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        let selection = RowSelection::from_consecutive_ranges(ranges.iter().cloned(), rows);
        let kept = ranges.iter().map(ExactSizeIterator::len).sum();
        Self { wanted: wanted.into(), ranges, rows: kept, selection }
    }

    /// How many pages there are.
    pub(super) fn count(&self) -> usize {
        self.wanted.iter().filter(|wanted| **wanted).count()
    }

    /// The rows of these pages, or those of them that are chosen, among all of the row group.
    pub(super) fn selection(&self, chosen: Option<&RowSelection>) -> RowSelection {
        match chosen {
            Some(chosen) => self.selection.and_then(chosen),
            None => self.selection.clone(),
        }
    }

    /// What is said of all rows of the row group, of those of these pages.
    pub(super) fn of(&self, rows: &BooleanBuffer) -> BooleanBuffer {
        let mut kept = BooleanBufferBuilder::new(self.rows);
        for range in &self.ranges {
            kept.append_buffer(&rows.slice(range.start, range.len()));
        }
        kept.finish()
    }
}

#[cfg(test)]
mod tests {
    use basalt_storage::row_group::RowSelector;

    use super::*;

    /// A selection of runs that are skipped or not.
    fn select(runs: &[(bool, usize)]) -> RowSelection {
        let run = |(skip, rows): &(bool, usize)| match skip {
            true => RowSelector::skip(*rows),
            false => RowSelector::select(*rows),
        };
        runs.iter().map(run).collect::<Vec<_>>().into()
    }

    #[test]
    fn kept_pages_are_ranges_of_rows_and_the_last_page_is_shorter() {
        let page = PAGE_ROWS as usize;
        let rows = 3 * page + 5;
        let kept = KeptPages::new(vec![false, true, false, true], rows);
        assert_eq!(kept.ranges, [page..2 * page, 3 * page..rows]);
        assert_eq!((kept.rows, kept.count()), (page + 5, 2));
        let all = [(true, page), (false, page), (true, page), (false, 5)];
        assert_eq!(kept.selection(None), select(&all));
        // Of the kept rows the first two and the last one.
        let chosen = select(&[(false, 2), (true, page + 2), (false, 1)]);
        let both = [(true, page), (false, 2), (true, 2 * page - 2 + 4), (false, 1)];
        assert_eq!(kept.selection(Some(&chosen)), select(&both));
        let odd = BooleanBuffer::collect_bool(rows, |row| row % 2 == 1);
        let odd = kept.of(&odd);
        assert_eq!(odd.len(), page + 5);
        assert!(odd.value(1) && !odd.value(page) && odd.value(page + 1));
    }
}
