//! The order of rows by a sort key.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use crate::error::Result;

/// Where the next row comes from: the batch, and the row in it.
pub(super) type Position = (usize, usize);

const OPTIONS: SortOptions = SortOptions { descending: false, nulls_first: false };

/// The positions of all rows of `batches`, sorted by the columns `keys`, ascending, NULLs last.
/// Rows with equal keys keep their order when there are several key columns.
pub(super) fn sorted_positions(batches: &[RecordBatch], keys: &[usize]) -> Result<Vec<Position>> {
    let positions: Vec<Position> = batches
        .iter()
        .enumerate()
        .flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
        .collect();
    if positions.is_empty() {
        return Ok(positions);
    }
    let columns = keys
        .iter()
        .map(|key| {
            let pieces: Vec<_> = batches.iter().map(|b| b.column(*key).as_ref()).collect();
            Ok(concat(&pieces)?)
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let indices = match columns.as_slice() {
        [values] => one_key(values)?,
        many => many_keys(many)?,
    };
    Ok(indices.into_iter().map(|index| positions[index as usize]).collect())
}

fn one_key(values: &ArrayRef) -> Result<Vec<u32>> {
    let column = SortColumn { values: Arc::clone(values), options: Some(OPTIONS) };
    let indices: UInt32Array = lexsort_to_indices(&[column], None)?;
    Ok(indices.values().to_vec())
}

/// Rows as byte strings that compare like the keys: one comparison per pair instead of one per
/// key column.
fn many_keys(columns: &[ArrayRef]) -> Result<Vec<u32>> {
    let fields = columns
        .iter()
        .map(|column| SortField::new_with_options(column.data_type().clone(), OPTIONS));
    let converter = RowConverter::new(fields.collect())?;
    let rows = converter.convert_columns(columns)?;
    // Fits: a segment has at most SEGMENT_ROWS_MAX rows.
    let mut indices: Vec<u32> = (0..rows.num_rows() as u32).collect();
    indices.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    Ok(indices)
}
