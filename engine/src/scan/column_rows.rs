//! The values of one column of a row group: decoded, NULL where the segment lacks the column, or
//! the rows' own ids.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::DataType;
use basalt_storage::row_group::{RowGroupColumn, RowSelection};
use datafusion::common::internal_err;
use datafusion::error::Result;

use crate::error::storage_error;

/// The values of one column of a row group, in order.
pub(super) enum ColumnRows {
    Stored(Box<RowGroupColumn>),
    Absent(DataType),
    /// Ids of rows that follow each other, from this one.
    Ids(u64),
    /// Ids of selected rows.
    SelectedIds(std::vec::IntoIter<u64>),
}

impl ColumnRows {
    /// The ids of a row group's rows, or of the selected ones; `first` is its first row's.
    pub(super) fn ids(first: u64, selection: Option<&RowSelection>) -> Self {
        let Some(selection) = selection else { return Self::Ids(first) };
        let (mut next, mut ids) = (first, Vec::new());
        for run in selection.iter() {
            let end = next + run.row_count as u64;
            if !run.skip {
                ids.extend(next..end);
            }
            next = end;
        }
        Self::SelectedIds(ids.into_iter())
    }

    /// Exactly `rows` more values.
    pub(super) fn take(&mut self, rows: usize) -> Result<ArrayRef> {
        match self {
            Self::Absent(data_type) => Ok(arrow::array::new_null_array(data_type, rows)),
            Self::Stored(reader) => reader.take(rows).map_err(storage_error),
            Self::Ids(next) => {
                let first = *next;
                *next += rows as u64;
                Ok(Arc::new(UInt64Array::from_iter_values(first..*next)))
            }
            Self::SelectedIds(ids) => {
                let taken: Vec<_> = ids.take(rows).collect();
                if taken.len() < rows {
                    return internal_err!("a row group has fewer row ids than rows");
                }
                Ok(Arc::new(UInt64Array::from(taken)))
            }
        }
    }
}
