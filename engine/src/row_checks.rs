//! What every row that is written must be, beyond its types: NOT NULL and lengths of text.
//!
//! Invariant: whatever writes rows asks here, column by column, before a row leaves for its slice.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use basalt_storage::schema::Column;

use crate::error::{ErrorCode, SqlError, printable};

/// Values of a refused row that its error shows, and characters of each.
const VALUES_SHOWN: usize = 8;
const VALUE_CHARS_SHOWN: usize = 20;

/// Checks one column of new rows, in its stored type. `rows` are all columns as they came.
///
/// # Errors
///
/// [`ErrorCode::NotNullViolation`] and [`ErrorCode::DataException`], naming column and row.
pub fn check_rows(
    column: &Column,
    values: &ArrayRef,
    table: &str,
    rows: &RecordBatch,
) -> Result<(), SqlError> {
    if !column.nullable && values.null_count() > 0 {
        let row = (0..values.len()).find(|row| values.is_null(*row)).unwrap_or_default();
        let message = format!(
            "column \"{}\" of table {} does not allow NULL: the row is {}",
            printable(&column.name),
            printable(table),
            shown(rows, row)
        );
        return Err(SqlError::new(ErrorCode::NotNullViolation, message));
    }
    check_length(column, values)
}

/// Checks that no text is longer than its column allows.
///
/// # Errors
///
/// [`ErrorCode::DataException`] naming the column and the first text that is too long.
pub fn check_length(column: &Column, values: &ArrayRef) -> Result<(), SqlError> {
    let Some(chars_max) = column.declared.chars_max else { return Ok(()) };
    let Some(texts) = values.as_string_opt::<i32>() else {
        return match values.data_type() {
            DataType::Utf8 => Err(SqlError::new(ErrorCode::Internal, "a text is no string array")),
            _ => Ok(()),
        };
    };
    let chars_max = usize::try_from(chars_max).unwrap_or(usize::MAX);
    // A character has at least one byte, so most texts need not be counted.
    let long = texts
        .iter()
        .flatten()
        .find(|text| text.len() > chars_max && text.chars().nth(chars_max).is_some());
    match long {
        None => Ok(()),
        Some(text) => {
            let message = format!(
                "column \"{}\" of type VARCHAR({chars_max}) cannot hold {} characters: {}",
                printable(&column.name),
                text.chars().count(),
                clipped(text)
            );
            Err(SqlError::new(ErrorCode::DataException, message)
                .with_hint(format!("cut them with left(..., {chars_max})")))
        }
    }
}

/// A row as PostgreSQL shows it in the detail of such an error.
fn shown(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let values = rows.columns().iter().take(VALUES_SHOWN).map(|column| {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options);
        match formatter.ok().and_then(|formatter| formatter.value(row).try_to_string().ok()) {
            Some(value) => clipped(&value),
            None => "?".to_owned(),
        }
    });
    let values: Vec<_> = values.collect();
    let more = if rows.num_columns() > VALUES_SHOWN { ", ..." } else { "" };
    format!("({}{more})", values.join(", "))
}

fn clipped(text: &str) -> String {
    let start: String = text.chars().take(VALUE_CHARS_SHOWN).collect();
    let more = if start.len() < text.len() { "..." } else { "" };
    format!("{}{more}", printable(&start))
}
