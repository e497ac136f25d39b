//! Zone maps: bounds and NULL counts of a run of values (Moerkotte 1998; "zone map" as Redshift).
//!
//! Invariant: bounds are *semantics*. `min <= every non-NULL value <= max` always holds; when a
//! bound cannot be had (NaN present, nested type, all NULL) it is absent, never guessed.

mod bounds;
mod compute;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

pub use bounds::zone_array;

/// Text and binary bounds longer than this are shortened: enough to tell URLs apart, and 128
/// bytes at most per row group and column.
pub const ZONE_BYTES_MAX: usize = 64;

/// A bound of a column's values, comparable within one column only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneValue {
    /// A boolean.
    Bool(bool),
    /// Signed integers, dates, times, timestamps: the physical number.
    Int(i64),
    /// Unsigned integers.
    UInt(u64),
    /// Floats, never NaN; written by its bits so that JSON keeps infinities and -0.0.
    Float(#[serde(with = "float_bits")] f64),
    /// Decimals up to 38 digits, unscaled, as text (JSON numbers end at 64 bits).
    Decimal(#[serde(with = "decimal_text")] i128),
    /// Text or binary, perhaps shortened: `exact` says whether it is a real value. A shortened
    /// upper bound was rounded up.
    Bytes {
        /// The bound; hexadecimal digits in JSON.
        #[serde(with = "hex_text")]
        value: Vec<u8>,
        /// Whether the bound is a value of the column.
        exact: bool,
    },
}

/// What is known about the values of one column over a run of rows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ZoneMap {
    /// How many values are NULL.
    pub null_count: u64,
    /// A lower bound of the non-NULL values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<ZoneValue>,
    /// An upper bound of the non-NULL values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<ZoneValue>,
}

impl ZoneValue {
    /// Compares two bounds of one column; `None` when they are of different kinds.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::UInt(a), Self::UInt(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => Some(a.total_cmp(b)),
            (Self::Decimal(a), Self::Decimal(b)) => Some(a.cmp(b)),
            (Self::Bytes { value: a, .. }, Self::Bytes { value: b, .. }) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl ZoneMap {
    /// What holds for several runs of rows together: each with its number of rows.
    ///
    /// A run without bounds leaves the whole without bounds, unless all its values are NULL.
    pub fn merge<'a>(runs: impl IntoIterator<Item = (u64, &'a ZoneMap)>) -> Self {
        let mut merged = Self::default();
        let (mut min_known, mut max_known) = (true, true);
        for (rows, zone) in runs {
            merged.null_count += zone.null_count;
            if zone.null_count >= rows {
                continue;
            }
            min_known &= widen(&mut merged.min, zone.min.as_ref(), Ordering::Less);
            max_known &= widen(&mut merged.max, zone.max.as_ref(), Ordering::Greater);
        }
        merged.min = merged.min.filter(|_| min_known);
        merged.max = merged.max.filter(|_| max_known);
        merged
    }
}

/// Takes `value` over as the bound when it lies on `side` of it; `false` when that is unknown.
fn widen(bound: &mut Option<ZoneValue>, value: Option<&ZoneValue>, side: Ordering) -> bool {
    let Some(value) = value else { return false };
    match bound.as_ref().map(|bound| value.compare(bound)) {
        None => *bound = Some(value.clone()),
        Some(Some(order)) if order == side => *bound = Some(value.clone()),
        Some(Some(_)) => {}
        Some(None) => return false,
    }
    true
}

mod float_bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        u64::deserialize(d).map(f64::from_bits)
    }
}

mod decimal_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &i128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i128, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

mod hex_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &[u8], s: S) -> Result<S::Ok, S::Error> {
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        s.serialize_str(&hex)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let hex = String::deserialize(d)?;
        (0..hex.len())
            .step_by(2)
            .map(|i| hex.get(i..i + 2).and_then(|b| u8::from_str_radix(b, 16).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("a bound is not hexadecimal"))
    }
}

#[cfg(test)]
mod tests;
