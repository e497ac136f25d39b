//! An aggregate over a frame that moves, without taking anything back.
//!
//! DataFusion subtracts the rows that leave a frame. Of floats that is wrong: a NaN or an infinity
//! never leaves, and beside `1e20` a `1` is lost for good (`sql-tests/upstream/sliding-floats.md`).
//! Here the rows of a frame are a queue of two stacks (Hirzel, Schneider, Tangwongsan, *Sliding-Window
//! Aggregation Algorithms*, DEBS 2017, section 3.2, "two-stacks"):
//!
//! ```text
//!        front                    back
//!   state of rows 3..5        rows 6, 7, 8
//!   state of rows 4..5        one accumulator of them
//!   state of row  5
//!   ▲ rows leave here                      ▲ rows come here
//! ```
//!
//! When the front is empty and a row leaves, the rows of the back become the front, from the last to
//! the first. So a row costs a constant number of steps, and memory is a state for each row of a frame.

use std::collections::VecDeque;
use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

/// Makes accumulators of one kind.
pub(super) trait MakeAccumulator: Send + Sync + std::fmt::Debug + 'static {
    /// An accumulator of no rows.
    fn make(&self) -> Result<Box<dyn Accumulator>>;
}

/// The state of an accumulator.
type State = Vec<ScalarValue>;

/// An accumulator that rows can leave, in the order in which they came.
#[derive(Debug)]
pub(super) struct Sliding<M> {
    kind: M,
    /// The state of each suffix of the front's rows, that of all at the end.
    front: Vec<State>,
    /// The arguments of the rows of the back, in parts as they came.
    rows: VecDeque<Vec<ArrayRef>>,
    /// All rows of the back.
    back: Box<dyn Accumulator>,
}

impl<M: MakeAccumulator> Sliding<M> {
    pub(super) fn new(kind: M) -> Result<Self> {
        let back = kind.make()?;
        Ok(Self { kind, front: Vec::new(), rows: VecDeque::new(), back })
    }

    /// Makes the back the front.
    fn turn(&mut self) -> Result<()> {
        let mut suffix = self.kind.make()?;
        while let Some(part) = self.rows.pop_back() {
            for row in (0..rows_of(&part)).rev() {
                let row: Vec<_> = part.iter().map(|values| values.slice(row, 1)).collect();
                suffix.update_batch(&row)?;
                self.front.push(suffix.state()?);
            }
        }
        self.back = self.kind.make()?;
        Ok(())
    }
}

fn rows_of(part: &[ArrayRef]) -> usize {
    part.first().map_or(0, |values| values.len())
}

impl<M: MakeAccumulator> Accumulator for Sliding<M> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.back.update_batch(values)?;
        // Copied: a slice would hold on to the batch that it is of.
        let all = UInt32Array::from_iter_values((0..).take(rows_of(values)));
        let copied = values.iter().map(|values| Ok(take(values, &all, None)?));
        self.rows.push_back(copied.collect::<Result<_>>()?);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..rows_of(values) {
            if self.front.is_empty() {
                self.turn()?;
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
        let Some(front) = self.front.last() else { return self.back.evaluate() };
        let mut whole = self.kind.make()?;
        merge(&mut *whole, front)?;
        if !self.rows.is_empty() {
            merge(&mut *whole, &self.back.state()?)?;
        }
        whole.evaluate()
    }

    fn state(&mut self) -> Result<State> {
        internal_err!("a frame's aggregate is not a part of another")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("a frame's aggregate has no parts")
    }

    fn size(&self) -> usize {
        // States of one aggregate are of one size.
        let state = |state: &State| state.iter().map(ScalarValue::size).sum::<usize>();
        let states = self.front.last().map_or(0, state) * self.front.len();
        let rows =
            self.rows.iter().flatten().map(|values| values.get_array_memory_size()).sum::<usize>();
        size_of_val(self) + states + rows + self.back.size()
    }
}

fn merge(whole: &mut dyn Accumulator, state: &[ScalarValue]) -> Result<()> {
    let state = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
    whole.merge_batch(&state)
}
