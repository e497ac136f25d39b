//! The values of one column of one row group, decoded.

use std::collections::HashSet;

use arrow::array::{Array, ArrayData, ArrayRef};
use arrow::datatypes::DataType;

/// The values of one column of one row group: pieces as they were decoded, which stay in a core's
/// cache while they are worked on, and are charged as what they are when a query holds some of them.
#[derive(Debug)]
pub struct DecodedColumn {
    data_type: DataType,
    pieces: Vec<ArrayRef>,
    bytes: u64,
}

impl DecodedColumn {
    /// A column of pieces of one type.
    pub fn new(data_type: DataType, pieces: Vec<ArrayRef>) -> Self {
        let mut seen = HashSet::new();
        let bytes = pieces.iter().map(|piece| new_bytes(&piece.to_data(), &mut seen)).sum();
        Self { data_type, pieces, bytes }
    }

    /// The type of its values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Its values, in pieces.
    pub fn pieces(&self) -> &[ArrayRef] {
        &self.pieces
    }

    /// Memory that it takes, in bytes. Buffers that pieces share, like the dictionary of strings,
    /// count once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Bytes of an array's buffers that were not seen yet.
fn new_bytes(data: &ArrayData, seen: &mut HashSet<usize>) -> u64 {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    let buffers = data.buffers().iter().chain(nulls);
    let new = buffers.filter(|buffer| seen.insert(buffer.data_ptr().as_ptr() as usize));
    let own: u64 = new.map(|buffer| buffer.capacity() as u64).sum();
    own + data.child_data().iter().map(|child| new_bytes(child, seen)).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn buffers_that_pieces_share_count_once() {
        let words: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            (0..1_000).map(|number| format!("a string of more than twelve bytes, {number}")),
        ));
        let whole = DecodedColumn::new(DataType::Utf8View, vec![Arc::clone(&words)]);
        let halves = vec![words.slice(0, 500), words.slice(500, 500)];
        let halves = DecodedColumn::new(DataType::Utf8View, halves);
        assert_eq!(halves.bytes(), whole.bytes());
        assert!(whole.bytes() > 1_000 * 16);
    }

    #[test]
    fn buffers_of_their_own_count_each() {
        let piece =
            |first| -> ArrayRef { Arc::new(Int64Array::from_iter_values(first..first + 1_000)) };
        let column = DecodedColumn::new(DataType::Int64, vec![piece(0), piece(1_000)]);
        assert!(column.bytes() >= 2_000 * 8);
    }
}
