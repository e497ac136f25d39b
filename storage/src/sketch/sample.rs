//! Some rows of a column, drawn evenly: the `k` whose priorities are least (a bottom-k sample,
//! Cohen and Kaplan 2007), and the equi-depth histogram that they make.
//!
//! A row's priority is the hash of its value's hash and its id. It depends on nothing else, so a
//! sample of parts is the sample of the whole, and a row that comes twice is there once.
//!
//! Values are kept as zone maps keep bounds: text is cut after
//! [`ZONE_BYTES_MAX`](crate::zone_map::ZONE_BYTES_MAX) bytes. NULL and NaN are not sampled.
//!
//! ```text
//!  0  version, 1                                        1
//!  1  rows, by priority: priority (u64 LE), kind (u8), value
//!       kind 0: bool (u8)   1: i64   2: u64   3: f64 bits   4: i128, all LE
//!       kind 5: whole text or binary, 6: the beginning of one: length (u8), bytes
//! ```

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, UInt64Array};
use arrow::compute::take;
use xxhash_rust::xxh3::xxh3_64;

use super::{InvalidSketch, base64_serde};
use crate::error::Result;
use crate::slice_hash::hashes_of;
use crate::types::{storage_type, to_storage};
use crate::zone_map::{ZONE_BYTES_MAX, ZoneMap, ZoneValue};

/// Rows of a sample. The share of rows below any value is then known within 1.6 % (one standard
/// deviation at most), in 17 KiB of numbers.
pub const SAMPLE_ROWS: usize = 1024;

const VERSION: u8 = 1;

/// A sample of a column's rows. Cheap to clone.
#[derive(Clone, PartialEq, Default)]
pub struct RowSample(Arc<BTreeMap<u64, ZoneValue>>);

base64_serde!(RowSample);

impl fmt::Debug for RowSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowSample({} rows)", self.0.len())
    }
}

impl RowSample {
    /// Considers the rows of an array, each with its id: any number that stays the row's own.
    ///
    /// # Errors
    /// [`crate::StorageError::UnsupportedType`] for types that have no hash or no order.
    pub fn add(&mut self, values: &ArrayRef, ids: &UInt64Array) -> Result<()> {
        let nulls = values.logical_nulls();
        let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        // Rows beyond the last of a full sample have no chance.
        let last = self.last_of_full().unwrap_or(u64::MAX);
        let (mut rows, mut priorities) = (Vec::new(), Vec::new());
        let hashes = hashes_of(values)?.into_iter().zip(ids.values());
        for ((row, index), (hash, id)) in (0_usize..).zip(0_u32..).zip(hashes) {
            let priority = priority(hash, *id);
            if priority <= last && !is_null(row) {
                rows.push(index);
                priorities.push(priority);
            }
        }
        let drawn = take(values, &UInt32Array::from(rows), None)?;
        let drawn = to_storage(&drawn, &storage_type(drawn.data_type())?)?;
        for (place, priority) in priorities.into_iter().enumerate() {
            if self.last_of_full().is_some_and(|last| priority > last) {
                continue;
            }
            // The lower bound of one value is the value, or the beginning of a long text.
            if let Some(value) = ZoneMap::of(&drawn.slice(place, 1)).min {
                self.put(priority, value);
            }
        }
        Ok(())
    }

    /// Adds what another sample has.
    pub fn union(&mut self, other: &Self) {
        for (priority, value) in other.0.iter() {
            self.put(*priority, value.clone());
        }
    }

    /// The values of its rows, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &ZoneValue> {
        self.0.values()
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.0.len()
    }

    /// How many of its rows have the value that most have.
    pub fn most_common(&self) -> usize {
        let mut values: Vec<_> = self.0.values().collect();
        values.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
        let runs = values.chunk_by(|a, b| a.compare(b) == Some(Ordering::Equal));
        runs.map(<[_]>::len).max().unwrap_or(0)
    }

    /// Bounds of `buckets` ranges that hold equally many rows each, the least value first and the
    /// largest last; fewer when there are fewer rows, none when there are none.
    pub fn histogram(&self, buckets: usize) -> Vec<&ZoneValue> {
        let mut values: Vec<_> = self.0.values().collect();
        values.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
        let Some(last) = values.len().checked_sub(1) else { return values };
        let buckets = buckets.clamp(1, last.max(1));
        (0..=buckets).filter_map(|n| values.get(n * last / buckets).copied()).collect()
    }

    /// Bytes that it takes in memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.0.len() * (size_of::<(u64, ZoneValue)>() + ZONE_BYTES_MAX)
    }

    fn last_of_full(&self) -> Option<u64> {
        let full = self.0.len() >= SAMPLE_ROWS;
        self.0.last_key_value().filter(|_| full).map(|(priority, _)| *priority)
    }

    fn put(&mut self, priority: u64, value: ZoneValue) {
        let rows = Arc::make_mut(&mut self.0);
        // Two rows of one priority: the same one either way.
        let kept = rows.entry(priority).or_insert_with(|| value.clone());
        if value.compare(kept) == Some(Ordering::Less) {
            *kept = value;
        }
        if rows.len() > SAMPLE_ROWS {
            rows.pop_last();
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for (priority, value) in self.0.iter() {
            bytes.extend_from_slice(&priority.to_le_bytes());
            write_value(&mut bytes, value);
        }
        bytes
    }

    /// Reads the bytes of a sample.
    ///
    /// # Errors
    /// When they are none: of another version, cut off, out of order, or of values of several kinds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSketch> {
        let rows = match bytes {
            [VERSION, rows @ ..] => read_rows(rows),
            [version, ..] => Err(format!("its version is {version}")),
            [] => Err("it is too short".to_owned()),
        };
        rows.map(|rows| Self(Arc::new(rows)))
            .map_err(|problem| InvalidSketch { kind: "sample of rows", problem })
    }
}

fn priority(hash: u64, id: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hash.to_le_bytes());
    bytes[8..].copy_from_slice(&id.to_le_bytes());
    xxh3_64(&bytes)
}

fn write_value(bytes: &mut Vec<u8>, value: &ZoneValue) {
    match value {
        ZoneValue::Bool(value) => bytes.extend([0, u8::from(*value)]),
        ZoneValue::Int(value) => put(bytes, 1, &value.to_le_bytes()),
        ZoneValue::UInt(value) => put(bytes, 2, &value.to_le_bytes()),
        ZoneValue::Float(value) => put(bytes, 3, &value.to_bits().to_le_bytes()),
        ZoneValue::Decimal(value) => put(bytes, 4, &value.to_le_bytes()),
        ZoneValue::Bytes { value, exact } => {
            let value = value.get(..ZONE_BYTES_MAX).unwrap_or(value);
            bytes.push(if *exact { 5 } else { 6 });
            bytes.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(value);
        }
    }
}

fn put(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    bytes.extend_from_slice(value);
}

fn read_rows(mut bytes: &[u8]) -> Result<BTreeMap<u64, ZoneValue>, String> {
    let mut rows: BTreeMap<u64, ZoneValue> = BTreeMap::new();
    while !bytes.is_empty() {
        let row = rows.len();
        let (priority, value) = read_row(&mut bytes).ok_or(format!("row {row} makes no sense"))?;
        if rows.last_key_value().is_some_and(|(last, _)| *last >= priority) {
            return Err(format!("row {row} is out of order"));
        }
        if rows.first_key_value().is_some_and(|(_, first)| first.compare(&value).is_none()) {
            return Err(format!("row {row} is of another kind"));
        }
        rows.insert(priority, value);
        if rows.len() > SAMPLE_ROWS {
            return Err(format!("it has more than {SAMPLE_ROWS} rows"));
        }
    }
    Ok(rows)
}

fn read_row(bytes: &mut &[u8]) -> Option<(u64, ZoneValue)> {
    let priority = u64::from_le_bytes(read(bytes)?);
    let [kind] = read(bytes)?;
    let value = match kind {
        0 => match read(bytes)? {
            [0] => ZoneValue::Bool(false),
            [1] => ZoneValue::Bool(true),
            _ => return None,
        },
        1 => ZoneValue::Int(i64::from_le_bytes(read(bytes)?)),
        2 => ZoneValue::UInt(u64::from_le_bytes(read(bytes)?)),
        3 => ZoneValue::Float(f64::from_bits(u64::from_le_bytes(read(bytes)?))),
        4 => ZoneValue::Decimal(i128::from_le_bytes(read(bytes)?)),
        5 | 6 => {
            let [length] = read(bytes)?;
            let length = usize::from(length);
            let value = bytes.get(..length).filter(|_| length <= ZONE_BYTES_MAX)?.to_vec();
            *bytes = bytes.get(length..)?;
            ZoneValue::Bytes { value, exact: kind == 5 }
        }
        _ => return None,
    };
    Some((priority, value))
}

fn read<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (value, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*value)
}

#[cfg(test)]
mod tests;
