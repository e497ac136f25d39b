//! The values of one column of a row group: being decoded, decoded before, NULL where the segment
//! lacks the column, or the rows' own ids.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use basalt_storage::row_group::{RowGroupColumn, RowSelection};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;

use crate::column_cache::{ColumnCache, ColumnKey, DecodedColumn, Weigher};
use crate::error::storage_error;

/// The values of one column of a row group, in order.
pub(super) enum ColumnRows {
    Decoding(Box<Decoding>),
    Decoded(DecodedRows),
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
            Self::Decoding(column) => column.take(rows),
            Self::Decoded(column) => column.take(rows),
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

/// A column that is decoded as it is read, and kept once all of it was.
pub(super) struct Decoding {
    reader: RowGroupColumn,
    keep: Option<Keep>,
}

impl Decoding {
    /// A column that is to be kept where `keep` says, if anywhere.
    pub(super) fn new(reader: RowGroupColumn, keep: Option<Keep>) -> Self {
        Self { reader, keep }
    }

    fn take(&mut self, rows: usize) -> Result<ArrayRef> {
        let values = self.reader.take(rows).map_err(storage_error)?;
        self.keep = self.keep.take().and_then(|keep| keep.with(&values));
        Ok(values)
    }
}

/// A column that is being collected for the cache. What is collected is charged to the memory of
/// queries, and given up when that has no room for it.
pub(super) struct Keep {
    pub(super) cache: Arc<ColumnCache>,
    pub(super) key: ColumnKey,
    pub(super) data_type: DataType,
    /// Rows that are not there yet.
    pub(super) rows_left: usize,
    pub(super) pieces: Vec<ArrayRef>,
    pub(super) weigher: Weigher,
    pub(super) reservation: MemoryReservation,
}

impl Keep {
    /// With the next values; nothing when the column is complete, or not worth it any more.
    fn with(mut self, values: &ArrayRef) -> Option<Self> {
        let grown = self.weigher.add(values);
        if !self.cache.takes(self.weigher.bytes()) {
            self.cache.note_too_large(self.key, self.weigher.bytes());
            return None;
        }
        self.reservation.try_grow(usize::try_from(grown).ok()?).ok()?;
        self.rows_left = self.rows_left.checked_sub(values.len())?;
        self.pieces.push(Arc::clone(values));
        if self.rows_left > 0 {
            return Some(self);
        }
        let column = DecodedColumn::new(self.data_type, self.pieces, self.weigher.bytes());
        // From here on it is the cache's, which has its own budget.
        drop(self.reservation);
        self.cache.keep(self.key, Arc::new(column));
        None
    }
}

/// A column that was decoded before.
pub(super) struct DecodedRows {
    column: Arc<DecodedColumn>,
    /// The piece that the next value is in, and its place there.
    piece: usize,
    offset: usize,
}

impl DecodedRows {
    pub(super) fn new(column: Arc<DecodedColumn>) -> Self {
        Self { column, piece: 0, offset: 0 }
    }

    /// Some ranges of a column's rows, in order: slices of its pieces.
    pub(super) fn within(column: Arc<DecodedColumn>, ranges: &[Range<usize>]) -> Self {
        let (mut pieces, mut first) = (Vec::new(), 0);
        for piece in column.pieces() {
            let here = first..first + piece.len();
            for range in ranges {
                let (start, end) = (range.start.max(here.start), range.end.min(here.end));
                if start < end {
                    pieces.push(piece.slice(start - first, end - start));
                }
            }
            first = here.end;
        }
        Self::new(Arc::new(DecodedColumn::new(column.data_type().clone(), pieces, 0)))
    }

    pub(super) fn data_type(&self) -> &DataType {
        self.column.data_type()
    }

    /// Exactly `rows` more values; copied only when pieces of another size are asked for.
    pub(super) fn take(&mut self, rows: usize) -> Result<ArrayRef> {
        let mut taken: Vec<ArrayRef> = Vec::with_capacity(1);
        let mut wanted = rows;
        while wanted > 0 {
            let Some(piece) = self.column.pieces().get(self.piece) else {
                return internal_err!("a cached column has {wanted} rows fewer than its row group");
            };
            let here = wanted.min(piece.len() - self.offset);
            taken.push(match here == piece.len() {
                true => Arc::clone(piece),
                false => piece.slice(self.offset, here),
            });
            wanted -= here;
            self.offset += here;
            if self.offset == piece.len() {
                (self.piece, self.offset) = (self.piece + 1, 0);
            }
        }
        match taken.as_slice() {
            [] => Ok(new_empty_array(self.column.data_type())),
            [piece] => Ok(Arc::clone(piece)),
            many => Ok(concat(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decoded_column_gives_its_values_in_any_pieces(
            made in prop::collection::vec(1usize..50, 1..8),
            asked in prop::collection::vec(0usize..40, 1..20),
        ) {
            let rows: usize = made.iter().sum();
            let mut next = 0_i64;
            let pieces = made.iter().map(|rows| {
                let first = next;
                next += i64::try_from(*rows).unwrap();
                Arc::new(Int64Array::from_iter_values(first..next)) as ArrayRef
            });
            let column = Arc::new(DecodedColumn::new(DataType::Int64, pieces.collect(), 0));
            let mut column = DecodedRows::new(column);
            let mut seen = 0;
            for rows_asked in asked {
                if seen + rows_asked > rows {
                    prop_assert!(column.take(rows_asked).is_err());
                    break;
                }
                let values = column.take(rows_asked).unwrap();
                let values: Vec<_> = values.as_primitive::<Int64Type>().values().to_vec();
                let expected: Vec<_> = (seen..seen + rows_asked).map(|n| n as i64).collect();
                prop_assert_eq!(values, expected);
                seen += rows_asked;
            }
        }
    }
}
