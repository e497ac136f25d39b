//! One value as text.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
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
    formatter: ArrayFormatter<'a>,
    /// NULLs as SQL sees them: in the keys of a dictionary or among its values.
    nulls: Option<NullBuffer>,
}

impl<'a> ColumnText<'a> {
    pub(super) fn new(column: &'a ArrayRef) -> Result<Self, ArrowError> {
        let formatter = ArrayFormatter::try_new(column, &OPTIONS)?;
        Ok(Self { formatter, nulls: column.logical_nulls() })
    }

    /// The value in a row, `None` for NULL.
    pub(super) fn value(&self, row: usize) -> Result<Option<String>, ArrowError> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(None);
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
