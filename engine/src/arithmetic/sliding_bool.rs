//! `bool_and` and `bool_or` over frames that move: how many rows are true, and how many false.
//!
//! DataFusion's cannot take a row back, so that a frame that moves is an error there.

use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::bool_and_or::{bool_and_udaf, bool_or_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    Signature,
};

/// The two functions, in the place of DataFusion's.
pub(super) fn bool_aggregates() -> [Arc<AggregateUDF>; 2] {
    [(bool_and_udaf(), Junction::And), (bool_or_udaf(), Junction::Or)].map(|(inner, junction)| {
        Arc::new(AggregateUDF::new_from_impl(BoolAggregate { inner, junction }))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Junction {
    And,
    Or,
}

/// One of DataFusion's functions.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoolAggregate {
    inner: Arc<AggregateUDF>,
    junction: Junction,
}

impl AggregateUDFImpl for BoolAggregate {
    fn create_sliding_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counts { junction: self.junction, trues: 0, falses: 0 }))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(arguments)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_udf()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// The rows of a frame that are not NULL.
#[derive(Debug)]
struct Counts {
    junction: Junction,
    trues: usize,
    falses: usize,
}

fn only(values: &[ArrayRef]) -> Result<&BooleanArray> {
    match values {
        [values] => Ok(values.as_boolean()),
        other => exec_err!("bool_and or bool_or of {} arguments", other.len()),
    }
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = only(values)?;
        self.trues += values.true_count();
        self.falses += values.false_count();
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = only(values)?;
        self.trues -= values.true_count();
        self.falses -= values.false_count();
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let is_true = match self.junction {
            Junction::And => self.falses == 0,
            Junction::Or => self.trues > 0,
        };
        let is_empty = self.trues + self.falses == 0;
        Ok(ScalarValue::Boolean((!is_empty).then_some(is_true)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a frame's aggregate is not a part of another")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("a frame's aggregate has no parts")
    }
}
