//! The errors: what was computed, and a type that has room for it.

use std::fmt::Display;

use arrow::datatypes::DataType;
use datafusion::error::DataFusionError;

use crate::error::{ErrorCode, SqlError, printable};

/// Characters of an expression that a message shows.
const EXPRESSION_CHARS_MAX: usize = 100;

/// `integer out of range: 9223372036854775807 + 1`.
pub(super) fn integer_out_of_range(computed: &str, data_type: &DataType) -> DataFusionError {
    let hint = match data_type.primitive_width() {
        Some(..8) => "cast one side to BIGINT before computing",
        _ => "cast one side to DECIMAL(38, 0) or DOUBLE before computing",
    };
    SqlError::new(ErrorCode::NumericOutOfRange, format!("integer out of range: {computed}"))
        .with_hint(hint)
        .into()
}

/// `integer out of range: sum(v) is 9223372036854775808`; `sum` is `None` beyond 38 digits.
pub(super) fn sum_out_of_range(
    name: &str,
    sum: Option<impl Display>,
    data_type: &DataType,
) -> DataFusionError {
    let name = printable(&name.chars().take(EXPRESSION_CHARS_MAX).collect::<String>());
    let (message, hint) = match data_type {
        DataType::Decimal128(precision, _) => (
            format!("decimal out of range: {name} has more than {precision} digits"),
            "cast the argument to DOUBLE or to a decimal with fewer digits",
        ),
        _ => (
            match sum {
                Some(sum) => format!("integer out of range: {name} is {sum}"),
                None => format!("integer out of range: {name}"),
            },
            "cast the argument to DECIMAL(38, 0) or DOUBLE",
        ),
    };
    SqlError::new(ErrorCode::NumericOutOfRange, message).with_hint(hint).into()
}
