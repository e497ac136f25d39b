//! Reading a row group of one column piece by piece, as scans do: batches of values that stay in
//! the processor's cache, instead of the whole row group at once.
//!
//! Invariant: the pieces of a row group add up to exactly the rows that the metadata states (or
//! the selection chooses); too few is [`StorageError::Misaligned`], never a short array.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
pub use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use crate::error::{Result, StorageError};
use crate::ids::ColumnId;
use crate::segment_meta::SegmentMeta;
use crate::segment_reader::{VerifiedBytes, check_request, open_reader};
use crate::types::from_physical;

/// The values of one column of one row group that were not taken yet.
pub struct RowGroupColumn {
    reader: ParquetRecordBatchReader,
    target: DataType,
    path: std::path::PathBuf,
    nullable: bool,
    /// Decoded and not taken.
    rest: Option<ArrayRef>,
    rows_left: usize,
}

/// Opens a row group of a column for reading in pieces of about `piece_rows` values of type
/// `target`. With a `selection` over all rows of the row group, only the selected rows come.
///
/// # Errors
/// As of [`decode_row_group`](crate::segment_reader::decode_row_group).
pub fn open_row_group(
    meta: &SegmentMeta,
    column: ColumnId,
    row_group: usize,
    bytes: &VerifiedBytes,
    target: &DataType,
    piece_rows: usize,
    selection: Option<RowSelection>,
) -> Result<RowGroupColumn> {
    let column = meta.column(column);
    let column = column.ok_or_else(|| StorageError::invalid_request("no such column"))?;
    let rows = meta.row_groups().get(row_group).copied().unwrap_or_default() as usize;
    check_request(column, row_group, rows, bytes, target, selection.as_ref())?;
    let rows_left = selection.as_ref().map_or(rows, RowSelection::row_count);
    // Selected rows are few: one piece, sliced as it is taken.
    let piece_rows = match selection {
        Some(_) => rows_left.max(1),
        None => piece_rows.max(1),
    };
    let reader = guarded(&column.path(), || {
        open_reader(column, row_group, piece_rows, bytes, target, selection)
    })?;
    Ok(RowGroupColumn {
        reader,
        target: target.clone(),
        path: column.path(),
        nullable: column.nullable(),
        rest: None,
        rows_left,
    })
}

impl RowGroupColumn {
    /// Exactly `rows` more values.
    ///
    /// # Errors
    /// [`StorageError::Misaligned`] when there are fewer, [`StorageError::Corrupt`] when verified
    /// bytes do not decode.
    pub fn take(&mut self, rows: usize) -> Result<ArrayRef> {
        if rows > self.rows_left {
            return Err(self.misaligned(rows));
        }
        if rows == 0 {
            return Ok(new_empty_array(&self.target));
        }
        let mut pieces: Vec<ArrayRef> = Vec::with_capacity(1);
        let mut wanted = rows;
        while wanted > 0 {
            let piece = match self.rest.take() {
                Some(rest) => rest,
                None => self.decode()?.ok_or_else(|| self.misaligned(rows))?,
            };
            if piece.len() > wanted {
                self.rest = Some(piece.slice(wanted, piece.len() - wanted));
                pieces.push(piece.slice(0, wanted));
                wanted = 0;
            } else {
                wanted -= piece.len();
                pieces.push(piece);
            }
        }
        self.rows_left -= rows;
        match pieces.as_slice() {
            [piece] => Ok(ArrayRef::clone(piece)),
            many => {
                let many: Vec<&dyn Array> = many.iter().map(|piece| piece.as_ref()).collect();
                Ok(concat(&many)?)
            }
        }
    }

    fn decode(&mut self) -> Result<Option<ArrayRef>> {
        let (reader, path) = (&mut self.reader, &self.path);
        let batch = guarded(path, || {
            let next = reader.next().transpose();
            next.map_err(|error| StorageError::corrupt(path.clone(), error.to_string()))
        })?;
        let Some(values) = batch.and_then(|batch| batch.columns().first().cloned()) else {
            return Ok(None);
        };
        if !self.nullable && values.null_count() > 0 {
            let detail = "it has NULLs and is NOT NULL";
            return Err(StorageError::corrupt(self.path.clone(), detail));
        }
        from_physical(&values, &self.target).map(Some)
    }

    fn misaligned(&self, rows: usize) -> StorageError {
        let detail = format!("{rows} rows were wanted and fewer are left");
        StorageError::misaligned(self.path.clone(), detail)
    }
}

/// Checksummed bytes that make the decoder panic are a damaged chunk, not a dead process.
fn guarded<T>(path: &std::path::Path, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(StorageError::corrupt(path.to_path_buf(), "its decoder panicked")))
}
