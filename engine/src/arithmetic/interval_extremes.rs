//! The least or the greatest interval by length.
//!
//! DataFusion's `min` and `max` compare months, then days, then nanoseconds (see `crate::intervals`). Of
//! intervals that are equally long these give the least or the greatest in that order, so that the
//! order of rows does not matter.

use std::mem::size_of_val;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::extremes::Extreme;
use super::sliding::{MakeAccumulator, Sliding};
use crate::intervals::{nanoseconds, to_months_days_nanos};

/// Whether values of a type are for this module.
pub(super) fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

/// An accumulator of intervals of any unit.
pub(super) fn interval_extreme(
    extreme: Extreme,
    data_type: &DataType,
) -> Result<Box<dyn Accumulator>> {
    let value = ScalarValue::try_from(data_type)?;
    Ok(Box::new(IntervalExtreme { extreme, nearest: None, value }))
}

/// The same for frames that move.
pub(super) fn sliding_interval_extreme(
    extreme: Extreme,
    data_type: &DataType,
) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(Sliding::new(OfType { extreme, data_type: data_type.clone() })?))
}

#[derive(Debug)]
struct OfType {
    extreme: Extreme,
    data_type: DataType,
}

impl MakeAccumulator for OfType {
    fn make(&self) -> Result<Box<dyn Accumulator>> {
        interval_extreme(self.extreme, &self.data_type)
    }
}

/// A length, and among equal ones the order of the parts.
type Length = (i128, IntervalMonthDayNano);

#[derive(Debug)]
struct IntervalExtreme {
    extreme: Extreme,
    nearest: Option<Length>,
    /// The nearest as it was given.
    value: ScalarValue,
}

impl IntervalExtreme {
    fn is_nearer(&self, length: Length, than: Option<Length>) -> bool {
        than.is_none_or(|other| match self.extreme {
            Extreme::Min => length < other,
            Extreme::Max => length > other,
        })
    }
}

impl Accumulator for IntervalExtreme {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else { return exec_err!("min or max of {} arguments", values.len()) };
        let intervals = to_months_days_nanos(values)?;
        let mut row_of_nearest = None;
        for (row, interval) in intervals.iter().enumerate() {
            let Some(interval) = interval else { continue };
            let length = (nanoseconds(interval), interval);
            if self.is_nearer(length, self.nearest) {
                self.nearest = Some(length);
                row_of_nearest = Some(row);
            }
        }
        if let Some(row) = row_of_nearest {
            self.value = ScalarValue::try_from_array(values, row)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
