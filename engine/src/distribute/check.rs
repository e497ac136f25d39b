//! The plan checker: refuses a distributed plan that could give wrong rows.
//!
//! DataFusion plans for one process, where "one partition" means all rows and equal hash
//! partitionings mean equal hash functions. Cut into tasks, neither is true any more: with one
//! target partition, TPC-H q11 came out with 15,381 rows instead of 1,048. So for every node of a
//! stage of several tasks the checker derives the *family* of its rows, and compares it with what
//! the node needs. It is a closed list: a node it does not know may only run in one task.
//!
//! Invariant: a plan that passes computes what its single-process original computes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use basalt_storage::ids::SegmentId;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::Distribution;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::distribution_requirements::ChildSatisfactionOptions;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_distributed::{
    BroadcastExec, DistributedExec, DistributedLeafExec, NetworkBoundaryExt, NetworkBroadcastExec,
    NetworkCoalesceExec, NetworkShuffleExec,
};

use crate::files::FileScanExec;
use crate::scan::SegmentScanExec;
use crate::unknown_nulls::UnknownNullsExec;
use crate::write::SliceAppendExec;

/// Why a plan may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node} in a stage of {tasks} tasks: {reason}")]
pub struct Refusal {
    /// The node.
    pub node: String,
    /// The tasks of its stage.
    pub tasks: usize,
    /// What is wrong.
    pub reason: String,
}

/// How a node's rows lie over the tasks of its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Each row is in one task, for no reason that means anything.
    Spread,
    /// Each row is in the (task, partition) that DataFusion's hash over a network shuffle chose;
    /// the node's output partitioning says over which expressions.
    Shuffled,
    /// Each task has every row.
    Replicated,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spread => "spread over tasks",
            Self::Shuffled => "shuffled by hash",
            Self::Replicated => "replicated to every task",
        })
    }
}

type Checked = Result<Family, Refusal>;

/// Checks every stage of a plan, the head included.
pub fn check_plan(plan: &Arc<dyn ExecutionPlan>) -> Result<(), Refusal> {
    let Some(distributed) = plan.downcast_ref::<DistributedExec>() else {
        return check_stage(plan, 1);
    };
    let head = distributed.children()[0];
    check_stage(head, 1)?;
    check_encoding(head, 1)
}

/// Refuses what DataFusion's encoding of plans leaves out, silently.
fn check_encoding(node: &Arc<dyn ExecutionPlan>, tasks: usize) -> Result<(), Refusal> {
    let stage = StageCheck { tasks };
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let keys = aggregate.group_expr();
        if keys.has_grouping_set() && keys.expr().is_empty() {
            return stage
                .refuse(node, "grouping sets that are all empty cannot be sent to workers");
        }
    }
    if let Some(boundary) = node.as_network_boundary() {
        let input = boundary.input_stage();
        return match input.local_plan() {
            Some(plan) => check_encoding(plan, input.task_count()),
            None => stage.refuse(node, "its input stage cannot be seen"),
        };
    }
    node.children().into_iter().try_for_each(|child| check_encoding(child, tasks))
}

fn check_stage(head: &Arc<dyn ExecutionPlan>, tasks: usize) -> Result<(), Refusal> {
    let stage = StageCheck { tasks };
    match stage.family(head)? {
        Family::Replicated if tasks > 1 => {
            stage.refuse(head, "every task would send the same rows")
        }
        _ => Ok(()),
    }
}

struct StageCheck {
    tasks: usize,
}

impl StageCheck {
    fn refuse<T>(
        &self,
        node: &Arc<dyn ExecutionPlan>,
        reason: impl Into<String>,
    ) -> Result<T, Refusal> {
        Err(Refusal { node: node.name().to_owned(), tasks: self.tasks, reason: reason.into() })
    }

    fn family(&self, node: &Arc<dyn ExecutionPlan>) -> Checked {
        if let Some(boundary) = node.as_network_boundary() {
            let stage = boundary.input_stage();
            let Some(plan) = stage.local_plan() else {
                return self.refuse(node, "its input stage cannot be seen");
            };
            check_stage(plan, stage.task_count())?;
            return self.boundary(node);
        }
        if node.children().is_empty() {
            return self.leaf(node);
        }
        if let Some(recursive) = node.downcast_ref::<RecursiveQueryExec>()
            && has_boundary(recursive.recursive_term())
        {
            return self.refuse(node, "its second round would find the exchanges below it read");
        }
        let children = node
            .children()
            .into_iter()
            .map(|child| self.family(child))
            .collect::<Result<Vec<_>, _>>()?;
        match self.tasks {
            0 | 1 => Ok(Family::Spread),
            _ => self.operator(node, &children),
        }
    }

    fn boundary(&self, node: &Arc<dyn ExecutionPlan>) -> Checked {
        if node.is::<NetworkShuffleExec>() {
            Ok(Family::Shuffled)
        } else if node.is::<NetworkBroadcastExec>() {
            Ok(Family::Replicated)
        } else if node.is::<NetworkCoalesceExec>() {
            Ok(Family::Spread)
        } else {
            self.refuse(node, "this boundary is not known")
        }
    }

    fn leaf(&self, node: &Arc<dyn ExecutionPlan>) -> Checked {
        if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
            if leaf.variants().len() != self.tasks {
                return self.refuse(node, format!("it has {} variants", leaf.variants().len()));
            }
            return match assignment_error(leaf) {
                Some(reason) => self.refuse(node, reason),
                None => Ok(Family::Spread),
            };
        }
        match self.tasks {
            0 | 1 => Ok(Family::Spread),
            _ => self.refuse(node, "every task would produce all its rows"),
        }
    }

    fn operator(&self, node: &Arc<dyn ExecutionPlan>, children: &[Family]) -> Checked {
        // A limit on one partition is one on all rows; on several, and where it is local by its
        // name, a merge above limits again.
        let limits_all = node.fetch().is_some() && !node.is::<LocalLimitExec>();
        if limits_all && node.output_partitioning().partition_count() == 1 {
            return self.refuse(node, "each task would take its own first rows");
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            return match join.partition_mode() {
                _ if join.null_aware => {
                    self.refuse(node, "a null-aware join must see all rows of both sides")
                }
                PartitionMode::CollectLeft => self.collect_join(node, *join.join_type(), children),
                PartitionMode::Partitioned => self.partitioned(node, children),
                PartitionMode::Auto => self.refuse(node, "its mode has not been decided"),
            };
        }
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            return self.collect_join(node, *join.join_type(), children);
        }
        if node.is::<CrossJoinExec>() {
            return self.collect_join(node, JoinType::Inner, children);
        }
        if node.is::<SortMergeJoinExec>() || node.is::<InterleaveExec>() {
            return self.partitioned(node, children);
        }
        if children.contains(&Family::Replicated) && !keeps_replicas(node) {
            return self
                .refuse(node, "its input is replicated, so rows would count more than once");
        }
        if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
            return match aggregate.mode() {
                AggregateMode::Partial | AggregateMode::PartialReduce => Ok(Family::Spread),
                // Its groups have other keys than its input: those of some sets are NULL.
                AggregateMode::SinglePartitioned if aggregate.group_expr().has_grouping_set() => {
                    self.refuse(node, "no shuffle of its input brings all its groups together")
                }
                AggregateMode::FinalPartitioned | AggregateMode::SinglePartitioned => {
                    self.partitioned(node, children)
                }
                AggregateMode::Final | AggregateMode::Single => {
                    self.refuse(node, "it must see all rows")
                }
            };
        }
        if node.is::<WindowAggExec>() || node.is::<BoundedWindowAggExec>() {
            return self.partitioned(node, children);
        }
        if let Some(sort) = node.downcast_ref::<SortExec>() {
            return match sort.preserve_partitioning() {
                true => Ok(children[0]),
                false => self.refuse(node, "it must see all rows"),
            };
        }
        if node.is::<CoalescePartitionsExec>() || node.is::<RepartitionExec>() {
            return Ok(match children[0] {
                Family::Replicated => Family::Replicated,
                _ => Family::Spread,
            });
        }
        if node.is::<UnionExec>()
            || node.is::<SliceAppendExec>()
            || node.is::<SortPreservingMergeExec>()
        {
            return Ok(Family::Spread);
        }
        if passes_through(node) {
            return Ok(children[0]);
        }
        self.refuse(node, "it is not known to be safe in several tasks")
    }

    /// A join that collects its left side in every task.
    fn collect_join(
        &self,
        node: &Arc<dyn ExecutionPlan>,
        kind: JoinType,
        children: &[Family],
    ) -> Checked {
        let emits_left = !matches!(
            kind,
            JoinType::Inner
                | JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark
        );
        match children {
            _ if emits_left => {
                self.refuse(node, "every task would emit the unmatched rows of its build side")
            }
            [Family::Replicated, right] => Ok(*right),
            [left, _] => self.refuse(node, format!("its build side is {left}")),
            _ => self.refuse(node, "it has not two inputs"),
        }
    }

    /// A node that needs equal keys in one place: each input must come from a network shuffle over
    /// its keys, all with one partition count.
    fn partitioned(&self, node: &Arc<dyn ExecutionPlan>, children: &[Family]) -> Checked {
        if let Some(wrong) = children.iter().find(|family| **family != Family::Shuffled) {
            return self
                .refuse(node, format!("it needs rows shuffled by its keys and has rows {wrong}"));
        }
        let requirements = node.input_distribution_requirements();
        let inputs = node.children();
        let counts: Vec<_> =
            inputs.iter().map(|child| child.output_partitioning().partition_count()).collect();
        if counts.windows(2).any(|pair| pair[0] != pair[1]) {
            return self.refuse(node, format!("its inputs have {counts:?} partitions"));
        }
        // One input may be partitioned by some of the keys only: equal keys meet all the same.
        let options = ChildSatisfactionOptions::new().with_allow_subset(inputs.len() == 1);
        for (index, child) in inputs.iter().enumerate() {
            let needs_all = requirements
                .child_distribution(index)
                .is_some_and(|need| matches!(need, Distribution::SinglePartition));
            let satisfied = requirements
                .child_satisfaction(index, child.as_ref(), options)
                .is_ok_and(|satisfaction| satisfaction.is_satisfied());
            if needs_all || !satisfied {
                return self
                    .refuse(node, format!("input {index} is not shuffled by the keys it needs"));
            }
        }
        Ok(Family::Shuffled)
    }
}

/// Nodes that hand on each row by itself, in its task.
fn passes_through(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<FilterExec>()
        || node.is::<ProjectionExec>()
        || node.is::<CooperativeExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<UnnestExec>()
        || node.is::<BroadcastExec>()
        || node.is::<UnknownNullsExec>()
}

/// Nodes that turn replicated rows into replicated rows: the same in every task. A limit takes
/// other rows in every task, and a volatile expression makes other values.
fn keeps_replicas(node: &Arc<dyn ExecutionPlan>) -> bool {
    let known = node.is::<FilterExec>()
        || node.is::<ProjectionExec>()
        || node.is::<CooperativeExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<RepartitionExec>()
        || node.is::<UnknownNullsExec>();
    known && node.fetch().is_none() && !computes_volatile(node)
}

/// Whether an expression of the node itself gives another value each time.
fn computes_volatile(node: &Arc<dyn ExecutionPlan>) -> bool {
    let mut found = false;
    let visited = node.apply_expressions(&mut |expression| {
        found |= is_volatile(expression);
        Ok(TreeNodeRecursion::Continue)
    });
    found || visited.is_err()
}

/// Whether rows reach the plan from another stage.
fn has_boundary(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.exists(|node| Ok(node.is_network_boundary())).unwrap_or(true)
}

/// What is wrong with the way a leaf's row groups are assigned to tasks, if anything.
fn assignment_error(leaf: &DistributedLeafExec) -> Option<String> {
    if let Some(original) = leaf.original().downcast_ref::<SegmentScanExec>() {
        let mut left = row_groups(original);
        for variant in leaf.variants() {
            let Some(scan) = variant.downcast_ref::<SegmentScanExec>() else {
                return Some("a variant is not a segment scan".to_owned());
            };
            if scan.predicate() != original.predicate() || scan.fetch() != original.fetch() {
                return Some("a variant filters or limits its rows otherwise".to_owned());
            }
            for (row_group, times) in row_groups(scan) {
                match left.remove(&row_group) {
                    Some(1) if times == 1 => {}
                    _ => return Some(format!("row group {row_group:?} is assigned twice")),
                }
            }
        }
        return left.keys().next().map(|missing| format!("row group {missing:?} is not assigned"));
    }
    let original = leaf.original().downcast_ref::<FileScanExec>()?;
    let mut variants = Vec::with_capacity(leaf.variants().len());
    for variant in leaf.variants() {
        match variant.downcast_ref::<FileScanExec>() {
            Some(scan) => variants.push(scan),
            None => return Some("a variant is not a file scan".to_owned()),
        }
    }
    file_assignment_error(original, &variants)
}

/// Every row of every file is in exactly one unit of one variant.
fn file_assignment_error(original: &FileScanExec, variants: &[&FileScanExec]) -> Option<String> {
    for (index, file) in original.scan().files.iter().enumerate() {
        let units = variants.iter().flat_map(|variant| variant.partitions().iter().flatten());
        let mut runs: Vec<_> = units
            .filter(|unit| unit.file == index)
            .map(|unit| (unit.first_row, unit.rows.or(file.rows)))
            .collect();
        runs.sort_unstable();
        let whole = match file.rows {
            None => runs.len() == 1,
            Some(rows) => {
                let end = runs.iter().try_fold(0, |next, (first, rows)| match rows {
                    Some(rows) if *first == next => Some(next + rows),
                    _ => None,
                });
                end == Some(rows)
            }
        };
        if !whole {
            return Some(format!("the rows of file {index} are not assigned exactly once"));
        }
    }
    None
}

fn row_groups(scan: &SegmentScanExec) -> HashMap<(SegmentId, u32), usize> {
    let mut groups = HashMap::new();
    for unit in scan.partitions().iter().flatten() {
        if let Some(segment) = scan.segments().get(unit.segment as usize) {
            for group in unit.first..unit.end {
                *groups.entry((segment.segment, group)).or_default() += 1;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests;
