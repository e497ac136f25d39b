//! Collecting the rows that pass into batches of their own.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{BatchCoalescer, filter_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

/// Adds the rows of a batch that a mask names.
///
/// Texts of few rows are copied: `BatchCoalescer::push_batch_with_filter` of arrow-select 59 would keep
/// the whole buffers that they lie in, of every batch that had one row, and sorts and
/// joins would count all of that as theirs. Rows filtered before are copied where they use less than half.
pub(super) fn push_rows(
    coalescer: &mut BatchCoalescer,
    batch: RecordBatch,
    mask: &BooleanArray,
) -> Result<(), ArrowError> {
    if batch.columns().iter().any(shares_buffers) {
        coalescer.push_batch(filter_record_batch(&batch, mask)?)
    } else {
        coalescer.push_batch_with_filter(batch, mask)
    }
}

/// Whether values lie in buffers that filtering does not copy.
fn shares_buffers(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Utf8View => !array.as_string_view().data_buffers().is_empty(),
        DataType::BinaryView => !array.as_binary_view().data_buffers().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryViewArray, StringViewArray};

    use super::*;

    fn texts(first: usize, rows: usize) -> impl Iterator<Item = String> {
        (first..first + rows).map(|n| format!("a text that is not kept in its view: {n}"))
    }

    #[test]
    fn few_rows_of_many_batches_do_not_hold_all_of_their_texts() {
        const ROWS: usize = 8192;
        const BATCHES: usize = 50;
        let batch = |first| {
            let strings: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts(first, ROWS)));
            let bytes = BinaryViewArray::from_iter_values(texts(first, ROWS));
            RecordBatch::try_from_iter([("s", strings), ("b", Arc::new(bytes) as ArrayRef)])
                .unwrap()
        };
        let mask = BooleanArray::from_iter((0..ROWS).map(|row| Some(row == 77)));
        let mut coalescer = BatchCoalescer::new(batch(0).schema(), ROWS);
        for index in 0..BATCHES {
            push_rows(&mut coalescer, batch(index * ROWS), &mask).unwrap();
        }
        coalescer.finish_buffered_batch().unwrap();
        let collected = coalescer.next_completed_batch().unwrap();
        let expected = (0..BATCHES).flat_map(|index| texts(index * ROWS + 77, 1));
        assert!(collected.column(0).as_string_view().iter().flatten().eq(expected));
        let bytes = collected.get_array_memory_size();
        assert!(bytes < batch(0).get_array_memory_size() / 2, "{bytes} bytes for {BATCHES} rows");
    }
}
