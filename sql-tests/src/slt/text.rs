//! Values as text, the way the `.slt` files of DataFusion and DuckDB write them.
//!
//! NULL is `NULL`, the empty string `(empty)`, booleans `true` and `false`. Decimals and floats
//! are plain: no exponent, no trailing zeros; floats are rounded to twelve fractional digits so
//! that the order of a distributed sum does not show. Dates and timestamps are ISO 8601. What is
//! nested is Arrow's display form (`[1, 2]`, `{a: 1}`).

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use sqllogictest::DefaultColumnType;

/// Fractional digits of a float that are compared.
const FLOAT_DIGITS: usize = 12;

pub(super) const OPTIONS: FormatOptions<'static> =
    FormatOptions::new().with_null("NULL").with_duration_format(DurationFormat::Pretty);

/// The letter of a column: `I` for integers, `R` for floats and decimals, `T` for all else.
pub fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        t if t.is_integer() => DefaultColumnType::Integer,
        t if t.is_floating() || t.is_decimal() => DefaultColumnType::FloatingPoint,
        DataType::Dictionary(_, values) => column_type(values),
        _ => DefaultColumnType::Text,
    }
}

/// Appends the rows of a batch as text.
///
/// # Errors
/// A type that Arrow cannot display.
pub fn append_rows(batch: &RecordBatch, rows: &mut Vec<Vec<String>>) -> Result<(), ArrowError> {
    append_rows_as(batch, &OPTIONS, rows)
}

/// Appends the rows of a batch as text; `options` are for what is no number, text or NULL.
pub(super) fn append_rows_as(
    batch: &RecordBatch,
    options: &FormatOptions<'_>,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), ArrowError> {
    let start = rows.len();
    rows.resize_with(start + batch.num_rows(), || Vec::with_capacity(batch.num_columns()));
    for column in batch.columns() {
        let column = plain(column)?;
        let formatter = ArrayFormatter::try_new(&column, options)?;
        for (index, row) in rows[start..].iter_mut().enumerate() {
            row.push(value(&column, &formatter, index)?);
        }
    }
    Ok(())
}

/// The column without a dictionary.
fn plain(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Dictionary(_, values) => arrow::compute::cast(column, values),
        _ => Ok(column.clone()),
    }
}

fn value(
    column: &ArrayRef,
    formatter: &ArrayFormatter<'_>,
    row: usize,
) -> Result<String, ArrowError> {
    if column.is_null(row) {
        return Ok("NULL".to_owned());
    }
    Ok(match column.data_type() {
        // Through the shortest text of an f32: 0.1 stays 0.1.
        DataType::Float16 => {
            float_text(&column.as_primitive::<Float16Type>().value(row).to_f32().to_string())
        }
        DataType::Float32 => {
            float_text(&column.as_primitive::<Float32Type>().value(row).to_string())
        }
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(..) => {
            decimal(&column.as_primitive::<Decimal32Type>().value_as_string(row))
        }
        DataType::Decimal64(..) => {
            decimal(&column.as_primitive::<Decimal64Type>().value_as_string(row))
        }
        DataType::Decimal128(..) => {
            decimal(&column.as_primitive::<Decimal128Type>().value_as_string(row))
        }
        DataType::Decimal256(..) => {
            decimal(&column.as_primitive::<Decimal256Type>().value_as_string(row))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            string(&formatter.value(row).try_to_string()?)
        }
        _ => formatter.value(row).try_to_string()?,
    })
}

fn string(value: &str) -> String {
    if value.is_empty() {
        return "(empty)".to_owned();
    }
    value.trim_end_matches('\n').replace('\0', "\\0")
}

fn float(value: f64) -> String {
    float_text(&value.to_string())
}

/// A float from its shortest decimal text (`inf`, `-inf` and `NaN` as SQL spells them).
fn float_text(shortest: &str) -> String {
    match shortest {
        "NaN" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        plain => decimal(&rounded(plain, FLOAT_DIGITS)),
    }
}

/// Plain decimal text without trailing zeros and without a negative zero.
fn decimal(text: &str) -> String {
    let trimmed = match text.split_once('.') {
        Some((whole, fraction)) => match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        },
        None => text.to_owned(),
    };
    // A zero of a negative scale is written `000`.
    if trimmed.trim_start_matches(['-', '0']).is_empty() { "0".to_owned() } else { trimmed }
}

/// Plain decimal text with at most `digits` fractional digits, rounded half to even.
fn rounded(text: &str, digits: usize) -> String {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let Some((whole, fraction)) = magnitude.split_once('.') else { return text.to_owned() };
    if fraction.len() <= digits {
        return text.to_owned();
    }
    let (kept, cut) = fraction.split_at(digits);
    let mut number: Vec<u8> = whole.bytes().chain(kept.bytes()).collect();
    let is_tie = cut.starts_with('5') && cut[1..].bytes().all(|digit| digit == b'0');
    let is_odd = number.last().is_some_and(|digit| digit % 2 == 1);
    if if is_tie { is_odd } else { cut.as_bytes()[0] >= b'5' } {
        increment(&mut number);
    }
    let point = number.len() - digits;
    let text: String = number.into_iter().map(char::from).collect();
    format!("{negative}{}.{}", &text[..point], &text[point..])
}

/// Adds one to a number given as ASCII digits.
fn increment(number: &mut Vec<u8>) {
    for digit in number.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    number.insert(0, b'1');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
        ListArray, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    fn check(column: ArrayRef, letter: char, expected: &[&str]) {
        use sqllogictest::ColumnType;
        assert_eq!(column_type(column.data_type()).to_char(), letter, "{}", column.data_type());
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let mut rows = Vec::new();
        append_rows(&batch, &mut rows).unwrap();
        let texts: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn values_are_written_as_datafusion_and_duckdb_write_them() {
        check(Arc::new(Int64Array::from(vec![Some(-7), None])), 'I', &["-7", "NULL"]);
        check(Arc::new(BooleanArray::from(vec![true, false])), 'T', &["true", "false"]);
        check(
            Arc::new(StringArray::from(vec!["", "a b", "NULL"])),
            'T',
            &["(empty)", "a b", "NULL"],
        );
        check(Arc::new(Date32Array::from(vec![19_723])), 'T', &["2024-01-01"]);
        check(
            Arc::new(TimestampMicrosecondArray::from(vec![1_704_067_200_500_000])),
            'T',
            &["2024-01-01T00:00:00.500"],
        );
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        check(Arc::new(list), 'T', &["[1, NULL]"]);
    }

    #[test]
    fn numbers_are_plain() {
        let decimals = Decimal128Array::from(vec![150, -5, 0, 1_200_000])
            .with_precision_and_scale(15, 2)
            .unwrap();
        check(Arc::new(decimals), 'R', &["1.5", "-0.05", "0", "12000"]);
        check(
            Arc::new(Float64Array::from(vec![0.1 + 0.2, 1e21, -0.0, f64::NAN, f64::NEG_INFINITY])),
            'R',
            &["0.3", "1000000000000000000000", "0", "NaN", "-Infinity"],
        );
        check(Arc::new(Float32Array::from(vec![0.1, 2.0])), 'R', &["0.1", "2"]);
        let thousands =
            Decimal128Array::from(vec![0, -3]).with_precision_and_scale(10, -3).unwrap();
        check(Arc::new(thousands), 'R', &["0", "-3000"]);
    }

    #[test]
    fn rounding_is_half_to_even_and_carries() {
        assert_eq!(rounded("9.995", 2), "10.00");
        assert_eq!(rounded("-0.125", 2), "-0.12");
        assert_eq!(rounded("0.135", 2), "0.14");
        assert_eq!(rounded("0.1250001", 2), "0.13");
        assert_eq!(rounded("7", 2), "7");
    }
}
