//! A scan's predicate over the rows of one row group.
//!
//! Only the columns that it names are decoded for it. A row passes when the predicate is true:
//! NULL does not pass.

use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{and, prep_null_mask_filter};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use basalt_storage::row_group::RowSelection;
use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;

use super::ahead::SharedPruner;
use super::column_rows::ColumnRows;
use super::pruning::ZonePruner;
use crate::session::FragmentOptions;

/// A predicate split from the columns it needs.
pub(super) struct Predicate {
    /// Over a batch of just `columns`.
    expr: Arc<dyn PhysicalExpr>,
    /// Indexes into the read columns, ascending.
    pub(super) columns: Vec<usize>,
    schema: SchemaRef,
    /// What passes over row groups, unless the session wants to see them all.
    pub(super) pruner: Option<SharedPruner>,
}

/// A batch of the predicate's columns and which of its rows pass.
pub(super) struct TestedBatch {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) mask: BooleanArray,
    pub(super) passed: usize,
}

impl Predicate {
    pub(super) fn new(
        predicate: &Arc<dyn PhysicalExpr>,
        read_schema: &SchemaRef,
        options: &FragmentOptions,
    ) -> Result<Self> {
        let mut columns: Vec<_> =
            collect_columns(predicate).iter().map(|column| column.index()).collect();
        columns.sort_unstable();
        columns.dedup();
        let schema: SchemaRef = Arc::new(read_schema.project(&columns)?);
        let expr = reassign_by_index(predicate, &columns, &schema)?;
        let pruner = options.pruning.then(|| {
            let pruner = ZonePruner::new(Arc::clone(predicate), Arc::clone(read_schema));
            Arc::new(Mutex::new(pruner))
        });
        Ok(Self { expr, columns, schema, pruner })
    }

    /// Runs the predicate over the rows of a row group that live: all, or those of `live`. A
    /// deleted row is not looked at, so that no value of it can fail a query.
    pub(super) fn test(
        &self,
        mut columns: Vec<(usize, ColumnRows)>,
        rows: usize,
        batch_rows: usize,
        live: Option<&BooleanBuffer>,
    ) -> Result<Vec<TestedBatch>> {
        let mut tested = Vec::with_capacity(rows.div_ceil(batch_rows.max(1)));
        let mut left = rows;
        while left > 0 {
            let expected = left.min(batch_rows);
            let arrays: Vec<ArrayRef> = columns
                .iter_mut()
                .map(|(_, column)| column.take(expected))
                .collect::<Result<_>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(expected));
            let batch =
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
            let live = live.map(|live| BooleanArray::from(live.slice(rows - left, expected)));
            let mask = self.mask(&batch, live.as_ref())?;
            let passed = mask.true_count();
            tested.push(TestedBatch { columns: batch.columns().to_vec(), mask, passed });
            left -= expected;
        }
        Ok(tested)
    }

    fn mask(&self, batch: &RecordBatch, live: Option<&BooleanArray>) -> Result<BooleanArray> {
        let mask = match live {
            None => self.expr.evaluate(batch)?,
            Some(live) => self.expr.evaluate_selection(batch, live)?,
        };
        let mask = mask.into_array(batch.num_rows())?;
        let mask = mask
            .as_any()
            .downcast_ref::<BooleanArray>()
            .ok_or_else(|| internal_datafusion_err!("a predicate is not boolean"))?;
        let mask = match mask.null_count() {
            0 => mask.clone(),
            _ => prep_null_mask_filter(mask),
        };
        Ok(match live {
            None => mask,
            Some(live) => and(&mask, live)?,
        })
    }
}

/// The rows of a row group that live, when no predicate asks for more.
pub(super) fn live_batches(live: &BooleanBuffer, batch_rows: usize) -> Vec<TestedBatch> {
    let batch_rows = batch_rows.max(1);
    (0..live.len())
        .step_by(batch_rows)
        .map(|start| {
            let mask = BooleanArray::from(live.slice(start, batch_rows.min(live.len() - start)));
            let passed = mask.true_count();
            TestedBatch { columns: vec![], mask, passed }
        })
        .collect()
}

/// Rewrites column references from the read schema to a subset of it, by position: names may
/// repeat, positions do not.
fn reassign_by_index(
    expr: &Arc<dyn PhysicalExpr>,
    columns: &[usize],
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expr)
        .transform(|node| {
            let Some(column) = node.downcast_ref::<Column>() else {
                return Ok(Transformed::no(node));
            };
            let index = columns.binary_search(&column.index()).map_err(|_| {
                internal_datafusion_err!(
                    "a predicate names column {} that it does not read",
                    column.name()
                )
            })?;
            let column = Column::new(schema.field(index).name(), index);
            Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>))
        })
        .map(|transformed| transformed.data)
}

/// The rows that pass, as parquet's reader takes them.
pub(super) fn row_selection(tested: &[TestedBatch]) -> RowSelection {
    let masks: Vec<_> = tested.iter().map(|batch| batch.mask.clone()).collect();
    RowSelection::from_filters(&masks)
}
