//! The next row group's first columns, fetched while the one before is decoded.
//!
//! Row groups that zone maps rule out are passed over here, before any of their bytes are read; what
//! dynamic filters learn until a row group's turn is asked about again then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::DataFusionError;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::Result;

use super::columns::{Fetched, RowGroup, ScanColumns};
use super::pruning::ZonePruner;
use crate::chunks::ReadCost;

/// A pruner that the scan and what it reads ahead share.
pub(super) type SharedPruner = Arc<Mutex<ZonePruner>>;

/// What was found ahead.
pub(super) struct Ahead {
    /// The next row group that may have rows; `None` when there is none.
    pub(super) fetched: Option<Fetched>,
    pub(super) cost: ReadCost,
    /// Rows and row groups that were passed over.
    pub(super) pruned: (usize, usize),
    /// What is left.
    queue: VecDeque<RowGroup>,
}

/// The row groups of one partition, one read ahead.
pub(super) struct RowGroups {
    columns: Arc<ScanColumns>,
    /// The columns to fetch.
    first_step: Arc<Vec<usize>>,
    pruner: Option<SharedPruner>,
    task: Option<SpawnedTask<Result<Ahead>>>,
}

impl RowGroups {
    pub(super) fn new(
        columns: Arc<ScanColumns>,
        first_step: Vec<usize>,
        pruner: Option<SharedPruner>,
        queue: VecDeque<RowGroup>,
    ) -> Self {
        let mut row_groups = Self { columns, first_step: Arc::new(first_step), pruner, task: None };
        row_groups.read_ahead(queue);
        row_groups
    }

    /// The next row group; begins to fetch the one after it.
    pub(super) async fn next(&mut self) -> Result<Option<Ahead>> {
        let Some(task) = self.task.take() else { return Ok(None) };
        let joined = task.join().await;
        let mut ahead = joined.map_err(|error| DataFusionError::External(Box::new(error)))??;
        self.read_ahead(std::mem::take(&mut ahead.queue));
        Ok(Some(ahead))
    }

    /// Stops reading.
    pub(super) fn stop(&mut self) {
        self.task = None;
    }

    fn read_ahead(&mut self, queue: VecDeque<RowGroup>) {
        if queue.is_empty() {
            return;
        }
        let (columns, pruner) = (Arc::clone(&self.columns), self.pruner.clone());
        let first_step = Arc::clone(&self.first_step);
        self.task = Some(SpawnedTask::spawn(async move {
            next_that_may_match(&columns, &first_step, pruner.as_ref(), queue).await
        }));
    }
}

async fn next_that_may_match(
    columns: &ScanColumns,
    first_step: &[usize],
    pruner: Option<&SharedPruner>,
    mut queue: VecDeque<RowGroup>,
) -> Result<Ahead> {
    let mut pruned = (0, 0);
    while let Some(row_group) = queue.pop_front() {
        // Nothing below waits when all metadata is in memory: others want to run, and who asked may have
        // left.
        tokio::task::consume_budget().await;
        let meta = columns.meta(row_group).await?;
        let may_match = match pruner {
            None => true,
            Some(pruner) => {
                let mut pruner = pruner.lock().unwrap_or_else(PoisonError::into_inner);
                pruner.may_match(columns.table(), &meta, row_group.index)?
            }
        };
        if !may_match {
            pruned = (pruned.0 + columns.rows_of(row_group)?, pruned.1 + 1);
            continue;
        }
        let (fetched, cost) = columns.fetch(row_group, &meta, first_step).await?;
        let fetched = Some(Fetched { row_group, meta, columns: fetched });
        return Ok(Ahead { fetched, cost, pruned, queue });
    }
    Ok(Ahead { fetched: None, cost: ReadCost::default(), pruned, queue })
}
