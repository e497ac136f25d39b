//! Which rows of a segment are deleted.
//!
//! A segment's chunks never change; a `DELETE` commits a set of row positions beside them. Its
//! bytes are a Roaring bitmap in the portable format (<https://github.com/RoaringBitmap/RoaringFormatSpec>),
//! written as base64 where the catalog stores JSON. It travels in plans, so a scan needs no
//! second read to know which rows live.
//!
//! Invariant: a vector is never empty, and [`DeleteVector::from_bytes`] refuses positions that the
//! segment does not have: "deleted" can never mean another row than the one that was committed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, MutableBuffer};
use arrow::util::bit_util;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use roaring::RoaringBitmap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The deleted rows of one segment, by position from 0. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct DeleteVector(Arc<RoaringBitmap>);

/// Bytes that are no delete vector of the segment.
#[derive(Debug, thiserror::Error)]
#[error("not a delete vector of a segment of {rows} rows: {problem}")]
pub struct InvalidDeleteVector {
    /// Rows in the segment.
    rows: u64,
    /// What does not fit.
    problem: String,
}

impl DeleteVector {
    /// The vector of some positions; `None` when there are none.
    pub fn from_positions(positions: impl IntoIterator<Item = u32>) -> Option<Self> {
        Self::from_bitmap(positions.into_iter().collect())
    }

    /// The rows of a segment of `rows` rows that are not in `deleted`; `None` when there are none.
    pub fn complement(deleted: Option<&Self>, rows: u64) -> Option<Self> {
        let mut bitmap = RoaringBitmap::new();
        bitmap.insert_range(0..u32::try_from(rows).unwrap_or(u32::MAX));
        if let Some(deleted) = deleted {
            bitmap -= deleted.0.as_ref();
        }
        Self::from_bitmap(bitmap)
    }

    fn from_bitmap(mut bitmap: RoaringBitmap) -> Option<Self> {
        bitmap.optimize();
        (!bitmap.is_empty()).then(|| Self(Arc::new(bitmap)))
    }

    /// Reads the bytes of a vector, for a segment of `rows` rows.
    ///
    /// # Errors
    /// When they are no Roaring bitmap, more than one, an empty one, or name rows that the segment
    /// does not have.
    pub fn from_bytes(bytes: &[u8], rows: u64) -> Result<Self, InvalidDeleteVector> {
        let vector = Self::parse(bytes).map_err(|problem| InvalidDeleteVector { rows, problem })?;
        vector.check(rows)?;
        Ok(vector)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let bitmap =
            RoaringBitmap::deserialize_from(&mut rest).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow it", rest.len()));
        }
        Self::from_bitmap(bitmap).ok_or_else(|| "it is empty".to_owned())
    }

    /// Whether every position is one of a segment of `rows` rows.
    ///
    /// # Errors
    /// When one is not.
    pub fn check(&self, rows: u64) -> Result<(), InvalidDeleteVector> {
        match self.0.max() {
            Some(last) if u64::from(last) >= rows => {
                Err(InvalidDeleteVector { rows, problem: format!("it names row {last}") })
            }
            _ => Ok(()),
        }
    }

    /// The bytes of the vector.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        // Writing into memory cannot fail.
        self.0.serialize_into(&mut bytes).ok();
        bytes
    }

    /// How many rows are deleted; at least one.
    pub fn rows(&self) -> u64 {
        self.0.len()
    }

    /// The rows deleted in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut bitmap = self.0.as_ref() | other.0.as_ref();
        bitmap.optimize();
        Self(Arc::new(bitmap))
    }

    /// How many rows both delete.
    pub fn rows_in_common(&self, other: &Self) -> u64 {
        self.0.intersection_len(&other.0)
    }

    /// How many of some rows are deleted.
    pub fn rows_within(&self, rows: Range<u32>) -> u64 {
        self.0.range_cardinality(rows)
    }

    /// Which of some rows live: one bit per row, set when it is not deleted.
    pub fn live(&self, rows: Range<u32>) -> BooleanBuffer {
        let length = (rows.end - rows.start) as usize;
        let mut bits = MutableBuffer::new_null(length);
        for byte in bits.as_slice_mut() {
            *byte = 0xff;
        }
        for position in self.0.range(rows.clone()) {
            bit_util::unset_bit(bits.as_slice_mut(), (position - rows.start) as usize);
        }
        BooleanBuffer::new(bits.into(), 0, length)
    }
}

impl Eq for DeleteVector {}

/// Collects positions, in any order.
#[derive(Debug, Default)]
pub struct DeleteVectorBuilder(RoaringBitmap);

impl DeleteVectorBuilder {
    /// Adds a position; `false` when it was there already.
    pub fn insert(&mut self, position: u32) -> bool {
        self.0.insert(position)
    }

    /// The vector of all positions; `None` when there are none.
    pub fn finish(self) -> Option<DeleteVector> {
        DeleteVector::from_bitmap(self.0)
    }
}

impl fmt::Debug for DeleteVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeleteVector({} rows)", self.rows())
    }
}

impl Serialize for DeleteVector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for DeleteVector {
    /// Checks the form only: who knows the segment calls [`DeleteVector::check`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
        Self::parse(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(positions: &[u32]) -> DeleteVector {
        DeleteVector::from_positions(positions.iter().copied()).unwrap()
    }

    proptest! {
        #[test]
        fn a_vector_survives_its_bytes_and_json(
            positions in prop::collection::btree_set(0u32..200_000, 1..300),
        ) {
            let vector = DeleteVector::from_positions(positions.iter().copied()).unwrap();
            prop_assert_eq!(vector.rows(), positions.len() as u64);
            let read = DeleteVector::from_bytes(&vector.to_bytes(), 200_000).unwrap();
            prop_assert_eq!(&read, &vector);
            let json = serde_json::to_string(&vector).unwrap();
            prop_assert_eq!(serde_json::from_str::<DeleteVector>(&json).unwrap(), vector);
        }

        #[test]
        fn the_live_rows_of_a_range_are_those_that_are_not_in_the_vector(
            positions in prop::collection::btree_set(0u32..1_000, 1..300),
            start in 0u32..1_000,
            length in 0u32..500,
        ) {
            let vector = DeleteVector::from_positions(positions.iter().copied()).unwrap();
            let live = vector.live(start..start + length);
            let expected: Vec<bool> =
                (start..start + length).map(|row| !positions.contains(&row)).collect();
            prop_assert_eq!(live.iter().collect::<Vec<_>>(), expected);
            let deleted = vector.rows_within(start..start + length);
            prop_assert_eq!(deleted, u64::from(length) - live.count_set_bits() as u64);
        }
    }

    #[test]
    fn rows_that_the_segment_does_not_have_are_refused() {
        let bytes = vector(&[3, 9]).to_bytes();
        assert!(DeleteVector::from_bytes(&bytes, 10).is_ok());
        let error = DeleteVector::from_bytes(&bytes, 9).unwrap_err();
        assert_eq!(error.to_string(), "not a delete vector of a segment of 9 rows: it names row 9");
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        assert!(DeleteVector::from_positions([]).is_none());
        let empty = {
            let mut bytes = Vec::new();
            RoaringBitmap::new().serialize_into(&mut bytes).unwrap();
            bytes
        };
        let mut two = vector(&[1]).to_bytes();
        two.push(0);
        let mut cut = vector(&[1, 2, 3]).to_bytes();
        cut.pop();
        for bytes in [&[][..], &empty, &two, &cut, &[0xff; 40]] {
            assert!(DeleteVector::from_bytes(bytes, 100).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_complement_is_every_other_row_of_the_segment() {
        assert_eq!(DeleteVector::complement(Some(&vector(&[0, 2])), 4), Some(vector(&[1, 3])));
        assert_eq!(DeleteVector::complement(None, 2), Some(vector(&[0, 1])));
        assert_eq!(DeleteVector::complement(Some(&vector(&[0, 1])), 2), None);
    }

    #[test]
    fn vectors_are_joined() {
        let both = vector(&[1, 2]).union(&vector(&[2, 7]));
        assert_eq!(both, vector(&[1, 2, 7]));
        assert_eq!(vector(&[1, 2]).rows_in_common(&vector(&[2, 7])), 1);
    }
}
