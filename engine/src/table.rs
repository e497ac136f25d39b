//! A stored table as DataFusion sees it, over one pinned snapshot.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::scan::{ScanSegment, ScanTable, SegmentScanExec, table_statistics};
use crate::snapshot::{ClusterView, TableSnapshot};
use crate::types::scan_type;

/// A table of the snapshot that a statement has pinned.
#[derive(Debug)]
pub struct SegmentTable {
    table: Arc<TableSnapshot>,
    cluster: Arc<ClusterView>,
    schema: SchemaRef,
}

impl SegmentTable {
    /// A table at one commit, served by the workers of `cluster`.
    pub fn new(table: Arc<TableSnapshot>, cluster: Arc<ClusterView>) -> Self {
        let fields =
            table.schema.columns.iter().map(|column| {
                Field::new(&column.name, scan_type(&column.data_type), column.nullable)
            });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { table, cluster, schema }
    }

    /// The table at its commit.
    pub fn snapshot(&self) -> &Arc<TableSnapshot> {
        &self.table
    }
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let table = ScanTable::new(&self.table, &self.cluster, &columns);
        let statistics = table_statistics(&table, &self.table.segments);
        let segments: Vec<_> = self
            .table
            .segments
            .iter()
            .map(|record| ScanSegment::new(record, &table.columns))
            .collect();
        let partitions = state.config().target_partitions();
        let scan = SegmentScanExec::new(Arc::new(table), segments, partitions, statistics);
        let scan: Arc<dyn ExecutionPlan> = Arc::new(scan);
        Ok(match limit {
            Some(_) => scan.with_fetch(limit).unwrap_or(scan),
            None => scan,
        })
    }

    fn statistics(&self) -> Option<Statistics> {
        None
    }
}
