//! By which columns of stored tables a plan brings equal keys together, and how many rows it moves for that.
//!
//! What a table should lie by so that its rows stay where they are: DataFusion's estimates, added up over the
//! queries that run, say what that would have spared
//! ([`auto_distribution`](crate::auto_distribution)).

use std::sync::Arc;

use basalt_storage::ids::{ColumnId, TableId};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion_distributed::{DistributedLeafExec, NetworkBoundaryExt};

use super::check::{column_of, source_of};
use super::movement::{MovedRows, moved_rows};
use super::node_statistics::NodeStatistics;
use crate::scan::SegmentScanExec;

/// A column of a stored table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoredColumn {
    /// The table.
    pub table: TableId,
    /// The column.
    pub column: ColumnId,
}

/// One side of what is brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedSide {
    /// The key's column, as a table stores it.
    pub key: StoredColumn,
    /// Rows that are estimated to move to other tasks, of those that the key's table has; 0 where they stay.
    pub rows: u64,
}

/// Rows that a plan is estimated to move for equal values of a key to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedKey {
    /// The rows, or those of one side of a join.
    pub rows: MovedSide,
    /// The other side; none where rows are grouped.
    pub with: Option<MovedSide>,
}

/// What a plan moves by single columns of stored tables.
pub fn moved_keys(plan: &Arc<dyn ExecutionPlan>) -> Vec<MovedKey> {
    let mut walk = Walk::default();
    walk.visit(plan, 1);
    walk.found
}

#[derive(Default)]
struct Walk {
    statistics: NodeStatistics,
    found: Vec<MovedKey>,
}

impl Walk {
    fn visit(&mut self, node: &Arc<dyn ExecutionPlan>, tasks: usize) {
        if let Some(boundary) = node.as_network_boundary() {
            let stage = boundary.input_stage();
            if let Some(plan) = stage.local_plan() {
                self.visit(plan, stage.task_count());
            }
            return;
        }
        if tasks > 1 {
            if let Some(join) = node.downcast_ref::<HashJoinExec>() {
                self.join(join, tasks);
            } else if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
                self.aggregate(aggregate, tasks);
            }
        }
        node.children().into_iter().for_each(|child| self.visit(child, tasks));
    }

    fn join(&mut self, join: &HashJoinExec, tasks: usize) {
        let (left, right) = (join.left(), join.right());
        let mut moved = |input| moved_rows(input, tasks, &mut self.statistics);
        let (left_moved, right_moved) = (moved(left), moved(right));
        if left_moved.is_none() && right_moved.is_none() {
            return;
        }
        for (left_key, right_key) in join.on() {
            let sides = (stored_column(left_key, left), stored_column(right_key, right));
            if let (Some(left), Some(right)) = sides {
                let rows = left.side(left_moved);
                self.found.push(MovedKey { rows, with: Some(right.side(right_moved)) });
            }
        }
    }

    /// Groups of several columns could be made where rows lie by any of them; which one is not known here.
    fn aggregate(&mut self, aggregate: &AggregateExec, tasks: usize) {
        let is_final = *aggregate.mode() == AggregateMode::FinalPartitioned
            || *aggregate.mode() == AggregateMode::SinglePartitioned;
        let keys = aggregate.group_expr();
        let ([(key, _)], true, false) = (keys.expr(), is_final, keys.has_grouping_set()) else {
            return;
        };
        let moved = moved_rows(aggregate.input(), tasks, &mut self.statistics);
        if let (Some(key), true) = (stored_column(key, aggregate.input()), moved.is_some()) {
            self.found.push(MovedKey { rows: key.side(moved), with: None });
        }
    }
}

/// A key's column as it is read.
struct Read {
    column: StoredColumn,
    /// Rows that the scan reads.
    rows: u64,
}

impl Read {
    /// What moves of the column's table. A join below may be estimated to make any number of rows of it.
    fn side(&self, moved: Option<MovedRows>) -> MovedSide {
        let rows =
            moved.map_or(0, |MovedRows { rows, times }| rows.min(self.rows).saturating_mul(times));
        MovedSide { key: self.column, rows }
    }
}

/// The stored column whose values an expression over a node's rows has.
fn stored_column(expr: &Arc<dyn PhysicalExpr>, node: &Arc<dyn ExecutionPlan>) -> Option<Read> {
    let mut column = column_of(expr, &node.schema())?;
    let mut node = node;
    loop {
        if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
            node = leaf.original();
        }
        if let Some(scan) = node.downcast_ref::<SegmentScanExec>() {
            let column = scan.stored_column(column)?;
            let column = StoredColumn { table: scan.table().table, column };
            return Some(Read { column, rows: scan.assigned_rows() });
        }
        (node, column) = if let Some(boundary) = node.as_network_boundary() {
            (boundary.input_stage().local_plan()?, column)
        } else {
            let (child, column) = source_of(node, column)?;
            (*node.children().get(child)?, column)
        };
    }
}
