//! The target of an append as DataFusion sees it: a table that can only be inserted into.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, TableType, WriteOp};
use datafusion::physical_plan::ExecutionPlan;

use super::{AppendTarget, SliceAppendExec};

/// A table that takes the rows of one transaction.
#[derive(Debug)]
pub struct AppendTable {
    target: Arc<AppendTarget>,
    schema: SchemaRef,
}

impl AppendTable {
    /// A plan that appends the rows of `input`, whose columns are the target's in order.
    pub fn append_plan(input: LogicalPlan, target: Arc<AppendTarget>) -> LogicalPlan {
        let name = TableReference::bare(target.table_name.clone());
        let schema = target.schema.to_arrow();
        let table = provider_as_source(Arc::new(Self { target, schema }));
        LogicalPlan::Dml(DmlStatement::new(
            name,
            table,
            WriteOp::Insert(InsertOp::Append),
            Arc::new(input),
        ))
    }
}

#[async_trait]
impl TableProvider for AppendTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan_err!("the target of an append cannot be read")
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        _: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(SliceAppendExec::new(input, Arc::clone(&self.target))))
    }
}
