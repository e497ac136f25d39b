//! When the values of two engines are the same: by what they are, not by their types.
//!
//! Integers and decimals are numbers of any width; a DATE is the instant at which it begins, and
//! instants are nanoseconds since 1970, with a time zone or without; an interval of a month is one of
//! thirty days, and a day is one of 24 hours, as both engines compare them. A float is the same as another,
//! or as a number, that is as near as sums in another order are: NaN is NaN, and zero has one sign.
//!
//! Not here: which rows there should be (`check`).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::fuzz::answers::{Answer, Failure};

/// How far two DOUBLEs may be apart, in parts of the larger: sums in another order.
const DOUBLE_TOLERANCE: f64 = 1e-9;
/// The same of a REAL.
const REAL_TOLERANCE: f64 = 1e-6;
/// Rows of each side that a difference shows.
const ROWS_SHOWN: usize = 5;
const DAY_NANOS: i128 = 86_400_000_000_000;
const DAYS_OF_MONTH: i128 = 30;

/// A value without its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A float, and how far another may be apart, in parts.
    Float(f64, f64),
    /// An integer or a decimal without trailing zeros, and its last digit's weight, or 0 of integers.
    Number(String, f64),
    /// Anything else: its kind, and what it is.
    Other(&'static str, String),
}

impl Value {
    /// Whether two values are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(left, near), Self::Float(right, other)) => {
                is_near(*left, *right, near.max(*other), 0.0)
            }
            (Self::Float(float, near), Self::Number(number, step))
            | (Self::Number(number, step), Self::Float(float, near)) => {
                number.parse().is_ok_and(|number| is_near(*float, number, *near, *step))
            }
            (Self::Number(left, _), Self::Number(right, _)) => left == right,
            _ => self == other,
        }
    }

    fn is_float(&self) -> bool {
        matches!(self, Self::Float(..))
    }

    /// What two values that are the same have in common, unless one is a float.
    fn key(&self) -> String {
        match self {
            Self::Float(value, _) => format!("float {}", value + 0.0),
            Self::Number(text, _) => format!("number {text}"),
            Self::Other(kind, text) => format!("{kind} {text}"),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Float(value, _) => value.to_string(),
            Self::Number(text, _) | Self::Other(_, text) => text.clone(),
        }
    }
}

fn is_near(left: f64, right: f64, tolerance: f64, step: f64) -> bool {
    left == right
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= (tolerance * left.abs().max(right.abs())).max(step)
}

/// A row of values.
type Row = Vec<Value>;

/// What differs between two answers, in a sentence; in this order, or as multisets.
///
/// # Errors
/// A type that has no values here.
pub fn mismatch(
    expected: &Answer,
    got: &Answer,
    in_order: bool,
) -> Result<Option<String>, Failure> {
    if expected.columns.len() != got.columns.len() {
        let (expected, got) = (expected.columns.len(), got.columns.len());
        return Ok(Some(format!("{got} columns for {expected}")));
    }
    let (expected, got) = (rows(expected)?, rows(got)?);
    if in_order && expected.len() == got.len() {
        let other = expected.iter().zip(&got).find(|(left, right)| !is_same_row(left, right));
        return Ok(other.map(|(expected, got)| {
            format!("a row {:?} for {:?}, in this order", shown(got), shown(expected))
        }));
    }
    Ok(multiset_mismatch(&expected, &got))
}

fn is_same_row(left: &Row, right: &Row) -> bool {
    left.iter().zip(right).all(|(left, right)| left.is_same(right))
}

fn multiset_mismatch(expected: &[Row], got: &[Row]) -> Option<String> {
    let columns = expected.iter().chain(got).map(Vec::len).max().unwrap_or(0);
    let is_float = |column: usize| {
        expected.iter().chain(got).any(|row| row.get(column).is_some_and(Value::is_float))
    };
    let is_float: Vec<_> = (0..columns).map(is_float).collect();
    // Rows that agree where no float is are compared with each other only.
    let key = |row: &Row| -> Vec<String> {
        let exact = row.iter().zip(&is_float).filter(|(_, is_float)| !**is_float);
        exact.map(|(value, _)| value.key()).collect()
    };
    let mut groups: HashMap<Vec<String>, (Vec<&Row>, Vec<&Row>)> = HashMap::new();
    expected.iter().for_each(|row| groups.entry(key(row)).or_default().0.push(row));
    got.iter().for_each(|row| groups.entry(key(row)).or_default().1.push(row));
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    for (mut left, mut right) in groups.into_values() {
        // Sorted, the one that is near is among the first.
        left.sort_by(|one, other| by_size(one, other));
        right.sort_by(|one, other| by_size(one, other));
        for row in left {
            match right.iter().position(|other| is_same_row(row, other)) {
                Some(index) => drop(right.remove(index)),
                None => missing.push(shown(row)),
            }
        }
        extra.extend(right.into_iter().map(shown));
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

fn by_size(one: &Row, other: &Row) -> Ordering {
    let pairs = one.iter().zip(other).map(|(one, other)| order(one).total_cmp(&order(other)));
    pairs.fold(Ordering::Equal, Ordering::then)
}

/// A number to sort by; NaN and what is no number come first.
fn order(value: &Value) -> f64 {
    match value {
        Value::Float(value, _) if !value.is_nan() => *value,
        Value::Number(text, _) => text.parse().unwrap_or(f64::NEG_INFINITY),
        _ => f64::NEG_INFINITY,
    }
}

fn shown(row: &Row) -> Vec<String> {
    row.iter().map(Value::shown).collect()
}

/// The rows of an answer.
fn rows(answer: &Answer) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for batch in &answer.batches {
        let start = rows.len();
        rows.resize_with(start + batch.num_rows(), Vec::new);
        for column in batch.columns() {
            let values = values(column)?;
            rows[start..].iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        }
    }
    Ok(rows)
}

/// The values of a column.
fn values(column: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let length = column.len();
    let of_numbers = |numbers: &Int64Array, unit: i128, kind: &'static str| -> Vec<Value> {
        let value = |number| Value::Other(kind, (i128::from(number) * unit).to_string());
        numbers.iter().map(|number| number.map_or(null(), value)).collect()
    };
    let of_floats = |floats: ArrayRef, tolerance| -> Vec<Value> {
        let floats = floats.as_primitive::<Float64Type>();
        floats.iter().map(|float| float.map_or(null(), |f| Value::Float(f, tolerance))).collect()
    };
    let of_texts = |make: fn(String) -> Value| -> Result<Vec<Value>, ArrowError> {
        let options = FormatOptions::new().with_null("NULL");
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let value = |row| match column.is_null(row) {
            true => Ok(null()),
            false => formatter.value(row).try_to_string().map(make),
        };
        (0..length).map(value).collect()
    };
    match column.data_type() {
        DataType::Dictionary(_, of) => values(&cast(column, of)?),
        DataType::Null => Ok(vec![null(); length]),
        DataType::Boolean => of_texts(|text| Value::Other("boolean", text)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            of_texts(|text| Value::Other("text", text))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            of_texts(|text| Value::Other("bytes", text))
        }
        data_type if data_type.is_integer() || data_type.is_decimal() => of_texts(number),
        DataType::Float64 => Ok(of_floats(Arc::clone(column), DOUBLE_TOLERANCE)),
        data_type if data_type.is_floating() => {
            Ok(of_floats(cast(column, &DataType::Float64)?, REAL_TOLERANCE))
        }
        DataType::Date32 => {
            let days = cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?;
            Ok(of_numbers(days.as_primitive(), DAY_NANOS, "instant"))
        }
        DataType::Timestamp(unit, _) => {
            let numbers = cast(column, &DataType::Int64)?;
            Ok(of_numbers(numbers.as_primitive(), nanos(*unit), "instant"))
        }
        // Not cast to nanoseconds, which may overflow where NULL hides what is there.
        DataType::Time32(unit) => {
            let numbers = cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?;
            Ok(of_numbers(numbers.as_primitive(), nanos(*unit), "time"))
        }
        DataType::Time64(unit) => {
            let numbers = cast(column, &DataType::Int64)?;
            Ok(of_numbers(numbers.as_primitive(), nanos(*unit), "time"))
        }
        DataType::Duration(unit) => {
            let numbers = cast(column, &DataType::Int64)?;
            Ok(of_numbers(numbers.as_primitive(), nanos(*unit), "interval"))
        }
        DataType::Interval(_) => {
            let parts = cast(column, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let parts = parts.as_primitive::<IntervalMonthDayNanoType>().iter();
            Ok(parts.map(|parts| parts.map_or(null(), interval)).collect())
        }
        _ => of_texts(|text| Value::Other("nested", text)),
    }
}

fn null() -> Value {
    Value::Other("null", "NULL".to_owned())
}

/// An integer or a decimal from its digits.
fn number(text: String) -> Value {
    let Some((_, fraction)) = text.split_once('.') else { return Value::Number(text, 0.0) };
    let digits = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let plain = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    Value::Number(plain, 10_f64.powi(-digits))
}

fn interval(parts: IntervalMonthDayNano) -> Value {
    let days = i128::from(parts.months) * DAYS_OF_MONTH + i128::from(parts.days);
    Value::Other("interval", (days * DAY_NANOS + i128::from(parts.nanoseconds)).to_string())
}

fn nanos(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        IntervalMonthDayNanoArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
        TimestampNanosecondArray,
    };
    use arrow::record_batch::RecordBatch;

    use super::*;

    fn answer(column: impl Array + 'static) -> Answer {
        let batch = RecordBatch::try_from_iter([("c", Arc::new(column) as ArrayRef)]).unwrap();
        Answer::new(&batch.schema(), &[batch]).unwrap()
    }

    #[track_caller]
    fn check(left: impl Array + 'static, right: impl Array + 'static, is_same: bool) {
        let (left, right) = (answer(left), answer(right));
        let difference = mismatch(&left, &right, true).unwrap();
        assert_eq!(difference.is_none(), is_same, "{difference:?}");
        assert_eq!(mismatch(&right, &left, false).unwrap().is_none(), is_same);
    }

    fn decimals(values: Vec<i128>, scale: i8) -> Decimal128Array {
        Decimal128Array::from(values).with_precision_and_scale(38, scale).unwrap()
    }

    #[test]
    fn numbers_are_the_same_whatever_their_type() {
        check(Int64Array::from(vec![7, -3]), decimals(vec![700, -300], 2), true);
        check(Int64Array::from(vec![7]), decimals(vec![701], 2), false);
        check(decimals(vec![12_500], 3), decimals(vec![125], 1), true);
        check(Int64Array::from(vec![100]), decimals(vec![100], 0), true);
        check(
            Int64Array::from(vec![Some(0), None]),
            Int64Array::from(vec![Some(0), Some(0)]),
            false,
        );
    }

    #[test]
    fn floats_are_the_same_when_they_are_near() {
        let doubles = |values: &[f64]| Float64Array::from(values.to_vec());
        check(doubles(&[0.1, f64::NAN]), doubles(&[0.100_000_000_000_01, f64::NAN]), true);
        check(doubles(&[0.1]), doubles(&[0.1001]), false);
        check(doubles(&[f64::NAN]), doubles(&[f64::INFINITY]), false);
        check(doubles(&[-0.0]), doubles(&[0.0]), true);
        check(doubles(&[1.1]), Float32Array::from(vec![1.1]), true);
        check(doubles(&[1.666_666_666_6]), decimals(vec![16_667], 4), true);
        check(doubles(&[1.67]), decimals(vec![16_667], 4), false);
        check(doubles(&[3.0]), Int64Array::from(vec![3]), true);
        check(doubles(&[3.1]), Int64Array::from(vec![3]), false);
    }

    #[test]
    fn instants_and_intervals_are_the_same_whatever_their_unit() {
        let date = Date32Array::from(vec![1]);
        let (micros, day) = (86_400_000_000, 86_400_000_000_000);
        let utc = TimestampNanosecondArray::from(vec![day]).with_timezone("UTC");
        check(date.clone(), TimestampMicrosecondArray::from(vec![micros]), true);
        check(utc, TimestampMicrosecondArray::from(vec![micros]), true);
        check(date, TimestampMicrosecondArray::from(vec![micros + 1]), false);
        let hidden = Time64MicrosecondArray::new(
            vec![i64::MAX].into(),
            Some(arrow::buffer::NullBuffer::new_null(1)),
        );
        check(hidden, Time64MicrosecondArray::from(vec![None]), true);
        let interval = |months, days, nanos| {
            let value = IntervalMonthDayNano::new(months, days, nanos);
            IntervalMonthDayNanoArray::from(vec![value])
        };
        check(interval(1, 0, day), interval(0, 31, 0), true);
        check(interval(1, 0, 0), interval(0, 31, 0), false);
        check(
            Time64MicrosecondArray::from(vec![5]),
            arrow::array::Time64NanosecondArray::from(vec![5_000]),
            true,
        );
    }

    #[test]
    fn what_is_no_number_is_compared_as_it_is() {
        check(StringArray::from(vec!["7"]), Int64Array::from(vec![7]), false);
        check(StringArray::from(vec!["a"]), StringArray::from(vec!["a"]), true);
        check(StringArray::from(vec!["NULL"]), StringArray::from(vec![None::<&str>]), false);
        check(BooleanArray::from(vec![true]), BooleanArray::from(vec![false]), false);
        let bytes = |bytes: &'static [u8]| BinaryArray::from_vec(vec![bytes]);
        check(bytes(b"ab"), bytes(b"ab"), true);
        check(bytes(b"ab"), bytes(b"ac"), false);
    }

    #[test]
    fn rows_are_a_multiset_unless_they_are_ordered() {
        let (left, right) = (answer(Float64Array::from(vec![1.0, 2.0, 2.0])), vec![2.0, 1.0, 2.0]);
        let right = answer(Float64Array::from(right));
        assert_eq!(mismatch(&left, &right, false).unwrap(), None);
        assert!(mismatch(&left, &right, true).unwrap().is_some());
        let fewer = answer(Float64Array::from(vec![1.0, 1.0, 2.0]));
        let text = mismatch(&left, &fewer, false).unwrap().unwrap();
        assert_eq!(text, "3 rows for 3, missing [[\"2\"]], too many [[\"1\"]]");
    }
}
