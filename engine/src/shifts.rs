//! `lag` and `lead` where DataFusion's are wrong.
//!
//! - `lead(x, 2) IGNORE NULLS` row by row loses count of the NULLs ahead: it is computed over a whole
//!   partition at a time, where it does not (`sql-tests/upstream/lead-past-nulls.md`)
//! - `lag(x, NULL)` is NULL, as in PostgreSQL and DuckDB; there it is `lag(x, 1)`

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::PartitionEvaluator;
use datafusion::logical_expr::function::PartitionEvaluatorArgs;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

/// The functions that this is about.
pub(crate) const SHIFTS: [&str; 2] = ["lag", "lead"];

/// The evaluator of NULLs, if the distance is NULL.
pub(crate) fn by_null(
    arguments: &PartitionEvaluatorArgs<'_>,
) -> Option<Box<dyn PartitionEvaluator>> {
    let distance = arguments.input_exprs().get(1)?;
    if !is_null(distance) {
        return None;
    }
    let fields = arguments.input_fields();
    let types = [fields.first(), fields.get(2)].into_iter().flatten();
    let data_type = types.map(|field| field.data_type()).find(|t| !t.is_null());
    Some(Box::new(Nulls { data_type: data_type.cloned().unwrap_or(DataType::Null) }))
}

fn is_null(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>().is_some_and(|literal| literal.value().is_null())
}

/// An evaluator that sees whole partitions only.
pub(crate) fn of_whole_partitions(
    inner: Box<dyn PartitionEvaluator>,
) -> Box<dyn PartitionEvaluator> {
    Box::new(WholePartitions { inner })
}

#[derive(Debug)]
struct Nulls {
    data_type: DataType,
}

impl PartitionEvaluator for Nulls {
    fn evaluate_all(&mut self, _: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        Ok(new_null_array(&self.data_type, rows))
    }

    fn evaluate(&mut self, _: &[ArrayRef], _: &Range<usize>) -> Result<ScalarValue> {
        ScalarValue::try_from(&self.data_type)
    }
}

#[derive(Debug)]
struct WholePartitions {
    inner: Box<dyn PartitionEvaluator>,
}

impl PartitionEvaluator for WholePartitions {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.inner.evaluate_all(values, rows)
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}
