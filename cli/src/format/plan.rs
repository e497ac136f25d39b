//! The answer to EXPLAIN for people: plans as they stand, line by line, never cut to the screen.
//!
//! ```text
//! -- physical_plan
//! ┌───── DistributedExec
//! │ ProjectionExec: expr=[count(Int64(1))@0 as count(*)]
//! ```

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::escape::escaped;
use super::value::ColumnText;

/// The columns of EXPLAIN, as DataFusion names them.
const COLUMNS: [&str; 2] = ["plan_type", "plan"];

/// Writes plans.
pub struct PlanWriter;

impl PlanWriter {
    /// Whether a result with this schema is the answer to EXPLAIN.
    pub(super) fn fits(schema: &SchemaRef) -> bool {
        schema.fields().iter().map(|field| field.name().as_str()).eq(COLUMNS)
    }

    pub(super) fn write(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let [kinds, plans] = batch.columns() else { return Ok(()) };
        let (kinds, plans) = (ColumnText::new(kinds)?, ColumnText::new(plans)?);
        for row in 0..batch.num_rows() {
            let kind = kinds.value(row)?.unwrap_or_default();
            let plan = plans.value(row)?.unwrap_or_default();
            out.extend_from_slice(format!("-- {}\n", escaped(&kind)).as_bytes());
            for line in plan.trim_end().lines() {
                out.extend_from_slice(escaped(line).as_bytes());
                out.push(b'\n');
            }
        }
        Ok(())
    }
}
