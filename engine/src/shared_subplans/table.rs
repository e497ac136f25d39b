//! The rows of a part as DataFusion sees them: a table, empty-handed until the part was run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Statistics, internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;

use super::SENT_BYTES_MAX;
use super::exec::{SharedRows, SharedRowsExec};
use crate::batch_bytes::batch_bytes;

/// Rows that are put together before they are sent: a message has some hundred bytes of its own.
const BATCH_ROWS: usize = 8_192;

/// The rows of a subplan that is computed once.
#[derive(Debug)]
pub struct SharedTable {
    name: String,
    schema: SchemaRef,
    /// The columns that rows are kept of.
    columns: OnceLock<Vec<usize>>,
    rows: OnceLock<Vec<RecordBatch>>,
    /// The rows that places were sent, by their filters: a plan that is made again is sent the same.
    kept: Mutex<Kept>,
}

/// Rows by the filters that keep them, [`SENT_BYTES_MAX`] at most.
#[derive(Debug, Default)]
struct Kept {
    by_filter: HashMap<Expr, Vec<RecordBatch>>,
    bytes: usize,
}

impl SharedTable {
    pub(super) fn new(name: &str, schema: SchemaRef) -> Self {
        Self {
            name: name.to_owned(),
            schema,
            columns: OnceLock::new(),
            rows: OnceLock::new(),
            kept: Mutex::default(),
        }
    }

    /// What plans call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn full_schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn set_columns(&self, columns: Vec<usize>) {
        // Each found part is narrowed once.
        let _set_before = self.columns.set(columns);
    }

    /// Whether rows of a schema can be those of its columns.
    pub(super) fn takes(&self, rows: &Schema) -> bool {
        let Some(columns) = self.columns.get() else { return false };
        let types = columns.iter().map(|column| self.schema.field(*column).data_type());
        types.eq(rows.fields().iter().map(|field| field.data_type()))
    }

    /// Gives the table the rows of its part.
    ///
    /// # Errors
    /// Rows that are of other types than they were planned to be, or that are given a second time.
    pub fn fill(&self, batches: Vec<RecordBatch>) -> Result<()> {
        let Some(columns) = self.columns.get() else {
            return internal_err!("{} was not planned", self.name);
        };
        let schema = Arc::new(self.schema.project(columns)?);
        let typed = |batch: RecordBatch| {
            // Views would hold the rows around them, and be sent with these.
            let columns = batch.columns().iter().map(compacted).collect();
            RecordBatch::try_new(Arc::clone(&schema), columns)
        };
        let (mut whole, mut waiting, mut rows) = (Vec::new(), Vec::new(), 0);
        for batch in batches {
            rows += batch.num_rows();
            waiting.push(typed(batch)?);
            if rows >= BATCH_ROWS {
                whole.push(concat_batches(&schema, &waiting)?);
                (waiting, rows) = (Vec::new(), 0);
            }
        }
        if rows > 0 {
            whole.push(concat_batches(&schema, &waiting)?);
        }
        let batches = whole;
        self.rows.set(batches).map_err(|_| internal_datafusion_err!("{} has rows", self.name))
    }

    /// The rows of some columns, if there are any yet, without those that a filter surely leaves out.
    fn read(
        &self,
        projection: &[usize],
        filter: Option<Expr>,
        state: &dyn Session,
    ) -> Result<Option<Vec<RecordBatch>>> {
        let (Some(batches), Some(columns)) = (self.rows.get(), self.columns.get()) else {
            return Ok(None);
        };
        let place = |column: &usize| {
            let kept = columns.binary_search(column);
            kept.map_err(|_| internal_datafusion_err!("{} has not column {column}", self.name))
        };
        let places = projection.iter().map(place).collect::<Result<Vec<_>>>()?;
        let kept = filter.and_then(|filter| self.kept(filter, batches, columns, state));
        let batches = kept.as_ref().unwrap_or(batches).iter();
        Ok(Some(batches.map(|batch| batch.project(&places)).collect::<Result<_, _>>()?))
    }

    /// The rows that a filter keeps; `None` where it cannot be evaluated, or so much was kept already that all rows are
    /// as well read where they are.
    fn kept(
        &self,
        filter: Expr,
        batches: &[RecordBatch],
        columns: &[usize],
        state: &dyn Session,
    ) -> Option<Vec<RecordBatch>> {
        let mut known = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = known.by_filter.get(&filter) {
            return Some(kept.clone());
        }
        let condition = self.kept_columns_filter(filter.clone(), columns, state)?;
        let (mut kept, mut bytes) = (Vec::new(), known.bytes);
        for batch in batches {
            let batch = kept_of(batch, &condition)?;
            bytes = bytes.saturating_add(batch_bytes(&batch));
            if bytes > SENT_BYTES_MAX {
                return None;
            }
            if batch.num_rows() > 0 {
                kept.push(batch);
            }
        }
        known.bytes = bytes;
        known.by_filter.insert(filter, kept.clone());
        Some(kept)
    }

    /// A filter over the columns that are kept; `None` where it cannot be made, as it stands above the scan as well.
    fn kept_columns_filter(
        &self,
        filter: Expr,
        columns: &[usize],
        state: &dyn Session,
    ) -> Option<Arc<dyn PhysicalExpr>> {
        let schema = self.schema.project(columns).ok()?;
        let schema = DFSchema::try_from_qualified_schema(self.name.as_str(), &schema).ok()?;
        state.create_physical_expr(filter, &schema).ok()
    }
}

/// The rows that a filter keeps. One that fails on some of them keeps all: whether it is evaluated is for the plan to say.
fn kept_of(batch: &RecordBatch, filter: &Arc<dyn PhysicalExpr>) -> Option<RecordBatch> {
    let found = filter.evaluate(batch).ok()?.into_array(batch.num_rows()).ok()?;
    let kept = filter_record_batch(batch, found.as_boolean_opt()?).ok()?;
    let columns = kept.columns().iter().map(compacted).collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
    RecordBatch::try_new_with_options(kept.schema(), columns, &rows).ok()
}

/// An array whose views point to what is its own.
fn compacted(array: &ArrayRef) -> ArrayRef {
    if let Some(texts) = array.as_string_view_opt() {
        Arc::new(texts.gc())
    } else if let Some(bytes) = array.as_binary_view_opt() {
        Arc::new(bytes.gc())
    } else {
        Arc::clone(array)
    }
}

#[async_trait]
impl TableProvider for SharedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    /// Filters stay above the scan, and are told to it, so that the part and each place may leave rows out.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let rows = self.rows.get()?.iter().map(RecordBatch::num_rows).sum();
        statistics.num_rows = Precision::Exact(rows);
        Some(statistics)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.schema.fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.schema.project(&projection)?);
        // Each place is sent its own rows.
        let read = self.read(&projection, conjunction(filters.iter().cloned()), state)?;
        let rows = read.map(|batches| SharedRows::new(schema.clone(), batches));
        let partitions = state.config().target_partitions();
        Ok(Arc::new(match rows {
            Some(rows) => SharedRowsExec::new(&self.name, Arc::new(rows), partitions),
            None => SharedRowsExec::unknown(&self.name, schema),
        }))
    }
}
