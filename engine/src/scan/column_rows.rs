//! The values of one column of a row group: decoded, or NULL where the segment lacks the column.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use basalt_storage::row_group::RowGroupColumn;
use datafusion::error::Result;

use crate::error::storage_error;

/// The values of one column of a row group, in order.
pub(super) enum ColumnRows {
    Stored(Box<RowGroupColumn>),
    Absent(DataType),
}

impl ColumnRows {
    /// Exactly `rows` more values.
    pub(super) fn take(&mut self, rows: usize) -> Result<ArrayRef> {
        match self {
            Self::Absent(data_type) => Ok(arrow::array::new_null_array(data_type, rows)),
            Self::Stored(reader) => reader.take(rows).map_err(storage_error),
        }
    }
}
