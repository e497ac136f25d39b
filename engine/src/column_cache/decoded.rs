//! The values of one column of one row group, decoded, and what they weigh.

use std::collections::HashSet;
use std::ops::Range;

use arrow::array::{Array, ArrayData, ArrayRef};
use arrow::datatypes::DataType;
use basalt_storage::segment_reader::VerifiedBytes;

/// The values of one column of one row group: pieces as they were decoded, which stay in a core's
/// cache while they are worked on, and are charged as what they are when a query holds some of them.
#[derive(Debug)]
pub struct DecodedColumn {
    data_type: DataType,
    pieces: Vec<ArrayRef>,
    bytes: u64,
}

impl DecodedColumn {
    /// A column of pieces of one type, which weigh `bytes` together ([`Weigher`]).
    pub fn new(data_type: DataType, pieces: Vec<ArrayRef>, bytes: u64) -> Self {
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

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Says what the pieces of a column take in memory, as they are decoded.
///
/// Buffers that pieces share, as the dictionary of strings, count once. Where a buffer is a part of
/// the bytes that were decoded, all of these count: it holds them.
#[derive(Debug)]
pub struct Weigher {
    seen: HashSet<usize>,
    fetched: Range<usize>,
    holds_fetched: bool,
    bytes: u64,
}

impl Weigher {
    /// For a column that is decoded from `fetched`.
    pub fn new(fetched: &VerifiedBytes) -> Self {
        Self::of(fetched.addresses())
    }

    fn of(fetched: Range<usize>) -> Self {
        Self { seen: HashSet::new(), fetched, holds_fetched: false, bytes: 0 }
    }

    /// Adds a piece; returns by how many bytes it grew.
    pub fn add(&mut self, piece: &ArrayRef) -> u64 {
        let before = self.bytes;
        self.add_data(&piece.to_data());
        self.bytes - before
    }

    /// What all pieces take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn add_data(&mut self, data: &ArrayData) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            let address = buffer.data_ptr().as_ptr() as usize;
            if !self.fetched.contains(&address) {
                if self.seen.insert(address) {
                    self.bytes += buffer.capacity() as u64;
                }
            } else if !self.holds_fetched {
                self.holds_fetched = true;
                self.bytes += self.fetched.len() as u64;
            }
        }
        data.child_data().iter().for_each(|child| self.add_data(child));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};
    use arrow::buffer::{Buffer, ScalarBuffer};

    use super::*;

    fn weight(fetched: Range<usize>, pieces: &[ArrayRef]) -> u64 {
        let mut weigher = Weigher::of(fetched);
        let grown: u64 = pieces.iter().map(|piece| weigher.add(piece)).sum();
        assert_eq!(grown, weigher.bytes());
        grown
    }

    #[test]
    fn buffers_that_pieces_share_count_once() {
        let words: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            (0..1_000).map(|number| format!("a string of more than twelve bytes, {number}")),
        ));
        let whole = weight(0..0, &[Arc::clone(&words)]);
        assert_eq!(weight(0..0, &[words.slice(0, 500), words.slice(500, 500)]), whole);
        assert!(whole > 1_000 * 16);
    }

    #[test]
    fn buffers_of_their_own_count_each() {
        let piece =
            |first| -> ArrayRef { Arc::new(Int64Array::from_iter_values(first..first + 1_000)) };
        assert!(weight(0..0, &[piece(0), piece(1_000)]) >= 2_000 * 8);
    }

    #[test]
    fn a_part_of_what_was_fetched_holds_all_of_it() {
        let fetched = Buffer::from_vec(vec![7_u8; 65_536]);
        let start = fetched.as_ptr() as usize;
        let part = |at| -> ArrayRef {
            let values = ScalarBuffer::<i64>::new(fetched.clone(), at, 10);
            Arc::new(Int64Array::new(values, None))
        };
        let weight = weight(start..start + fetched.len(), &[part(0), part(100)]);
        assert_eq!(weight, 65_536);
    }
}
