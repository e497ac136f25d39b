//! Types from texts: the narrowest type that loses nothing of any text seen.

use arrow::array::types::Date32Type;
use arrow::compute::kernels::cast_utils::{Parser, string_to_timestamp_nanos};
use arrow::datatypes::{DataType, TimeUnit};

/// What the texts of a column looked like so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Guess {
    /// Nothing but NULL.
    #[default]
    Nothing,
    /// `true`, `false`.
    Boolean,
    /// Whole numbers of 64 bits.
    Integer,
    /// Other numbers.
    Float,
    /// `2026-01-31`.
    Date,
    /// `2026-01-31 12:00:00.123456`, without a zone.
    Timestamp,
    /// Anything else.
    Text,
}

impl Guess {
    /// Takes a value into account.
    pub(super) fn add(&mut self, text: &str) {
        if *self != Self::Text {
            self.merge(Self::of(text));
        }
    }

    /// Takes another file's guess into account.
    pub(super) fn merge(&mut self, other: Self) {
        *self = match (*self, other) {
            (one, Self::Nothing) | (Self::Nothing, one) => one,
            (one, two) if one == two => one,
            (Self::Integer, Self::Float) | (Self::Float, Self::Integer) => Self::Float,
            (Self::Date, Self::Timestamp) | (Self::Timestamp, Self::Date) => Self::Timestamp,
            _ => Self::Text,
        };
    }

    /// The type for the column.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Nothing | Self::Text => DataType::Utf8View,
        }
    }

    fn of(text: &str) -> Self {
        let Some(first) = text.bytes().next() else { return Self::Text };
        if first.is_ascii_digit() || matches!(first, b'-' | b'.') {
            return Self::of_number_or_time(text);
        }
        if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            return Self::Boolean;
        }
        Self::Text
    }

    fn of_number_or_time(text: &str) -> Self {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() {
            // 007 is a code and not a number; what does not fit 64 bits would lose digits.
            let leading_zero = digits.len() > 1 && digits.starts_with('0');
            let fits = text.parse::<i64>().is_ok();
            return if fits && !leading_zero { Self::Integer } else { Self::Text };
        }
        let looks_like_number = text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
        if looks_like_number && text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Self::Float;
        }
        Self::of_time(text)
    }

    fn of_time(text: &str) -> Self {
        let shaped = |text: &str, shape: &str| {
            text.len() == shape.len()
                && text.bytes().zip(shape.bytes()).all(|(b, s)| match s {
                    b'0' => b.is_ascii_digit(),
                    b'T' => matches!(b, b'T' | b' '),
                    s => b == s,
                })
        };
        if shaped(text, "0000-00-00") {
            let is_date = Date32Type::parse(text).is_some();
            return if is_date { Self::Date } else { Self::Text };
        }
        let (start, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_fraction = fraction.len() <= 6 && fraction.bytes().all(|b| b.is_ascii_digit());
        let is_time = (shaped(start, "0000-00-00T00:00:00") && is_fraction)
            || shaped(text, "0000-00-00T00:00");
        if is_time && string_to_timestamp_nanos(text).is_ok() {
            Self::Timestamp
        } else {
            Self::Text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Guess;

    fn check(texts: &[&str], expected: Guess) {
        let mut guess = Guess::default();
        texts.iter().for_each(|text| guess.add(text));
        assert_eq!(guess, expected, "{texts:?}");
    }

    #[test]
    fn the_narrowest_type_that_loses_nothing_is_guessed() {
        check(&[], Guess::Nothing);
        check(&["true", "FALSE"], Guess::Boolean);
        check(&["1", "-42"], Guess::Integer);
        check(&["1", "2.5"], Guess::Float);
        check(&["2026-01-31"], Guess::Date);
        check(&["2026-01-31", "2026-01-31 12:30:00"], Guess::Timestamp);
        check(&["2026-01-31T12:30:00.123456"], Guess::Timestamp);
    }

    #[test]
    fn what_would_lose_something_is_text() {
        for text in [
            "007",
            "9223372036854775808",
            "1e400",
            "0x10",
            "1_000",
            " 42 ",
            "+5",
            "1,5",
            "yes",
            "2026-02-30",
            "2026-01-31T12:30:00.1234567",
            "2026-01-31T12:30:00Z",
            "",
            "NaN",
        ] {
            check(&[text], Guess::Text);
        }
        check(&["1", "true"], Guess::Text);
    }
}
