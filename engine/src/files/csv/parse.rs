//! From texts to arrays of a type, strictly: what does not fit exactly is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit};

/// A text that is no value of the type.
pub(super) struct BadText {
    /// Which row of the batch.
    pub(super) row: usize,
    /// The text.
    pub(super) text: String,
    /// What is wrong, as the end of a sentence.
    pub(super) reason: String,
}

/// Whether texts can be values of the type.
pub(super) fn is_supported(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(
        data_type,
        T::Boolean
            | T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::UInt64
            | T::Float32
            | T::Float64
            | T::Decimal128(..)
            | T::Date32
            | T::Time32(_)
            | T::Time64(_)
            | T::Timestamp(..)
            | T::Interval(_)
            | T::Utf8
            | T::Utf8View
            | T::Binary
            | T::BinaryView
    )
}

/// Parses every text.
pub(super) fn parse(texts: &StringArray, data_type: &DataType) -> Result<ArrayRef, BadText> {
    if let DataType::Decimal128(precision, scale) = data_type {
        return decimals(texts, *precision, *scale);
    }
    // A safe cast turns bad texts into NULLs, which tells where they are.
    let array = cast(texts, data_type).map_err(|error| BadText {
        row: 0,
        text: String::new(),
        reason: error.to_string(),
    })?;
    let bad =
        |row: usize, reason: String| BadText { row, text: texts.value(row).to_owned(), reason };
    if array.null_count() != texts.null_count()
        && let Some(row) = (0..texts.len()).find(|&row| array.is_null(row) && texts.is_valid(row))
    {
        return Err(bad(row, format!("is not a value of type {data_type}")));
    }
    if let Some(row) = lossy(texts, &array, data_type) {
        return Err(bad(row, format!("has more digits than type {data_type} holds")));
    }
    Ok(array)
}

/// The first row whose text says more than its value.
fn lossy(texts: &StringArray, array: &ArrayRef, data_type: &DataType) -> Option<usize> {
    let infinite = |row: usize| {
        let text = texts.value(row).trim_start_matches(['-', '+']);
        !text.is_empty() && text.as_bytes().first().is_some_and(u8::is_ascii_digit)
    };
    let digits = match data_type {
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            return (0..values.len()).find(|&row| {
                values.is_valid(row) && values.value(row).is_infinite() && infinite(row)
            });
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            return (0..values.len()).find(|&row| {
                values.is_valid(row) && values.value(row).is_infinite() && infinite(row)
            });
        }
        DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit) => {
            match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            }
        }
        _ => return None,
    };
    (0..texts.len()).find(|&row| texts.is_valid(row) && has_more_digits(texts.value(row), digits))
}

/// Whether a time's fraction of a second has a digit other than 0 after the first `digits`.
fn has_more_digits(text: &str, digits: usize) -> bool {
    let Some((_, fraction)) = text.split_once('.') else { return false };
    fraction
        .bytes()
        .take_while(u8::is_ascii_digit)
        .enumerate()
        .any(|(index, digit)| index >= digits && digit != b'0')
}

fn decimals(texts: &StringArray, precision: u8, scale: i8) -> Result<ArrayRef, BadText> {
    let limit = 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    let mut values = Vec::with_capacity(texts.len());
    for (row, text) in texts.iter().enumerate() {
        let Some(text) = text else {
            values.push(None);
            continue;
        };
        match decimal(text, scale).filter(|value| value.unsigned_abs() < limit.unsigned_abs()) {
            Some(value) => values.push(Some(value)),
            None => {
                let reason = format!("is not a value of type DECIMAL({precision},{scale})");
                return Err(BadText { row, text: text.to_owned(), reason });
            }
        }
    }
    let array = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
    let array = array.map_err(|error| BadText {
        row: 0,
        text: String::new(),
        reason: error.to_string(),
    })?;
    Ok(Arc::new(array))
}

/// The unscaled value of `[-+]digits[.digits]`, if `scale` digits after the point hold it exactly.
fn decimal(text: &str, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (kept, lost) = fraction.split_at_checked(scale).unwrap_or((fraction, ""));
    if lost.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let zeros = std::iter::repeat_n(b'0', scale - kept.len());
    let mut value = 0_i128;
    for digit in whole.bytes().chain(kept.bytes()).chain(zeros) {
        let digit = i128::from(char::from(digit).to_digit(10)?);
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::{decimal, has_more_digits};

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("12.5", 2), Some(1250));
        assert_eq!(decimal("-0.050", 2), Some(-5));
        assert_eq!(decimal("+7", 0), Some(7));
        assert_eq!(decimal(".5", 1), Some(5));
        for bad in ["1.234", "", ".", "1e3", "1,5", " 1", "--1", "1.2.3"] {
            assert_eq!(decimal(bad, 2), None, "{bad}");
        }
    }

    #[test]
    fn a_fraction_beyond_the_unit_is_noticed() {
        assert!(has_more_digits("12:00:00.1234", 3));
        assert!(!has_more_digits("12:00:00.1230", 3));
        assert!(!has_more_digits("12:00:00", 0));
    }
}
