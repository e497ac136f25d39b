//! Long numbers that become decimals.
//!
//! DataFusion reads every number with a point as DOUBLE, and integers beyond 64 bits too, so that
//! `INSERT INTO t VALUES (12345678901234567.89)` would store another number. A DOUBLE holds 15 significant
//! digits whatever they are (IEEE 754 binary64, `DBL_DIG`); a number of more becomes a cast of its text to
//! the DECIMAL that holds it: where it is cast to DECIMAL, and where it is put into a column of that type.
//! Anywhere else it is the DOUBLE nearest to it, as beside a DOUBLE it has to be.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, UnaryOperator, Value, ValueWithSpan,
};

/// Digits that a DOUBLE holds.
const DOUBLE_DIGITS: usize = 15;
/// Digits that a DECIMAL holds.
const DECIMAL_DIGITS: usize = 38;

/// Makes a number exact that is about to become a DECIMAL. Other expressions are left alone.
pub fn make_exact(expr: &mut Expr) {
    let mut expr = expr;
    while let Expr::Nested(inner)
    | Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr: inner } = expr
    {
        expr = inner.as_mut();
    }
    let Expr::Value(ValueWithSpan { value: Value::Number(text, _), span }) = expr else { return };
    let Some((precision, scale)) = decimal_of(text) else { return };
    let text = Value::SingleQuotedString(text.clone()).with_span(*span);
    let digits = ExactNumberInfo::PrecisionAndScale(precision as u64, scale as i64);
    *expr = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(text)),
        data_type: DataType::Decimal(digits),
        array: false,
        format: None,
    };
}

/// Makes the number exact that an expression casts to DECIMAL.
pub(super) fn make_cast_exact(expr: &mut Expr) {
    use DataType as T;
    if let Expr::Cast { expr, data_type: T::Decimal(_) | T::Numeric(_) | T::Dec(_), .. } = expr {
        make_exact(expr);
    }
}

/// Precision and scale of the decimal that a number is; none if DataFusion reads it exactly, or no
/// decimal does.
fn decimal_of(text: &str) -> Option<(usize, usize)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let is_exact = match text.contains('.') {
        true => significant(whole, fraction) <= DOUBLE_DIGITS,
        false => whole.parse::<u64>().is_ok() || whole.is_empty(),
    };
    let (precision, scale) = (whole.len() + fraction.len(), fraction.len());
    (!is_exact && precision <= DECIMAL_DIGITS).then_some((precision, scale))
}

/// How many digits there are from the first to the last that is not zero.
fn significant(whole: &str, fraction: &str) -> usize {
    let fraction = fraction.trim_end_matches('0');
    match (whole.is_empty(), fraction.is_empty()) {
        (true, _) => fraction.trim_start_matches('0').len(),
        (false, true) => whole.trim_end_matches('0').len(),
        (false, false) => whole.len() + fraction.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_double_cannot_hold_is_a_decimal() {
        for (text, expected) in [
            ("0.1", None),
            ("123456789012.345", None),
            ("1234567890123.456", Some((16, 3))),
            ("0.0000000000000000000001", None),
            ("0.1000000000000000000000", None),
            ("100000000000000000000.0", None),
            ("12345678901234567.89", Some((19, 2))),
            (".1234567890123456", Some((16, 16))),
            ("18446744073709551615", None),
            ("18446744073709551616", Some((20, 0))),
            ("00000000000000000000000000000001", None),
            ("1234567890123456789012345678901234567.89", None),
            ("12345678901234567.89e2", None),
            ("0x1234567890123456789", None),
        ] {
            assert_eq!(decimal_of(text), expected, "{text}");
        }
    }
}
