//! One value as text.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};

/// SQL's spelling of timestamps (a space, no `T`) and of NULLs inside lists.
const OPTIONS: FormatOptions<'static> = FormatOptions::new()
    .with_display_error(false)
    .with_null("NULL")
    .with_datetime_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
    .with_duration_format(DurationFormat::Pretty);

/// The values of one column as text.
pub(super) struct ColumnText<'a> {
    column: &'a ArrayRef,
    formatter: ArrayFormatter<'a>,
}

impl<'a> ColumnText<'a> {
    pub(super) fn new(column: &'a ArrayRef) -> Result<Self, ArrowError> {
        Ok(Self { column, formatter: ArrayFormatter::try_new(column, &OPTIONS)? })
    }

    /// The value in a row, `None` for NULL.
    pub(super) fn value(&self, row: usize) -> Result<Option<String>, ArrowError> {
        // `is_null` looks at the keys of a dictionary only; a NULL may be among its values.
        if self.column.is_null(row) || *self.column.data_type() == DataType::Null {
            return Ok(None);
        }
        if let Some(dictionary) = arrow::array::AsArray::as_any_dictionary_opt(self.column) {
            let keys = dictionary.normalized_keys();
            if dictionary.values().is_null(keys[row]) {
                return Ok(None);
            }
        }
        self.formatter.value(row).try_to_string().map(Some)
    }
}

/// Whether values of this type are aligned to the right.
pub(super) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric(),
    }
}
