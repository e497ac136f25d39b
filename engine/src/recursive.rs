//! Recursive queries on the wire: DataFusion has no encoding for their two nodes.
//!
//! ```text
//! RecursiveQueryExec  name, schema, whether rows are distinct; inputs: static term, recursive term
//!   WorkTableExec     name, columns; the rows of the last round, found by name below the query
//! ```
//! A round reads its inputs again, and an exchange can be read once: so the checker keeps the
//! recursive term in one task (`distribute`).

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use basalt_storage::schema::{schema_from_bytes, schema_to_bytes};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;

use crate::protocol::{MalformedMessage, RecursiveQuery, WorkTable};

fn malformed(message: &'static str, field: &'static str) -> DataFusionError {
    MalformedMessage::new(message, field).into()
}

impl From<&RecursiveQueryExec> for RecursiveQuery {
    fn from(query: &RecursiveQueryExec) -> Self {
        Self {
            name: query.name().to_owned(),
            schema: schema_to_bytes(&ExecutionPlan::schema(query)),
            is_distinct: query.is_distinct(),
        }
    }
}

impl RecursiveQuery {
    /// The node over its decoded terms.
    pub(crate) fn into_plan(
        self,
        static_term: Arc<dyn ExecutionPlan>,
        recursive_term: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = decode_schema(&self.schema, "RecursiveQuery")?;
        let recursive_term = projected_work_table(&self.name, &schema, recursive_term)?;
        let query = RecursiveQueryExec::try_new(
            self.name,
            schema,
            static_term,
            recursive_term,
            self.is_distinct,
        )?;
        Ok(Arc::new(query))
    }
}

impl From<&WorkTableExec> for WorkTable {
    fn from(table: &WorkTableExec) -> Self {
        Self { name: table.name().to_owned(), schema: schema_to_bytes(&table.schema()) }
    }
}

impl WorkTable {
    /// The node, without its projection: only the query around it knows all columns.
    pub(crate) fn into_plan(self) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = decode_schema(&self.schema, "WorkTable")?;
        Ok(Arc::new(WorkTableExec::new(self.name, schema, None)?))
    }
}

fn decode_schema(bytes: &[u8], message: &'static str) -> Result<SchemaRef> {
    let schema: Schema = schema_from_bytes(bytes).map_err(|_| malformed(message, "schema"))?;
    Ok(Arc::new(schema))
}

/// The term with its work table reading the columns it needs, by name, of all that there are.
fn projected_work_table(
    name: &str,
    all: &SchemaRef,
    term: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    term.transform_up(|node| {
        let Some(table) = node.downcast_ref::<WorkTableExec>().filter(|t| t.name() == name) else {
            return Ok(Transformed::no(node));
        };
        let columns = table
            .schema()
            .fields()
            .iter()
            .map(|field| all.index_of(field.name()).map_err(|_| malformed("WorkTable", "schema")))
            .collect::<Result<Vec<_>>>()?;
        let table = WorkTableExec::new(name.to_owned(), Arc::clone(all), Some(columns))?;
        Ok(Transformed::yes(Arc::new(table)))
    })
    .data()
}
