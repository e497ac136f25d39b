//! What some values of a column take in every encoding, by writing them as a segment would.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;

use super::column::ColumnEncoder;
use crate::encoding::{ChunkEncoding, Measured};
use crate::error::{Result, StorageError};
use crate::schema::Column;
use crate::types::to_physical;

/// Encodes values, in storage form and at most a row group of them, in each encoding that fits the
/// column's type. What is declared of the column plays no part. An encoding that cannot hold them,
/// as a dictionary that would be too large, is left out.
///
/// # Errors
/// [`StorageError::InvalidData`] beyond the format's limits.
pub fn measure(column: &Column, pieces: &[ArrayRef]) -> Result<Measured> {
    let named = |error: StorageError| error.with_column(&column.name);
    let encoder = ColumnEncoder::new(column);
    let values = pieces.iter().map(|piece| (piece.len() - piece.null_count()) as u64).sum();
    let physical = pieces.iter().map(to_physical).collect::<Result<Vec<_>>>().map_err(named)?;
    let mut bytes = Vec::new();
    for encoding in ChunkEncoding::ALL.into_iter().filter(|e| e.fits(&column.data_type)) {
        if let Some(sizes) = encoder.size_in(&physical, encoding).map_err(named)? {
            bytes.push((encoding, sizes.compressed));
        }
    }
    let is_text = matches!(column.data_type, DataType::Utf8 | DataType::Binary);
    Ok(Measured { values, is_text, bytes })
}
