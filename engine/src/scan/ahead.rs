//! The next row group's first columns, fetched while the one before is decoded.
//!
//! Row groups, and pages of them, that zone maps rule out are passed over here, before any of their bytes are read; what
//! dynamic filters learn until a row group's turn is asked about again then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use basalt_storage::segment_meta::SegmentMeta;
use datafusion::common::DataFusionError;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::Result;

use super::ScanTable;
use super::columns::{Fetched, RowGroup, ScanColumns};
use super::pages::KeptPages;
use super::pruning::ZonePruner;
use crate::chunks::ReadCost;

/// A pruner that the scan and what it reads ahead share.
pub(super) type SharedPruner = Arc<Mutex<ZonePruner>>;

/// Row groups that were passed over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pruned {
    pub(super) rows: usize,
    pub(super) row_groups: usize,
    pub(super) bytes: u64,
}

/// What was found ahead.
pub(super) struct Ahead {
    /// The next row group that may have rows; `None` when there is none.
    pub(super) fetched: Option<Fetched>,
    pub(super) cost: ReadCost,
    /// What was passed over.
    pub(super) pruned: Pruned,
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
    let mut pruned = Pruned::default();
    while let Some(row_group) = queue.pop_front() {
        // Nothing below waits when all metadata is in memory: others want to run, and who asked may have
        // left.
        tokio::task::consume_budget().await;
        let meta = columns.meta(row_group).await?;
        let rows = columns.rows_of(row_group)?;
        let kept = kept_rows(columns.table(), &meta, (row_group, rows), pruner)?;
        let pages = match kept {
            Kept::All => None,
            Kept::Pages(pages) => Some(Arc::new(pages)),
            Kept::Nothing => {
                pruned.rows += rows;
                pruned.row_groups += 1;
                pruned.bytes += columns.bytes_of(row_group, &meta);
                continue;
            }
        };
        let (fetched, cost) = columns.fetch(row_group, &meta, first_step, pages.as_deref()).await?;
        let fetched = Some(Fetched { row_group, meta, columns: fetched, pages });
        return Ok(Ahead { fetched, cost, pruned, queue });
    }
    Ok(Ahead { fetched: None, cost: ReadCost::default(), pruned, queue })
}

/// What may match of a row group.
enum Kept {
    All,
    Pages(KeptPages),
    Nothing,
}

/// Pages are left out where most of them are: what is decoded in part is not kept for the next query.
fn kept_rows(
    table: &ScanTable,
    meta: &SegmentMeta,
    (row_group, rows): (RowGroup, usize),
    pruner: Option<&SharedPruner>,
) -> Result<Kept> {
    let Some(pruner) = pruner else { return Ok(Kept::All) };
    let mut pruner = pruner.lock().unwrap_or_else(PoisonError::into_inner);
    if !pruner.may_match(table, meta, row_group)? {
        return Ok(Kept::Nothing);
    }
    let Some(pages) = pruner.pages(table, meta, row_group.index) else { return Ok(Kept::All) };
    let pages = KeptPages::new(pages, rows);
    Ok(match pages.rows {
        0 => Kept::Nothing,
        kept if kept <= rows / 2 => Kept::Pages(pages),
        _ => Kept::All,
    })
}
