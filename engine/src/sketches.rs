//! Aggregates that sketch a column, for ANALYZE: `basalt_distinct_sketch(column)` and
//! `basalt_row_sample(column, row id)`.
//!
//! Their states and results are the bytes of a sketch, so that tasks send kilobytes whatever they
//! read. Workers know them by name; SQL does not.

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use basalt_storage::sketch::{DistinctSketch, InvalidSketch, RowSample};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use crate::error::{ErrorCode, SqlError, storage_error};

/// The sketch of a column's distinct values.
pub fn distinct_sketch() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| function("basalt_distinct_sketch", SketchOf::Distinct, 1));
    Arc::clone(&FUNCTION)
}

/// A sample of a column's rows, by the ids of rows that last.
pub fn row_sample() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| function("basalt_row_sample", SketchOf::Rows, 2));
    Arc::clone(&FUNCTION)
}

fn function(name: &'static str, of: SketchOf, arguments: usize) -> Arc<AggregateUDF> {
    let signature = Signature::any(arguments, Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(SketchAggregate { name, of, signature }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SketchOf {
    Distinct,
    Rows,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SketchAggregate {
    name: &'static str,
    of: SketchOf,
    signature: Signature,
}

impl AggregateUDFImpl for SketchAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(match self.of {
            SketchOf::Distinct => Box::new(DistinctValues::default()),
            SketchOf::Rows => Box::new(SampledRows::default()),
        })
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let name = format_state_name(arguments.name, "sketch");
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, true))])
    }
}

#[derive(Debug, Default)]
struct DistinctValues(DistinctSketch);

impl Accumulator for DistinctValues {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.add(&values[0]).map_err(storage_error)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in sketches(states)? {
            self.0.union(&DistinctSketch::from_bytes(bytes).map_err(malformed)?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(Some(self.0.to_bytes())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + DistinctSketch::MEMORY_BYTES
    }
}

#[derive(Debug, Default)]
struct SampledRows(RowSample);

impl Accumulator for SampledRows {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(ids) = values[1].as_primitive_opt::<UInt64Type>() else {
            return internal_err!("rows to sample have ids of another type");
        };
        self.0.add(&values[0], ids).map_err(storage_error)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in sketches(states)? {
            self.0.union(&RowSample::from_bytes(bytes).map_err(malformed)?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(Some(self.0.to_bytes())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.memory_bytes()
    }
}

fn sketches(states: &[ArrayRef]) -> Result<impl Iterator<Item = &[u8]>> {
    match states[0].as_binary_opt::<i32>() {
        Some(sketches) => Ok(sketches.iter().flatten()),
        None => internal_err!("sketches come as {}", states[0].data_type()),
    }
}

/// Bytes that came from another process are not to be trusted.
fn malformed(error: InvalidSketch) -> DataFusionError {
    SqlError::new(ErrorCode::Internal, format!("a worker sent a malformed sketch: {error}")).into()
}

#[cfg(test)]
mod tests;
