//! Values by the letters of a `query` line, the way SQLite's own runner writes them.
//!
//! There the letter decides, not the column: `I` is an integer (a float loses its fraction, text
//! that is no number is 0), `R` has three digits after the point, `T` is text. NULL is `NULL`,
//! empty text `(empty)`, and what is no printable ASCII character is `@`. Booleans, which SQLite
//! does not have, are 1 and 0.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Significant digits of a float as text (`%.15g`).
const TEXT_DIGITS: usize = 15;

const OPTIONS: FormatOptions<'static> = FormatOptions::new();

/// Appends the rows of a batch as text, column `i` by letter `i`.
///
/// # Errors
/// A type that Arrow cannot display.
pub(super) fn append_rows(
    batch: &RecordBatch,
    letters: &[char],
    rows: &mut Vec<Vec<String>>,
) -> Result<(), ArrowError> {
    let start = rows.len();
    rows.resize_with(start + batch.num_rows(), || Vec::with_capacity(batch.num_columns()));
    for (column, letter) in batch.columns().iter().zip(letters) {
        let column = Column::new(column)?;
        for (index, row) in rows[start..].iter_mut().enumerate() {
            row.push(column.value(index, *letter)?);
        }
    }
    Ok(())
}

/// A column by what its values can become.
struct Column {
    /// As `f64` where it is one of the floats.
    floats: Option<ArrayRef>,
    texts: ArrayRef,
    is_boolean: bool,
}

impl Column {
    fn new(column: &ArrayRef) -> Result<Self, ArrowError> {
        let column = match column.data_type() {
            DataType::Dictionary(_, values) => cast(column, values)?,
            _ => column.clone(),
        };
        let is_float = column.data_type().is_floating();
        let floats = if is_float { Some(cast(&column, &DataType::Float64)?) } else { None };
        let is_boolean = *column.data_type() == DataType::Boolean;
        Ok(Self { floats, texts: column, is_boolean })
    }

    fn value(&self, row: usize, letter: char) -> Result<String, ArrowError> {
        if self.texts.data_type() == &DataType::Null || self.texts.is_null(row) {
            return Ok("NULL".to_owned());
        }
        if let Some(floats) = &self.floats {
            return Ok(float(floats.as_primitive::<Float64Type>().value(row), letter));
        }
        if self.is_boolean {
            return Ok(number(if self.texts.as_boolean().value(row) { "1" } else { "0" }, letter));
        }
        let formatter = ArrayFormatter::try_new(&self.texts, &OPTIONS)?;
        Ok(number(&formatter.value(row).try_to_string()?, letter))
    }
}

fn float(value: f64, letter: char) -> String {
    match letter {
        // A cast in Rust truncates and saturates, as SQLite's does.
        #[expect(clippy::cast_possible_truncation, reason = "what the letter asks for")]
        'I' => (value as i64).to_string(),
        'R' => format!("{value:.3}"),
        _ => general(value),
    }
}

/// A value that is no float, from its text.
fn number(text: &str, letter: char) -> String {
    match letter {
        'I' => integer(text),
        'R' => format!("{:.3}", float_prefix(text)),
        _ if text.is_empty() => "(empty)".to_owned(),
        _ => text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '@' }).collect(),
    }
}

/// The integer that a text begins with; 0 if it begins with none.
fn integer(text: &str) -> String {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let digits = digits[..end].trim_start_matches('0');
    if digits.is_empty() { "0".to_owned() } else { format!("{sign}{digits}") }
}

/// The number that a text begins with; 0 if it begins with none.
fn float_prefix(text: &str) -> f64 {
    let text = text.trim_start();
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let start = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let mut end = digits(start);
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    text[..end].parse().unwrap_or(0.0)
}

/// `%.15g`, but with `.0` behind a whole number, as SQLite casts floats to text.
fn general(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NULL".to_owned()
        } else if value > 0.0 {
            "Inf".to_owned()
        } else {
            "-Inf".to_owned()
        };
    }
    let scientific = format!("{value:.*e}", TEXT_DIGITS - 1);
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..TEXT_DIGITS as i32).contains(&exponent) {
        let decimals = usize::try_from(TEXT_DIGITS as i32 - 1 - exponent).unwrap_or(0);
        return whole_has_point(trimmed(&format!("{value:.decimals$}")));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", whole_has_point(trimmed(digits)), exponent.abs())
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn whole_has_point(text: &str) -> String {
    if text.contains('.') { text.to_owned() } else { format!("{text}.0") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Decimal128Array, Float64Array, Int64Array, NullArray, StringArray,
    };

    use super::*;

    fn check(column: ArrayRef, letter: char, expected: &[&str]) {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let mut rows = Vec::new();
        append_rows(&batch, &[letter], &mut rows).unwrap();
        let texts: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(texts, expected, "as {letter}");
    }

    #[test]
    fn integers_lose_fractions_toward_zero() {
        check(
            Arc::new(Float64Array::from(vec![1.9, -1.9, 1e30])),
            'I',
            &["1", "-1", "9223372036854775807"],
        );
        let decimals = Decimal128Array::from(vec![199, -199, -50]).with_precision_and_scale(9, 2);
        check(Arc::new(decimals.unwrap()), 'I', &["1", "-1", "0"]);
        check(
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            'I',
            &["1", "0", "NULL"],
        );
    }

    #[test]
    fn text_that_is_no_number_is_zero() {
        let texts = || Arc::new(StringArray::from(vec!["12ab", "-7.5", "x", "", " 03"]));
        check(texts(), 'I', &["12", "-7", "0", "0", "3"]);
        check(texts(), 'R', &["12.000", "-7.500", "0.000", "0.000", "3.000"]);
    }

    #[test]
    fn reals_have_three_digits() {
        check(
            Arc::new(Float64Array::from(vec![1.0, 2.0 / 3.0, -0.0005])),
            'R',
            &["1.000", "0.667", "-0.001"],
        );
        check(Arc::new(Int64Array::from(vec![Some(5), None])), 'R', &["5.000", "NULL"]);
    }

    #[test]
    fn text_is_printable() {
        check(
            Arc::new(StringArray::from(vec!["", "a b", "a\tb\n", "é"])),
            'T',
            &["(empty)", "a b", "a@b@", "@"],
        );
        check(Arc::new(Int64Array::from(vec![-3])), 'T', &["-3"]);
        check(Arc::new(NullArray::new(1)), 'T', &["NULL"]);
    }

    #[test]
    fn floats_as_text_have_fifteen_digits_and_a_point() {
        check(
            Arc::new(Float64Array::from(vec![1.0, 0.1 + 0.2, 1e15, 1.5e-7, -2.5])),
            'T',
            &["1.0", "0.3", "1.0e+15", "1.5e-07", "-2.5"],
        );
    }
}
