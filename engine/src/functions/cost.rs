//! What a call of each function makes, from its arguments: bytes, or steps where it only counts.
//!
//! Estimates are from above and may be far above: they say into how many runs a batch is cut, and
//! only a single row above the bound is refused unseen. NULL arguments make nothing.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalYearMonthType,
    TimeUnit,
};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;

/// What a function's rows cost.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cost {
    /// Bytes that it makes: those of its arguments together.
    Sum,
    /// Bytes that it makes.
    Bytes(fn(&Row<'_>) -> u64),
    /// Steps that it takes, sixteen for one, in a loop that nothing can stop.
    Work(fn(&Row<'_>) -> u64),
}

/// Functions that make much out of little, by name. Aliases come with them.
pub(super) const COSTS: &[(&str, Cost)] = &[
    ("repeat", Cost::Bytes(|row| row.size(0).saturating_mul(row.count(1)))),
    ("lpad", Cost::Bytes(padded)),
    ("rpad", Cost::Bytes(padded)),
    ("replace", Cost::Bytes(replaced)),
    ("regexp_replace", Cost::Bytes(replaced_by_pattern)),
    ("concat", Cost::Sum),
    ("concat_ws", Cost::Bytes(joined)),
    ("levenshtein", Cost::Work(|row| row.size(0).saturating_mul(row.size(1)) / 16)),
    ("array_repeat", Cost::Bytes(|row| (row.size(0) + ELEMENT_BYTES).saturating_mul(row.count(1)))),
    ("array_resize", Cost::Bytes(resized)),
    ("array_to_string", Cost::Bytes(listed)),
    ("range", Cost::Bytes(series)),
    ("generate_series", Cost::Bytes(series)),
];

/// Bytes of an array's element at most, without what it points at.
const ELEMENT_BYTES: u64 = 16;

impl Cost {
    /// Whether a call is below a bound at first sight, without looking at rows.
    pub(super) fn is_surely_below(self, args: &[ColumnarValue], rows: usize, bytes: u64) -> bool {
        let all_of = |arg: &ColumnarValue| match arg {
            ColumnarValue::Array(array) => array.get_array_memory_size() as u64,
            ColumnarValue::Scalar(scalar) => (scalar.size() as u64).saturating_mul(rows as u64),
        };
        matches!(self, Self::Sum)
            && args.iter().fold(0_u64, |sum, arg| sum.saturating_add(all_of(arg))) <= bytes
    }

    /// The cost of each row of a call.
    pub(super) fn of_rows(self, args: &[ColumnarValue], rows: usize) -> Vec<u64> {
        let columns: Vec<Argument> = args.iter().map(Argument::new).collect();
        let cost: fn(&Row<'_>) -> u64 = match self {
            Self::Sum => |row| row.sizes(),
            Self::Bytes(cost) | Self::Work(cost) => cost,
        };
        (0..rows).map(|row| cost(&Row { columns: &columns, row })).collect()
    }
}

/// One argument, in a form that its sizes can be told from.
struct Argument {
    array: Option<ArrayRef>,
    /// The same as numbers: dates and timestamps too.
    integers: Option<Int64Array>,
    scalar: bool,
}

impl Argument {
    fn new(value: &ColumnarValue) -> Self {
        let (array, scalar) = match value {
            ColumnarValue::Array(array) => (Some(ArrayRef::clone(array)), false),
            ColumnarValue::Scalar(scalar) => (ScalarValue::to_array(scalar).ok(), true),
        };
        let is_number = |t: &DataType| {
            let is_date = matches!(t, DataType::Date32 | DataType::Date64);
            t.is_integer() || is_date || matches!(t, DataType::Timestamp(..))
        };
        let numbers = array.as_ref().filter(|array| is_number(array.data_type()));
        let numbers = numbers.and_then(|array| match array.data_type() {
            DataType::Date32 => cast(&cast(array, &DataType::Int32).ok()?, &DataType::Int64).ok(),
            _ => cast(array, &DataType::Int64).ok(),
        });
        let integers = numbers.and_then(|n| n.as_primitive_opt::<Int64Type>().cloned());
        Self { array, integers, scalar }
    }
}

/// One row's arguments.
pub(super) struct Row<'a> {
    columns: &'a [Argument],
    row: usize,
}

impl Row<'_> {
    /// An argument's array and the row in it; `None` for NULL and for arguments left out.
    fn at(&self, argument: usize) -> Option<(&dyn Array, usize)> {
        let column = self.columns.get(argument)?;
        let array = column.array.as_ref()?;
        let row = if column.scalar { 0 } else { self.row };
        (row < array.len() && !array.is_null(row)).then_some((array.as_ref(), row))
    }

    /// Bytes of a text or list, 16 for anything else, 0 for NULL.
    fn size(&self, argument: usize) -> u64 {
        let Some((array, row)) = self.at(argument) else { return 0 };
        size_of_value(array, row)
    }

    /// Bytes of all arguments together.
    fn sizes(&self) -> u64 {
        (0..self.columns.len()).map(|argument| self.size(argument)).sum()
    }

    /// A number, 0 when it is negative or NULL.
    fn count(&self, argument: usize) -> u64 {
        self.integer(argument).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
    }

    fn integer(&self, argument: usize) -> Option<i64> {
        let (_, row) = self.at(argument)?;
        let integers = self.columns.get(argument)?.integers.as_ref()?;
        (row < integers.len() && !integers.is_null(row)).then(|| integers.value(row))
    }

    fn len(&self, argument: usize) -> u64 {
        let Some((array, row)) = self.at(argument) else { return 0 };
        match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().value_length(row).unsigned_abs().into(),
            DataType::LargeList(_) => array.as_list::<i64>().value_length(row).unsigned_abs(),
            DataType::FixedSizeList(_, length) => length.unsigned_abs().into(),
            _ => 1,
        }
    }
}

fn size_of_value(array: &dyn Array, row: usize) -> u64 {
    let bytes = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).len(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).len(),
        DataType::Utf8View => array.as_string_view().value(row).len(),
        DataType::Binary => array.as_binary::<i32>().value(row).len(),
        DataType::LargeBinary => array.as_binary::<i64>().value(row).len(),
        DataType::BinaryView => array.as_binary_view().value(row).len(),
        DataType::List(_) => return size_of_list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => return size_of_list(&array.as_list::<i64>().value(row)),
        _ => return ELEMENT_BYTES,
    };
    bytes as u64
}

/// A list's own bytes, not those of the array that it is a slice of.
fn size_of_list(list: &dyn Array) -> u64 {
    list.to_data().get_slice_memory_size().map_or(ELEMENT_BYTES, |bytes| bytes as u64)
}

/// `lpad(text, characters, fill)`: a character has up to four bytes.
fn padded(row: &Row<'_>) -> u64 {
    row.count(1).saturating_mul(4)
}

/// `replace(text, from, to)`: as if all of the text were `from`.
fn replaced(row: &Row<'_>) -> u64 {
    let (text, from, to) = (row.size(0), row.size(1), row.size(2));
    let places = text.checked_div(from).unwrap_or(text + 1);
    text.saturating_add(places.saturating_mul(to))
}

/// `regexp_replace(text, pattern, to, 'g')`: a pattern may match between any two characters, and
/// `to` may name what it matched.
fn replaced_by_pattern(row: &Row<'_>) -> u64 {
    let (text, to) = (row.size(0), row.size(2));
    let everywhere = row.at(3).is_some();
    let places = if everywhere { text + 1 } else { 1 };
    text.saturating_add(places.saturating_mul(to)).saturating_add(text.saturating_mul(to / 2))
}

/// `concat_ws(separator, ...)`.
fn joined(row: &Row<'_>) -> u64 {
    row.sizes().saturating_add(row.size(0).saturating_mul(row.columns.len() as u64))
}

/// `array_resize(array, length, fill)`.
fn resized(row: &Row<'_>) -> u64 {
    let fill = row.size(2) + ELEMENT_BYTES;
    row.size(0).saturating_add(row.count(1).saturating_mul(fill))
}

/// `array_to_string(array, separator)`: a number has up to forty digits.
fn listed(row: &Row<'_>) -> u64 {
    let elements = row.len(0);
    row.size(0).saturating_add(elements.saturating_mul(row.size(1).saturating_add(40)))
}

/// `range(start, stop, step)` of numbers, dates or timestamps.
fn series(row: &Row<'_>) -> u64 {
    let (Some(first), second) = (row.at(0), row.at(1)) else { return 0 };
    if row.columns.len() == 3 && row.at(2).is_none() {
        return 0;
    }
    let is_time = !first.0.data_type().is_integer();
    // The two ends may be of different units.
    let number = |argument| {
        let (array, _) = row.at(argument)?;
        Some(i128::from(row.integer(argument)?) * nanoseconds_in(array.data_type()))
    };
    let (start, stop) = match (second, row.columns.len()) {
        (None, 1) => (Some(0), number(0)),
        _ => (number(0), number(1)),
    };
    let (Some(start), Some(stop)) = (start, stop) else { return 0 };
    let step = match is_time {
        true => row.at(2).map_or(1, |(array, at)| interval_nanoseconds(array, at)),
        false => number(2).unwrap_or(1),
    };
    let elements = (stop - start).unsigned_abs() / step.unsigned_abs().max(1) + 1;
    u64::try_from(elements).unwrap_or(u64::MAX).saturating_mul(ELEMENT_BYTES)
}

const DAY_NS: i128 = 86_400_000_000_000;

/// Nanoseconds in a unit of a date or timestamp, 1 for numbers.
fn nanoseconds_in(unit: &DataType) -> i128 {
    match unit {
        DataType::Date32 => DAY_NS,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        _ => 1,
    }
}

/// How many nanoseconds an interval has at least.
fn interval_nanoseconds(interval: &dyn Array, row: usize) -> i128 {
    let of = |months: i32, days: i32, nanoseconds: i128| {
        (i128::from(months) * 28 + i128::from(days)) * DAY_NS + nanoseconds
    };
    if let Some(interval) = interval.as_primitive_opt::<IntervalMonthDayNanoType>() {
        let value = interval.value(row);
        return of(value.months, value.days, value.nanoseconds.into());
    }
    if let Some(interval) = interval.as_primitive_opt::<IntervalDayTimeType>() {
        let value = interval.value(row);
        return of(0, value.days, i128::from(value.milliseconds) * 1_000_000);
    }
    match interval.as_primitive_opt::<IntervalYearMonthType>() {
        Some(interval) => of(interval.value(row), 0, 0),
        None => 1,
    }
}
