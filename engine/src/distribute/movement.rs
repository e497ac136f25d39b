//! What a plan's joins move between workers, in Redshift's words, why, and what would spare it.
//!
//! ```text
//! DS_DIST_NONE      both sides lie by a key that they are joined by
//! DS_DIST_ALL_NONE  every worker has all of one side
//! DS_DIST_INNER     the inner side goes to the slices of the outer one
//! DS_DIST_OUTER     the outer side goes to the slices of the inner one
//! DS_DIST_BOTH      each row of both goes to the worker of its key
//! DS_BCAST_INNER    the inner side goes to all workers
//! ```
//! The inner side is the one that a join makes its hash table of, or holds: the first in the plan.

use std::fmt;
use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion_distributed::{
    DistributedLeafExec, NetworkBoundaryExt, NetworkBroadcastExec, NetworkShuffleExec,
};

use super::node_statistics::NodeStatistics;
use crate::scan::SegmentScanExec;

/// What one join moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Redshift's label.
    pub label: &'static str,
    /// What is joined, by their names in the plan.
    pub join: String,
    /// Rows that are estimated to move, once for each task that they go to; 0 where that is not known.
    pub rows_moved: u64,
    /// Why rows move, and what would spare it; nothing where none do.
    pub reasons: Vec<String>,
}

impl fmt::Display for Movement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16}  {}", self.label, self.join)?;
        self.reasons.iter().try_for_each(|reason| write!(f, "\n{:18}{reason}", ""))
    }
}

/// What the joins of a plan move, in the order of the plan. Joins of one task move nothing by themselves.
pub fn movements(plan: &Arc<dyn ExecutionPlan>) -> Vec<Movement> {
    let (mut found, mut statistics) = (Vec::new(), NodeStatistics::default());
    visit(plan, 1, &mut statistics, &mut found);
    found
}

fn visit(
    node: &Arc<dyn ExecutionPlan>,
    tasks: usize,
    statistics: &mut NodeStatistics,
    found: &mut Vec<Movement>,
) {
    if let Some(boundary) = node.as_network_boundary() {
        let stage = boundary.input_stage();
        if let Some(plan) = stage.local_plan() {
            visit(plan, stage.task_count(), statistics, found);
        }
        return;
    }
    if tasks > 1
        && let Some(movement) = movement_of(node, tasks, statistics)
    {
        found.push(movement);
    }
    node.children().into_iter().for_each(|child| visit(child, tasks, statistics, found));
}

/// How the rows of one side come to a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Stays,
    Everywhere,
    Moves,
    ToAll,
}

/// Rows that move, and to how many tasks each.
#[derive(Debug, Clone, Copy)]
pub(super) struct MovedRows {
    pub(super) rows: u64,
    pub(super) times: u64,
}

/// What moves of a join's or an aggregate's input in a stage of so many tasks, if anything does and it can be estimated.
pub(super) fn moved_rows(
    input: &Arc<dyn ExecutionPlan>,
    tasks: usize,
    statistics: &mut NodeStatistics,
) -> Option<MovedRows> {
    let times = match side(input) {
        Side::Stays | Side::Everywhere => return None,
        Side::Moves => 1,
        Side::ToAll => tasks as u64,
    };
    Some(MovedRows { rows: statistics.rows(input)? as u64, times })
}

fn movement_of(
    node: &Arc<dyn ExecutionPlan>,
    tasks: usize,
    statistics: &mut NodeStatistics,
) -> Option<Movement> {
    let is_join = node.is::<HashJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<CrossJoinExec>()
        || node.is::<SortMergeJoinExec>();
    let children = node.children();
    let ([inner, outer], true) = (children.as_slice(), is_join) else { return None };
    let (inner_side, outer_side) = (side(inner), side(outer));
    let label = match (inner_side, outer_side) {
        (Side::ToAll, _) => "DS_BCAST_INNER",
        (Side::Everywhere, _) | (_, Side::Everywhere) => "DS_DIST_ALL_NONE",
        (Side::Stays, Side::Stays | Side::ToAll) => "DS_DIST_NONE",
        (Side::Moves, Side::Stays | Side::ToAll) => "DS_DIST_INNER",
        (Side::Stays, Side::Moves) => "DS_DIST_OUTER",
        (Side::Moves, Side::Moves) => "DS_DIST_BOTH",
    };
    let on: Vec<_> = match node.downcast_ref::<HashJoinExec>() {
        Some(join) => join.on().iter().map(|(l, r)| (name(l), name(r))).collect(),
        None => vec![],
    };
    let keys: Vec<_> = on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
    let keys = if keys.is_empty() { "without equal keys".to_owned() } else { keys.join(" AND ") };
    let sides = [
        (inner, inner_side, on.first().map(|on| &on.0)),
        (outer, outer_side, on.first().map(|on| &on.1)),
    ];
    let moved = sides.into_iter().filter(|(_, side, _)| matches!(side, Side::Moves | Side::ToAll));
    let reasons = moved.filter_map(|(plan, side, key)| reason(plan, side, key)).collect();
    let join = format!("{} with {}: {keys}", tables(inner), tables(outer));
    let moved = [inner, outer].map(|input| moved_rows(input, tasks, statistics));
    let moved = moved.into_iter().flatten().map(|moved| moved.rows.saturating_mul(moved.times));
    let rows_moved = moved.fold(0, u64::saturating_add);
    Some(Movement { label, join, rows_moved, reasons })
}

fn name(expr: &Arc<dyn PhysicalExpr>) -> String {
    match expr.downcast_ref::<Column>() {
        Some(column) => column.name().to_owned(),
        None => expr.to_string(),
    }
}

/// Down to where rows come from: another stage, a table, or a join that made them here.
fn side(input: &Arc<dyn ExecutionPlan>) -> Side {
    if input.is::<NetworkBroadcastExec>() {
        return Side::ToAll;
    }
    if input.is::<NetworkShuffleExec>() {
        return Side::Moves;
    }
    if let Some(leaf) = input.downcast_ref::<DistributedLeafExec>() {
        return if is_read_by_all(leaf) { Side::Everywhere } else { Side::Stays };
    }
    match input.children().as_slice() {
        [only] => side(only),
        // A join of what every worker has is everywhere itself.
        [left, right] if side(left) == Side::Everywhere && side(right) == Side::Everywhere => {
            Side::Everywhere
        }
        _ => Side::Stays,
    }
}

/// Whether each task reads all that the first one does.
fn is_read_by_all(leaf: &DistributedLeafExec) -> bool {
    let rows = |plan: &Arc<dyn ExecutionPlan>| {
        plan.downcast_ref::<SegmentScanExec>().map(SegmentScanExec::assigned_rows)
    };
    let all = rows(leaf.original());
    leaf.variants().len() > 1
        && all.is_some_and(|rows| rows > 0)
        && leaf.variants().iter().all(|variant| rows(variant) == all)
}

/// The tables that a side is made of.
fn tables(plan: &Arc<dyn ExecutionPlan>) -> String {
    let mut names: Vec<String> = Vec::new();
    scans(plan, &mut |scan| {
        if !names.contains(&scan.table().name) {
            names.push(scan.table().name.clone());
        }
    });
    if names.is_empty() { "rows of no table".to_owned() } else { names.join(", ") }
}

fn scans(plan: &Arc<dyn ExecutionPlan>, f: &mut impl FnMut(&SegmentScanExec)) {
    let leaf = plan.downcast_ref::<DistributedLeafExec>().map_or(plan, |leaf| leaf.original());
    if let Some(scan) = leaf.downcast_ref::<SegmentScanExec>() {
        f(scan);
    }
    plan.children().into_iter().for_each(|child| scans(child, f));
}

/// Why a side moves, and what would spare it.
fn reason(plan: &Arc<dyn ExecutionPlan>, side: Side, key: Option<&String>) -> Option<String> {
    let mut only: Vec<(String, String)> = Vec::new();
    scans(plan, &mut |scan| only.push((scan.table().name.clone(), scan.distribution().to_owned())));
    let whereto = match side {
        Side::ToAll => "goes to all workers",
        _ => "goes to the workers of its keys",
    };
    let Some(key) = key else {
        return Some(format!("{} {whereto}: no key is equal on both sides", tables(plan)));
    };
    match only.as_slice() {
        [(table, distribution)] => Some(format!(
            "{table} {whereto}: it is {distribution} and joined by {key}; DISTSTYLE ALL, or both sides \
             by that key (DISTKEY), would spare it"
        )),
        _ => Some(format!("{} {whereto}: joined rows do not lie by {key}", tables(plan))),
    }
}
