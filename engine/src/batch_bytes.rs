//! How many bytes the rows of a batch are.
//!
//! Arrow counts the buffers of arrays: those of batches that came in one message are shared, and those of views of
//! texts are not counted at all where an array is a part of another.

use arrow::array::{Array, ArrayData, AsArray, RecordBatch, make_array};
use arrow::datatypes::DataType;

/// Bytes of a batch's own rows. Of texts in lists and structs, all that their array has.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    let bytes = batch.columns().iter().map(|column| {
        let data = column.to_data();
        let fixed = data.get_slice_memory_size();
        fixed.unwrap_or_else(|_| column.get_array_memory_size()) + viewed_bytes(&data)
    });
    bytes.sum()
}

/// Bytes that views point to.
fn viewed_bytes(data: &ArrayData) -> usize {
    match data.data_type() {
        DataType::Utf8View => make_array(data.clone()).as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => make_array(data.clone()).as_binary_view().total_buffer_bytes_used(),
        _ => data.child_data().iter().map(viewed_bytes).sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringViewArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    fn bytes_of(array: ArrayRef) -> usize {
        batch_bytes(&RecordBatch::try_from_iter([("a", array)]).unwrap())
    }

    #[test]
    fn texts_count_with_their_letters() {
        let long = "x".repeat(100);
        let texts = StringViewArray::from_iter_values([long.as_str(), "short", long.as_str()]);
        assert_eq!(bytes_of(Arc::new(texts.clone())), 3 * 16 + 200);
        assert_eq!(bytes_of(Arc::new(texts.slice(0, 1))), 16 + 100);
        let field = Arc::new(Field::new("item", DataType::Utf8View, true));
        let offsets = OffsetBuffer::from_lengths([2, 1]);
        let list = ListArray::new(field, offsets, Arc::new(texts), None);
        assert!(bytes_of(Arc::new(list)) >= 200);
    }

    #[test]
    fn a_part_of_an_array_counts_as_that() {
        let numbers = Int64Array::from_iter_values(0..1000);
        assert_eq!(bytes_of(Arc::new(numbers.slice(10, 5))), 5 * 8);
    }
}
