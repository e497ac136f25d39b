//! Answers, and whether two of them are the same.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::compute::{SortOptions, concat_batches};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Schema};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use basalt_engine::types::wire_schema;

use crate::slt::text;

/// How far two floats may be apart, in parts of the larger: the order of a sum of parts.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// How the message of a panic begins.
const PANIC: &str = "panic: ";
/// How the message of the end of what answers begins.
const LOST: &str = "no more answers: ";
/// Rows of each side that a difference shows.
const ROWS_SHOWN: usize = 5;

/// What a database answers to a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Name and type of each column, as clients see it.
    pub columns: Vec<(String, DataType)>,
    /// The columns that were announced before the query was optimised: DataFusion's rules may change
    /// the digits of a decimal, or drop the branch of a UNION that names the columns, and ours gives
    /// what was announced.
    pub announced: Vec<(String, DataType)>,
    /// The rows as text.
    pub rows: Vec<Vec<String>>,
    /// The rows as they came.
    pub batches: Vec<RecordBatch>,
}

/// Why a database does not answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The SQLSTATE, when the database has one.
    pub sqlstate: Option<String>,
    /// The sentence.
    pub message: String,
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::new(error.to_string())
    }
}

impl Failure {
    /// A failure without a code.
    pub fn new(message: impl Into<String>) -> Self {
        Self { sqlstate: None, message: message.into() }
    }

    /// The end of a task that panicked.
    pub fn of_panic(panic: impl std::fmt::Display) -> Self {
        Self::new(format!("{PANIC}{panic}"))
    }

    /// The end of what should answer: no other query will be answered either.
    pub fn of_lost(reason: impl std::fmt::Display) -> Self {
        Self::new(format!("{LOST}{reason}"))
    }

    /// Whether nothing will be answered any more.
    pub fn is_lost(&self) -> bool {
        self.message.starts_with(LOST)
    }

    /// Whether it is a panic, and not an error.
    pub fn is_panic(&self) -> bool {
        self.message.starts_with(PANIC)
    }
}

/// What two answers must agree in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Names, types, and rows in their order.
    InOrder,
    /// Names, types, and rows as a multiset.
    AsMultiset,
    /// Rows as a multiset only: of two queries that are written differently.
    RowsOnly,
}

/// What two answers differ in: the kind, and a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Whether names or types differ, and not rows.
    pub is_schema: bool,
    /// What differs.
    pub text: String,
}

impl Answer {
    /// The answer that these batches are.
    ///
    /// # Errors
    /// A type that cannot be shown.
    pub fn new(schema: &Schema, batches: &[RecordBatch]) -> Result<Self, Failure> {
        let mut rows = Vec::new();
        for batch in batches {
            text::append_rows(batch, &mut rows)?;
        }
        let column =
            |field: &arrow::datatypes::FieldRef| (field.name().clone(), field.data_type().clone());
        let columns = wire_schema(schema).fields().iter().map(column).collect();
        Ok(Self { columns, announced: Vec::new(), rows, batches: batches.to_vec() })
    }

    /// Whether the rows are in this order; each key is a column's name and how it is sorted.
    /// `None` when it cannot be told.
    pub fn is_sorted_by(&self, keys: &[(&str, SortOptions)]) -> Option<bool> {
        let schema = self.batches.first()?.schema();
        let batch = concat_batches(&schema, &self.batches).ok()?;
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (name, options) in keys {
            let column = batch.column_by_name(name)?;
            fields.push(SortField::new_with_options(column.data_type().clone(), *options));
            columns.push(Arc::clone(column));
        }
        let rows = RowConverter::new(fields).ok()?.convert_columns(&columns).ok()?;
        Some(rows.iter().is_sorted())
    }

    /// What is wrong with `got` where this answer is expected.
    pub fn mismatch(&self, got: &Self, how: Match) -> Option<Mismatch> {
        if how != Match::RowsOnly && !self.has_columns_of(got) {
            let text = format!("columns {:?} for {:?}", got.columns, self.columns);
            return Some(Mismatch { is_schema: true, text });
        }
        let is_float: Vec<_> =
            self.columns.iter().map(|(_, data_type)| data_type.is_floating()).collect();
        let text = match how {
            Match::InOrder if self.rows.len() == got.rows.len() => {
                let is_other =
                    |(a, b): &(&Vec<String>, &Vec<String>)| !is_same_row(a, b, &is_float);
                let (expected, got) = self.rows.iter().zip(&got.rows).find(is_other)?;
                format!("a row {got:?} for {expected:?}, in this order")
            }
            _ => multiset_mismatch(&self.rows, &got.rows, &is_float)?,
        };
        Some(Mismatch { is_schema: false, text })
    }

    fn has_columns_of(&self, got: &Self) -> bool {
        self.columns.len() == got.columns.len()
            && self.columns.iter().zip(&got.columns).enumerate().all(|(index, (left, right))| {
                let announced = self.announced.get(index);
                let is_type = left.1 == right.1
                    || announced.is_some_and(|a| a.1 == right.1)
                    || is_summed_again(&left.1, &right.1);
                let is_name = left.0 == right.0 || announced.is_some_and(|a| a.0 == right.0);
                is_name && is_type
            })
    }

    /// The rows, a line each.
    pub fn shown(&self, rows_max: usize) -> String {
        let mut lines: Vec<_> =
            self.rows.iter().take(rows_max).map(|row| row.join(" | ")).collect();
        if self.rows.len() > rows_max {
            lines.push(format!("... {} rows in all", self.rows.len()));
        }
        if lines.is_empty() { "(no rows)".to_owned() } else { lines.join("\n") }
    }
}

/// Whether a type is that of a sum of sums where the other is that of the sum: DataFusion adds up
/// twice when another aggregate of the query is DISTINCT.
fn is_summed_again(left: &DataType, right: &DataType) -> bool {
    const SUM_DIGITS: u8 = 10;
    match (left, right) {
        (DataType::Decimal128(left, scale), DataType::Decimal128(right, other)) => {
            let widened = right.saturating_add(SUM_DIGITS).min(DECIMAL128_MAX_PRECISION);
            scale == other && *left == widened
        }
        _ => false,
    }
}

fn multiset_mismatch(
    expected: &[Vec<String>],
    got: &[Vec<String>],
    is_float: &[bool],
) -> Option<String> {
    let mut counts: HashMap<&Vec<String>, i64> = HashMap::new();
    expected.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    got.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    for (row, count) in counts {
        let side = if count > 0 { &mut missing } else { &mut extra };
        (0..count.unsigned_abs()).for_each(|_| side.push(row));
    }
    // What differs in the last digits of floats only is taken out of both.
    if is_float.contains(&true) {
        missing.retain(|row| {
            let near = extra.iter().position(|other| is_same_row(row, other, is_float));
            near.map(|index| extra.swap_remove(index)).is_none()
        });
    }
    if missing.is_empty() && extra.is_empty() {
        return None;
    }
    missing.sort_unstable();
    extra.sort_unstable();
    missing.truncate(ROWS_SHOWN);
    extra.truncate(ROWS_SHOWN);
    let (got, expected) = (got.len(), expected.len());
    Some(format!("{got} rows for {expected}, missing {missing:?}, too many {extra:?}"))
}

fn is_same_row(left: &[String], right: &[String], is_float: &[bool]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).enumerate().all(|(index, (left, right))| {
            left == right || (is_float.get(index) == Some(&true) && is_near(left, right))
        })
}

fn is_near(left: &str, right: &str) -> bool {
    let (Ok(left), Ok(right)) = (left.parse::<f64>(), right.parse::<f64>()) else { return false };
    (left - right).abs() <= FLOAT_TOLERANCE * left.abs().max(right.abs())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn answer(data_type: DataType, rows: &[&str]) -> Answer {
        let rows = rows.iter().map(|row| vec![(*row).to_owned()]).collect();
        let columns = vec![("c".to_owned(), data_type)];
        Answer { columns, announced: Vec::new(), rows, batches: Vec::new() }
    }

    #[track_caller]
    fn check(data_type: DataType, left: &[&str], right: &[&str], how: Match, is_same: bool) {
        let (left, right) = (answer(data_type.clone(), left), answer(data_type, right));
        assert_eq!(left.mismatch(&right, how).is_none(), is_same);
    }

    #[test]
    fn rows_are_compared_as_multisets_or_in_order() {
        check(DataType::Int32, &["1", "2", "2"], &["2", "1", "2"], Match::AsMultiset, true);
        check(DataType::Int32, &["1", "2", "2"], &["2", "1", "1"], Match::AsMultiset, false);
        check(DataType::Int32, &["1", "2", "2"], &["1", "2"], Match::AsMultiset, false);
        check(DataType::Int32, &["1", "2"], &["2", "1"], Match::InOrder, false);
        check(DataType::Int32, &["1", "2"], &["1", "2", "3"], Match::InOrder, false);
        check(DataType::Int32, &["1", "2"], &["1", "2"], Match::InOrder, true);
    }

    #[test]
    fn floats_may_differ_in_the_last_digits_and_nothing_else_may() {
        check(
            DataType::Float64,
            &["0.1", "7"],
            &["7", "0.10000000000001"],
            Match::AsMultiset,
            true,
        );
        check(DataType::Float64, &["0.1"], &["0.1001"], Match::AsMultiset, false);
        check(DataType::Float64, &["NaN"], &["NULL"], Match::AsMultiset, false);
        check(DataType::Utf8, &["0.1"], &["0.10000000000001"], Match::AsMultiset, false);
    }

    #[test]
    fn an_order_is_that_of_values_and_not_of_their_text() {
        let batch = |values: Vec<Option<i64>>| {
            let values: ArrayRef = Arc::new(Int64Array::from(values));
            RecordBatch::try_from_iter([("c", values)]).unwrap()
        };
        let batches = [batch(vec![None, Some(10)]), batch(vec![Some(9)])];
        let answer = Answer::new(&batches[0].schema(), &batches).unwrap();
        let sorted = |descending, nulls_first| {
            answer.is_sorted_by(&[("c", SortOptions { descending, nulls_first })])
        };
        assert_eq!(sorted(true, true), Some(true));
        assert_eq!(sorted(true, false), Some(false));
        assert_eq!(sorted(false, true), Some(false));
        assert_eq!(answer.is_sorted_by(&[("d", SortOptions::default())]), None);
    }

    #[test]
    fn types_are_part_of_an_answer() {
        let (left, right) = (answer(DataType::Int32, &["1"]), answer(DataType::Int64, &["1"]));
        assert!(left.mismatch(&right, Match::AsMultiset).unwrap().is_schema);
        assert_eq!(left.mismatch(&right, Match::RowsOnly), None);
        let announced = Answer { announced: vec![("d".to_owned(), DataType::Int64)], ..left };
        assert_eq!(announced.mismatch(&right, Match::AsMultiset), None);
        let named = |name: &str| Answer {
            columns: vec![(name.to_owned(), DataType::Int64)],
            ..right.clone()
        };
        assert_eq!(announced.mismatch(&named("d"), Match::AsMultiset), None);
        assert!(announced.mismatch(&named("e"), Match::AsMultiset).unwrap().is_schema);
    }
}
