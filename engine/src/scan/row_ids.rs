//! Row ids: which row of which segment a row of a scan is.
//!
//! A statement that deletes reads the rows it is about with one more column, whose values say
//! where each lies: `(place of the segment in the snapshot's list) << 32 | position in the segment`.
//! Row ids mean nothing outside the snapshot that they were read from, and no user sees them.

use arrow::datatypes::{DataType, Field};
use basalt_storage::ids::ColumnId;

/// The id that stands for row ids in a scan's columns; no table has so many.
pub const ROW_ID_COLUMN: ColumnId = ColumnId(u32::MAX);

/// The name of the column. Not a name that a query could mean by accident: it has a NUL, which
/// no column's name may have.
pub const ROW_ID_NAME: &str = "\0row_id";

const POSITION_BITS: u32 = 32;

/// The column of row ids.
pub fn row_id_field() -> Field {
    Field::new(ROW_ID_NAME, DataType::UInt64, false)
}

/// The id of the row at `position` of the segment at place `ordinal`.
pub fn row_id(ordinal: u32, position: u32) -> u64 {
    u64::from(ordinal) << POSITION_BITS | u64::from(position)
}

/// The segment's place and the row's position.
#[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits")]
pub fn split_row_id(id: u64) -> (u32, u32) {
    ((id >> POSITION_BITS) as u32, id as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_apart_as_they_were_put_together() {
        for (ordinal, position) in [(0, 0), (7, u32::MAX), (u32::MAX, 1)] {
            assert_eq!(split_row_id(row_id(ordinal, position)), (ordinal, position));
        }
        assert_eq!(row_id(1, 0) - row_id(0, u32::MAX), 1);
    }
}
