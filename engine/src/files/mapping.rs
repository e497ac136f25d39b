//! From the columns of files to the columns of a table, by name.
//!
//! Invariant: a mapping loses nothing silently. What cannot be wrong is cast; what may be wrong
//! for some values is a [`Conversion::Checked`] that fails on the first such value; anything else
//! is refused, with all other differences in one error.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema};

use crate::error::{ErrorCode, SqlError, closest, printable};
use crate::types::storage_type;

/// Differences that one error lists; the rest is counted.
const DIFFERENCES_SHOWN: usize = 100;

/// Where a column of a table gets its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnMapping {
    /// Index in the schema of the files.
    pub source: usize,
    /// Index in the schema of the table.
    pub target: usize,
    /// What has to be done to the values.
    pub conversion: Conversion,
}

/// What has to be done to values on their way into a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// Nothing but, perhaps, another layout of the same type.
    Same,
    /// A cast that is exact for every value.
    Exact,
    /// A cast that is exact or an error, value by value: [`checked_cast`](super::checked_cast).
    Checked,
}

/// Maps every column of `target` to the column of `source` with its name, in the order of `target`.
///
/// Names are equal as they are, or when their case differs and only one of each would fit. NULLs
/// for columns that are not nullable are found when rows are written, not here.
///
/// # Errors
///
/// [`ErrorCode::DatatypeMismatch`], or [`ErrorCode::UndefinedColumn`] when names alone differ: one
/// error that lists every missing, extra and incompatible column.
pub fn load_mapping(source: &Schema, target: &Schema) -> Result<Vec<ColumnMapping>, SqlError> {
    let mut exact: HashMap<&str, usize> = HashMap::new();
    let mut folded: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, field) in source.fields().iter().enumerate() {
        exact.insert(field.name(), index);
        folded.entry(field.name().to_lowercase()).or_default().push(index);
    }
    let mut targets_folded: HashMap<String, usize> = HashMap::new();
    for field in target.fields() {
        *targets_folded.entry(field.name().to_lowercase()).or_default() += 1;
    }
    let find = |name: &str| {
        let lower = name.to_lowercase();
        let other_case = || match folded.get(&lower).map(Vec::as_slice) {
            Some([only]) if targets_folded.get(&lower) == Some(&1) => Some(*only),
            _ => None,
        };
        exact.get(name).copied().or_else(other_case)
    };
    let mut mappings = Vec::with_capacity(target.fields().len());
    let mut used = vec![false; source.fields().len()];
    let mut missing = Vec::new();
    let mut incompatible = Vec::new();
    for (target_index, to) in target.fields().iter().enumerate() {
        let Some(source_index) = find(to.name()) else {
            missing.push(to.name().as_str());
            continue;
        };
        if let Some(used) = used.get_mut(source_index) {
            *used = true;
        }
        let from = source.field(source_index).data_type();
        match conversion(from, to.data_type()) {
            Some(conversion) => {
                mappings.push(ColumnMapping {
                    source: source_index,
                    target: target_index,
                    conversion,
                });
            }
            None => incompatible.push(format!(
                "column \"{}\" is {} in the table and {from} in the files",
                printable(to.name()),
                to.data_type()
            )),
        }
    }
    let unused = source.fields().iter().zip(&used).filter(|(_, used)| !**used);
    let extra: Vec<&str> = unused.map(|(field, _)| field.name().as_str()).collect();
    if missing.is_empty() && extra.is_empty() && incompatible.is_empty() {
        return Ok(mappings);
    }
    Err(differences(&missing, &extra, incompatible))
}

fn differences(missing: &[&str], extra: &[&str], incompatible: Vec<String>) -> SqlError {
    let names_only = incompatible.is_empty();
    let mut all = Vec::new();
    let quote = |name: &str| format!("\"{}\"", printable(name));
    all.extend(missing.iter().map(|name| match closest(name, extra.iter().copied()) {
        Some(close) => {
            format!("column {} is not in the files (is it their {}?)", quote(name), quote(close))
        }
        None => format!("column {} is not in the files", quote(name)),
    }));
    all.extend(extra.iter().map(|name| format!("column {} is not in the table", quote(name))));
    all.extend(incompatible);
    let more = all.len().saturating_sub(DIFFERENCES_SHOWN);
    all.truncate(DIFFERENCES_SHOWN);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    let code = if names_only { ErrorCode::UndefinedColumn } else { ErrorCode::DatatypeMismatch };
    SqlError::new(code, format!("files and table have different columns: {}{rest}", all.join("; ")))
        .with_hint(
            "load with INSERT INTO ... SELECT from read_parquet('...') or read_csv('...') to choose, rename and cast columns",
        )
}

/// What turns values of one type into values of another without silent loss, if anything does.
fn conversion(from: &DataType, to: &DataType) -> Option<Conversion> {
    use DataType as T;
    if *from == T::Null {
        // Writers give a column without values no type; its NULLs are those of every type.
        return Some(Conversion::Exact);
    }
    let (stored, to) = (storage_type(from).ok()?, storage_type(to).ok()?);
    if stored == to {
        return Some(Conversion::Same);
    }
    let checked = Some(Conversion::Checked);
    match (&stored, &to) {
        (from, to) if from.is_integer() && to.is_integer() => {
            Some(if widens(from, to) { Conversion::Exact } else { Conversion::Checked })
        }
        (from, T::Decimal128(..)) if from.is_integer() => checked,
        (T::Decimal128(_, scale), to) if to.is_integer() && *scale <= 0 => checked,
        (T::Decimal128(..), T::Decimal128(..)) => checked,
        // Floats hold every integer of up to 24 and 53 bits.
        (T::Int8 | T::UInt8 | T::Int16 | T::UInt16, T::Float32 | T::Float64)
        | (T::Int32 | T::UInt32 | T::Float16 | T::Float32, T::Float64)
        | (T::Float16, T::Float32) => Some(Conversion::Exact),
        (T::Timestamp(_, a), T::Timestamp(_, b)) if a.is_some() == b.is_some() => checked,
        (T::Time32(_) | T::Time64(_), T::Time32(_) | T::Time64(_)) => checked,
        (T::Duration(_), T::Duration(_)) => checked,
        (T::Date64, T::Date32) => checked,
        (T::FixedSizeBinary(_), T::Binary) => Some(Conversion::Exact),
        _ => nested(from, &to),
    }
}

/// Nested types convert when everything in them does so exactly.
fn nested(from: &DataType, to: &DataType) -> Option<Conversion> {
    use DataType as T;
    let exact = |from: &DataType, to: &DataType| match conversion(from, to) {
        Some(Conversion::Same | Conversion::Exact) => Some(Conversion::Exact),
        _ => None,
    };
    match (from, to) {
        (T::List(a) | T::LargeList(a) | T::FixedSizeList(a, _), T::List(b)) => {
            exact(a.data_type(), b.data_type())
        }
        (T::Struct(a), T::Struct(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b);
            let equal = pairs.all(|(a, b)| {
                a.name() == b.name() && exact(a.data_type(), b.data_type()).is_some()
            });
            equal.then_some(Conversion::Exact)
        }
        (T::Map(a, _), T::Map(b, _)) => match (a.data_type(), b.data_type()) {
            (T::Struct(a), T::Struct(b)) if a.len() == b.len() => {
                let mut pairs = a.iter().zip(b);
                let equal = pairs.all(|(a, b)| exact(a.data_type(), b.data_type()).is_some());
                equal.then_some(Conversion::Exact)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether every value of one integer type is a value of the other.
fn widens(from: &DataType, to: &DataType) -> bool {
    let bits = |ty: &DataType| ty.primitive_width().unwrap_or_default();
    match (from.is_signed_integer(), to.is_signed_integer()) {
        (true, true) | (false, false) => bits(from) <= bits(to),
        (false, true) => bits(from) < bits(to),
        (true, false) => false,
    }
}
