//! `sum` and `avg` of doubles over a frame that moves: `sliding` for the two that are used most, with 16
//! bytes for a row.

use std::mem::size_of;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Float64Type;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

/// What is made of a sum and a count.
#[derive(Debug, Clone, Copy)]
pub(super) enum Total {
    Sum,
    Average,
}

/// Some rows of a frame.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    sum: f64,
    count: u64,
}

impl Part {
    fn of(value: Option<f64>) -> Self {
        value.map_or_else(Self::default, |sum| Self { sum, count: 1 })
    }

    fn and(self, later: Self) -> Self {
        match (self.count, later.count) {
            (_, 0) => self,
            (0, _) => later,
            _ => Self { sum: self.sum + later.sum, count: self.count + later.count },
        }
    }
}

/// The rows of a frame as two stacks.
#[derive(Debug)]
pub(super) struct SlidingSum {
    total: Total,
    /// Each suffix of the front's rows, all of them at the end.
    front: Vec<Part>,
    /// The rows of the back.
    rows: Vec<Option<f64>>,
    /// All of them.
    back: Part,
}

impl SlidingSum {
    pub(super) fn new(total: Total) -> Self {
        Self { total, front: Vec::new(), rows: Vec::new(), back: Part::default() }
    }
}

impl Accumulator for SlidingSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else { return internal_err!("a sum of {} arguments", values.len()) };
        for value in values.as_primitive::<Float64Type>() {
            self.back = self.back.and(Part::of(value));
            self.rows.push(value);
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..values.first().map_or(0, |values| values.len()) {
            if self.front.is_empty() {
                let mut suffix = Part::default();
                for value in self.rows.drain(..).rev() {
                    suffix = Part::of(value).and(suffix);
                    self.front.push(suffix);
                }
                self.back = Part::default();
            }
            if self.front.pop().is_none() {
                return internal_err!("a row leaves a frame that has none");
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let whole = self.front.last().copied().unwrap_or_default().and(self.back);
        let value = (whole.count > 0).then(|| match self.total {
            Total::Sum => whole.sum,
            Total::Average => whole.sum / whole.count as f64,
        });
        Ok(ScalarValue::Float64(value))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a frame's sum is not a part of another")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("a frame's sum has no parts")
    }

    fn size(&self) -> usize {
        size_of::<Self>()
            + self.front.capacity() * size_of::<Part>()
            + self.rows.capacity() * size_of::<Option<f64>>()
    }
}
