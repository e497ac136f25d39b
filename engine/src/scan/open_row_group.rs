//! A row group being handed out, batch by batch: columns decoded and zipped.
//!
//! Invariant: every batch has as many values of each column as it has rows. A column that ends
//! early is an error, never a shorter batch (RULES 10).

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;

use super::column_rows::ColumnRows;
use super::predicate::TestedBatch;

/// A row group being handed out, batch by batch.
pub(super) struct OpenRowGroup {
    /// What is left of the predicate's verdict; empty when there is no predicate.
    tested: VecDeque<TestedBatch>,
    tested_columns: Vec<usize>,
    columns: Vec<(usize, ColumnRows)>,
    projection: Vec<usize>,
    rows_left: usize,
    batch_rows: usize,
    filtered: bool,
    /// Whether `columns` were opened with the row selection of `tested`.
    selected: bool,
}

impl OpenRowGroup {
    pub(super) fn plain(
        columns: Vec<(usize, ColumnRows)>,
        projection: &[usize],
        rows: usize,
        batch_rows: usize,
    ) -> Self {
        Self {
            tested: VecDeque::new(),
            tested_columns: vec![],
            columns,
            projection: projection.to_vec(),
            rows_left: rows,
            batch_rows,
            filtered: false,
            selected: false,
        }
    }

    pub(super) fn filtered(
        tested: Vec<TestedBatch>,
        columns: Vec<(usize, ColumnRows)>,
        tested_columns: &[usize],
        projection: &[usize],
        selected: bool,
    ) -> Self {
        Self {
            tested: tested.into(),
            tested_columns: tested_columns.to_vec(),
            columns,
            projection: projection.to_vec(),
            rows_left: 0,
            batch_rows: 0,
            filtered: true,
            selected,
        }
    }

    /// The next batch and the mask still to be applied to it.
    pub(super) fn next(
        &mut self,
        schema: &SchemaRef,
    ) -> Result<Option<(RecordBatch, Option<BooleanArray>)>> {
        if !self.filtered {
            let rows = self.rows_left.min(self.batch_rows);
            if rows == 0 {
                return Ok(None);
            }
            self.rows_left -= rows;
            return self.zip(&[], rows, schema).map(|batch| Some((batch, None)));
        }
        loop {
            let Some(tested) = self.tested.pop_front() else { return Ok(None) };
            let rows = tested.mask.len();
            if self.selected {
                if tested.passed == 0 {
                    continue;
                }
                let kept: Vec<_> = tested
                    .columns
                    .iter()
                    .map(|column| filter(column, &tested.mask))
                    .collect::<std::result::Result<_, _>>()?;
                return self.zip(&kept, tested.passed, schema).map(|batch| Some((batch, None)));
            }
            // Columns decoded in full must advance past batches that have no survivor, too.
            let batch = self.zip(&tested.columns, rows, schema)?;
            if tested.passed == 0 {
                continue;
            }
            let mask = (tested.passed < rows).then_some(tested.mask);
            return Ok(Some((batch, mask)));
        }
    }

    /// Puts `rows` values of each output column side by side.
    fn zip(&mut self, tested: &[ArrayRef], rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
        let mut decoded: Vec<(usize, ArrayRef)> = Vec::with_capacity(self.columns.len());
        for (column, reader) in &mut self.columns {
            decoded.push((*column, reader.take(rows)?));
        }
        let arrays = self
            .projection
            .iter()
            .map(|column| {
                let from_test = self.tested_columns.iter().position(|tested| tested == column);
                match from_test.and_then(|index| tested.get(index)) {
                    Some(array) => Ok(Arc::clone(array)),
                    None => decoded
                        .iter()
                        .find(|(read, _)| read == column)
                        .map(|(_, array)| Arc::clone(array))
                        .ok_or_else(|| internal_datafusion_err!("an output column was not read")),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
    }
}
