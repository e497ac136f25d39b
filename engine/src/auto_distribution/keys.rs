//! Which keys AUTO tables come to be distributed by: those that spare more than it costs to write the tables anew.
//!
//! ```text
//! queries that ran ─▶ rows moved by pairs of columns ─▶ the pair that would spare most ─▶ a key for its tables
//! ```
//! Of every table's pairs only the one that would have spared most may give it a key, and only together with
//! the other table's: the locally heaviest edge of the graph of joins, which is at least half as good as the best
//! choice for all tables (Preis, STACS 1999; the graph is that of Parchas et al., "Fast and Effective
//! Distribution-Key Recommendation for Amazon Redshift", PVLDB 2020). A table is written anew when what its queries
//! moved in vain costs as much as that: whatever comes later, no more than twice is paid of what could have been
//! (the rule of renting skis).
//!
//! Pure: what was moved and how tables are is handed in.

use std::collections::{BTreeMap, BTreeSet};

use basalt_storage::ids::{ColumnId, TableId};

use crate::distribute::{MovedKey, StoredColumn};

/// What writing a row anew costs, in rows that move: it is read, moved, encoded, and made durable twice.
const REWRITE_COST: u64 = 4;
/// The same where a primary key says that the table is joined by it: it will be again.
const REWRITE_COST_PRIMARY: u64 = 1;
/// Pairs that are remembered: of more, those go that moved least.
const PAIRS_MAX: usize = 4_096;

/// Two columns that were joined, the lesser one first; or one twice, that rows were grouped by.
type Pair = (StoredColumn, StoredColumn);

/// Rows that queries moved since somebody began to count.
#[derive(Debug, Clone, Default)]
pub struct MovedRows(BTreeMap<Pair, (u64, u64)>);

impl MovedRows {
    /// Counts what a query moves.
    pub fn note(&mut self, moved: MovedKey) {
        let MovedKey { rows: one, with } = moved;
        let (first, second) = match with {
            None => ((one.key, one.rows), (one.key, 0)),
            Some(other) if other.key < one.key => ((other.key, other.rows), (one.key, one.rows)),
            Some(other) => ((one.key, one.rows), (other.key, other.rows)),
        };
        let pair = (first.0, second.0);
        if !self.0.contains_key(&pair) && self.0.len() >= PAIRS_MAX {
            let least = self.0.iter().min_by_key(|(_, rows)| rows.0.saturating_add(rows.1));
            if let Some(least) = least.map(|(pair, _)| *pair) {
                self.0.remove(&least);
            }
        }
        let sum = self.0.entry(pair).or_default();
        *sum = (sum.0.saturating_add(first.1), sum.1.saturating_add(second.1));
    }

    /// Forgets tables that are gone.
    pub fn retain(&mut self, is_there: impl Fn(TableId) -> bool) {
        self.0.retain(|(one, other), _| is_there(one.table) && is_there(other.table));
    }

    /// The tables of all pairs.
    pub fn tables(&self) -> BTreeSet<TableId> {
        self.0.keys().flat_map(|(one, other)| [one.table, other.table]).collect()
    }

    /// The keys that tables should get next: of one table, or of two that are joined by them.
    pub fn proposal(
        &self,
        state_of: impl Fn(TableId) -> KeyState,
        is_fit: impl Fn(StoredColumn) -> bool,
    ) -> Option<Proposal> {
        let state = |column: &StoredColumn| match state_of(column.table) {
            KeyState::Open { .. } if !is_fit(*column) => KeyState::Other,
            state => state,
        };
        let spared = |(pair, rows): (&Pair, &(u64, u64))| {
            let spared = Spared::of(*pair, *rows, state(&pair.0), state(&pair.1));
            (!spared.columns.is_empty()).then_some(spared)
        };
        let all: Vec<Spared> = self.0.iter().filter_map(spared).collect();
        let mut heaviest: BTreeMap<TableId, u64> = BTreeMap::new();
        for spared in &all {
            for column in &spared.columns {
                let most = heaviest.entry(column.table).or_default();
                *most = (*most).max(spared.rows);
            }
        }
        let is_heaviest = |spared: &&Spared| {
            spared.columns.iter().all(|c| heaviest.get(&c.table) == Some(&spared.rows))
        };
        let pays = |spared: &&Spared| spared.rows >= spared.cost;
        let best = all.iter().filter(is_heaviest).filter(pays).max_by_key(|spared| spared.rows)?;
        Some(Proposal { columns: best.columns.clone(), joined: best.joined, rows: best.rows })
    }
}

/// What a table is, where somebody asks for a key for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It has so many rows and may get a key; perhaps it has one column that it calls its primary key.
    Open {
        /// Its rows.
        rows: u64,
        /// The primary key.
        primary: Option<ColumnId>,
    },
    /// It lies by a key, or is about to.
    By(ColumnId),
    /// It lies by none, and will not.
    Other,
}

/// Keys that tables should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The keys, one of each table.
    pub columns: Vec<StoredColumn>,
    /// The pair that was joined, or the column that rows were grouped by, twice.
    pub joined: (StoredColumn, StoredColumn),
    /// Rows that queries moved and would not have.
    pub rows: u64,
}

/// What keys for the open tables of one pair would have spared.
struct Spared {
    columns: Vec<StoredColumn>,
    joined: Pair,
    rows: u64,
    cost: u64,
}

impl Spared {
    fn of(pair: Pair, (first, second): (u64, u64), one: KeyState, other: KeyState) -> Self {
        let (mut columns, mut cost) = (Vec::new(), 0u64);
        let primary = |state, column: StoredColumn| matches!(state, KeyState::Open { primary: Some(key), .. } if key == column.column);
        let of_row = match primary(one, pair.0) || primary(other, pair.1) {
            true => REWRITE_COST_PRIMARY,
            false => REWRITE_COST,
        };
        // A table cannot lie by two columns.
        let sides = match (pair.0 == pair.1, pair.0.table == pair.1.table) {
            (true, _) => vec![(pair.0, one)],
            (false, true) => vec![],
            (false, false) => vec![(pair.0, one), (pair.1, other)],
        };
        for (column, state) in sides {
            if let KeyState::Open { rows, .. } = state {
                columns.push(column);
                cost = cost.saturating_add(rows.saturating_mul(of_row));
            }
        }
        // Rows of a side stay if it lies by the key; those of the other go where it lies.
        let lies = |column: StoredColumn, state| match state {
            KeyState::Open { .. } => true,
            KeyState::By(key) => key == column.column,
            KeyState::Other => false,
        };
        let rows = match (lies(pair.0, one), lies(pair.1, other)) {
            (true, true) => first.saturating_add(second),
            (true, false) => first,
            (false, true) => second,
            (false, false) => 0,
        };
        Self { columns, joined: pair, rows, cost }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distribute::MovedSide;

    const fn column(table: u64, column: u32) -> StoredColumn {
        StoredColumn { table: TableId(table), column: ColumnId(column) }
    }

    const LINE_ORDER: StoredColumn = column(1, 1);
    const LINE_PART: StoredColumn = column(1, 2);
    const ORDER: StoredColumn = column(2, 1);
    const ORDER_CUSTOMER: StoredColumn = column(2, 2);
    const CUSTOMER: StoredColumn = column(3, 1);

    fn side(key: StoredColumn, rows: u64) -> MovedSide {
        MovedSide { key, rows }
    }

    fn joined(one: StoredColumn, rows: u64, other: StoredColumn, others: u64) -> MovedKey {
        MovedKey { rows: side(one, rows), with: Some(side(other, others)) }
    }

    fn moved(keys: &[MovedKey]) -> MovedRows {
        let mut moved = MovedRows::default();
        keys.iter().for_each(|key| moved.note(*key));
        moved
    }

    fn open(rows: u64) -> KeyState {
        KeyState::Open { rows, primary: None }
    }

    fn all_of_hundred(_: TableId) -> KeyState {
        open(100)
    }

    fn proposed(moved: &MovedRows, state: impl Fn(TableId) -> KeyState) -> Vec<StoredColumn> {
        moved.proposal(state, |_| true).map_or(vec![], |proposal| proposal.columns)
    }

    #[test]
    fn both_tables_of_a_join_get_its_key_once_it_moved_what_writing_them_costs() {
        let almost = [joined(ORDER, 100, LINE_ORDER, 600), joined(LINE_ORDER, 99, ORDER, 0)];
        assert_eq!(proposed(&moved(&almost), all_of_hundred), []);
        let enough = moved(&[almost[0], almost[1], joined(LINE_ORDER, 1, ORDER, 0)]);
        assert_eq!(proposed(&enough, all_of_hundred), [LINE_ORDER, ORDER]);
        let proposal = enough.proposal(all_of_hundred, |_| true).unwrap();
        assert_eq!(proposal.rows, 800);
    }

    #[test]
    fn a_table_waits_for_its_heaviest_join() {
        let lines = joined(LINE_ORDER, 5_000, ORDER, 1_000);
        let customers = joined(ORDER_CUSTOMER, 4_000, CUSTOMER, 500);
        let moved = moved(&[lines, customers]);
        let large_lines = |table| open(if table == LINE_ORDER.table { 10_000 } else { 100 });
        assert_eq!(proposed(&moved, large_lines), [], "orders would go by customer");
        assert_eq!(proposed(&moved, all_of_hundred), [LINE_ORDER, ORDER]);
        let then = |table| match table {
            TableId(1) => KeyState::By(LINE_ORDER.column),
            TableId(2) => KeyState::By(ORDER.column),
            _ => open(100),
        };
        assert_eq!(proposed(&moved, then), [CUSTOMER], "whose own rows would stay");
    }

    #[test]
    fn what_the_other_side_moves_counts_only_if_it_would_stay() {
        let moved = moved(&[joined(LINE_PART, 0, column(4, 1), 9_999)]);
        let part_is_even = |table| if table == TableId(4) { KeyState::Other } else { open(100) };
        assert_eq!(proposed(&moved, part_is_even), []);
        let by_another = |table| match table {
            TableId(4) => KeyState::By(ColumnId(7)),
            _ => open(100),
        };
        assert_eq!(proposed(&moved, by_another), []);
    }

    #[test]
    fn groups_and_joins_with_itself_give_a_table_the_key() {
        let grouped = MovedKey { rows: side(LINE_ORDER, 400), with: None };
        assert_eq!(proposed(&moved(&[grouped]), all_of_hundred), [LINE_ORDER]);
        let itself = joined(LINE_ORDER, 200, LINE_ORDER, 200);
        assert_eq!(proposed(&moved(&[itself]), all_of_hundred), [LINE_ORDER]);
        let two_columns = joined(LINE_ORDER, 900, LINE_PART, 900);
        assert_eq!(proposed(&moved(&[two_columns]), all_of_hundred), []);
    }

    #[test]
    fn a_primary_key_needs_less_evidence() {
        let moved = moved(&[joined(ORDER, 100, LINE_ORDER, 100)]);
        let with_key = |table| match table {
            TableId(2) => KeyState::Open { rows: 100, primary: Some(ORDER.column) },
            _ => open(100),
        };
        assert_eq!(proposed(&moved, all_of_hundred), []);
        assert_eq!(proposed(&moved, with_key), [LINE_ORDER, ORDER]);
    }

    #[test]
    fn columns_that_do_not_fit_are_passed_over() {
        let moved = moved(&[joined(ORDER, 900, LINE_ORDER, 900)]);
        let proposal = moved.proposal(all_of_hundred, |column| column != LINE_ORDER).unwrap();
        assert_eq!(proposal.columns, [ORDER], "its own rows would stay");
        assert_eq!(proposal.rows, 900);
    }

    #[test]
    fn only_so_many_pairs_are_remembered_and_the_heaviest_stay() {
        let mut moved = MovedRows::default();
        moved.note(joined(LINE_ORDER, 1_000, ORDER, 1_000));
        for table in 0..2 * PAIRS_MAX as u64 {
            moved.note(joined(column(10 + table, 1), 1, column(9, 1), 1));
        }
        assert_eq!(moved.0.len(), PAIRS_MAX);
        assert!(moved.0.contains_key(&(LINE_ORDER, ORDER)));
        moved.retain(|table| table != TableId(9));
        assert_eq!(moved.0.len(), 1);
    }

    proptest! {
        #[test]
        fn a_proposal_pays_and_names_open_tables_once(
            joins in prop::collection::vec((0u64..4, 1u32..3, 0u64..4, 1u32..3, 0u64..500, 0u64..500), 0..40),
            open_tables in prop::collection::vec(any::<bool>(), 4),
        ) {
            let keys: Vec<_> = joins
                .iter()
                .map(|(t, c, u, d, n, m)| joined(column(*t, *c), *n, column(*u, *d), *m))
                .collect();
            let state = |table: TableId| match open_tables[table.0 as usize] {
                true => open(100),
                false => KeyState::By(ColumnId(1)),
            };
            if let Some(proposal) = moved(&keys).proposal(state, |_| true) {
                let tables: BTreeSet<_> = proposal.columns.iter().map(|c| c.table).collect();
                prop_assert_eq!(tables.len(), proposal.columns.len());
                prop_assert!(!tables.is_empty());
                prop_assert!(tables.iter().all(|table| open_tables[table.0 as usize]));
                prop_assert!(proposal.rows >= REWRITE_COST * 100 * tables.len() as u64);
            }
        }
    }
}
