//! The plan checker: refuses a distributed plan that could give wrong rows.
//!
//! DataFusion plans for one process, where "one partition" means all rows and equal hash
//! partitionings mean equal hash functions. Cut into tasks, neither is true any more: with one
//! target partition, TPC-H q11 came out with 15,381 rows instead of 1,048. So for every node of a
//! stage of several tasks the checker derives the *family* of its rows, and compares it with what
//! the node needs. It is a closed list: a node it does not know may only run in one task.
//!
//! Invariant: a plan that passes computes what its single-process original computes.

mod assignment;
mod family;
mod joins;

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::{Distribution, Partitioning};
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
    BroadcastExec, DistributedExec, DistributedLeafExec, NetworkBoundary, NetworkBoundaryExt,
    NetworkBroadcastExec, NetworkCoalesceExec, NetworkShuffleExec,
};

use assignment::family_of_leaf;
pub(super) use family::Family;
use family::{Slices, handed_on, united};
pub(super) use family::{column_of, source_of};
use joins::partition_counts;

use super::slice_route::routed_by_slice;
use crate::guarded::is_sender;
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

pub(super) type Checked = Result<Family, Refusal>;

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

pub(super) struct StageCheck {
    /// How many tasks it has.
    pub(super) tasks: usize,
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

    /// The family of rows from another stage.
    pub(super) fn boundary(&self, node: &Arc<dyn ExecutionPlan>) -> Checked {
        if let Some(shuffle) = node.downcast_ref::<NetworkShuffleExec>() {
            Ok(family_of_shuffle(shuffle, self.tasks))
        } else if node.is::<NetworkBroadcastExec>() {
            Ok(Family::Replicated)
        } else if let Some(coalesce) = node.downcast_ref::<NetworkCoalesceExec>() {
            // The worker would take such a root for that of another kind of exchange, and leave it out.
            match coalesce.input_stage().local_plan().is_some_and(is_sender) {
                true => self.refuse(node, "what it collects has been sent already"),
                false => Ok(Family::Spread),
            }
        } else {
            self.refuse(node, "this boundary is not known")
        }
    }

    /// The family of a leaf's rows.
    pub(super) fn leaf(&self, node: &Arc<dyn ExecutionPlan>) -> Checked {
        if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
            if leaf.variants().len() != self.tasks {
                return self.refuse(node, format!("it has {} variants", leaf.variants().len()));
            }
            return family_of_leaf(leaf).or_else(|reason| self.refuse(node, reason));
        }
        match self.tasks {
            0 | 1 => Ok(Family::Spread),
            _ => self.refuse(node, "every task would produce all its rows"),
        }
    }

    /// The family of the rows of a node, from those of its inputs.
    pub(super) fn operator(&self, node: &Arc<dyn ExecutionPlan>, children: &[Family]) -> Checked {
        // A limit on one partition is one on all rows; on several, and where it is local by its
        // name, a merge above limits again.
        let limits_all = node.fetch().is_some() && !node.is::<LocalLimitExec>();
        if limits_all && node.output_partitioning().partition_count() == 1 {
            return self.refuse(node, "each task would take its own first rows");
        }
        let is_all_replicated = children.iter().all(|family| *family == Family::Replicated);
        if is_all_replicated && (node.fetch().is_some() || computes_volatile(node)) {
            return self.refuse(node, "its replicas would differ between tasks");
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            return match join.partition_mode() {
                _ if join.null_aware => {
                    self.refuse(node, "a null-aware join must see all rows of both sides")
                }
                PartitionMode::CollectLeft => self.collect_hash_join(node, join, children),
                PartitionMode::Partitioned => self.partitioned_join(node, join, children),
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
                AggregateMode::Partial | AggregateMode::PartialReduce => {
                    Ok(in_its_task(node, &children[0]))
                }
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
                true => Ok(children[0].clone()),
                false => self.refuse(node, "it must see all rows"),
            };
        }
        if node.is::<CoalescePartitionsExec>()
            || node.is::<RepartitionExec>()
            || node.is::<SortPreservingMergeExec>()
        {
            return Ok(in_its_task(node, &children[0]));
        }
        if node.is::<UnionExec>() {
            return Ok(united(children));
        }
        if node.is::<SliceAppendExec>() {
            return Ok(Family::Spread);
        }
        if passes_through(node) {
            return Ok(handed_on(node, 0, &children[0]));
        }
        self.refuse(node, "it is not known to be safe in several tasks")
    }

    /// A node that needs equal keys in one place: all inputs come from a network shuffle over its keys, or
    /// its only one has its rows in the tasks of their slices by one of its keys.
    fn partitioned(&self, node: &Arc<dyn ExecutionPlan>, children: &[Family]) -> Checked {
        match children {
            [Family::Sliced(slices)] if needs_key_of(node, slices) => {
                self.partitions_match(node).map(|()| handed_on(node, 0, &children[0]))
            }
            _ if children.iter().all(|family| *family == Family::Shuffled) => {
                self.partitions_match(node).map(|()| Family::Shuffled)
            }
            _ => {
                let rows: Vec<_> = children.iter().map(ToString::to_string).collect();
                let rows = rows.join(" and ");
                self.refuse(node, format!("it needs rows shuffled by its keys and has rows {rows}"))
            }
        }
    }

    /// Whether equal keys are in one partition of a task, of each input alike.
    fn partitions_match(&self, node: &Arc<dyn ExecutionPlan>) -> Result<(), Refusal> {
        let counts = partition_counts(node);
        if counts.windows(2).any(|pair| pair[0] != pair[1]) {
            return self.refuse(node, format!("its inputs have {counts:?} partitions"));
        }
        let requirements = node.input_distribution_requirements();
        let inputs = node.children();
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
        Ok(())
    }
}

/// By DataFusion's hash of some expressions, or of one that chooses the task of a slice.
fn family_of_shuffle(shuffle: &NetworkShuffleExec, tasks: usize) -> Family {
    let sliced = || {
        let sender = shuffle.input_stage().local_plan()?.downcast_ref::<RepartitionExec>()?;
        let Partitioning::Hash(by, partitions) = sender.partitioning() else { return None };
        let ([by], true) = (by.as_slice(), *partitions == tasks) else { return None };
        let (key, tasks) = routed_by_slice(by, tasks)?;
        Slices::by(column_of(&key, &sender.schema()), &Arc::new(tasks))
    };
    sliced().map_or(Family::Shuffled, Family::Sliced)
}

/// Whether rows that are equal in what a node needs together are in one task, as their slices are.
fn needs_key_of(node: &Arc<dyn ExecutionPlan>, slices: &Slices) -> bool {
    let schema = node.children()[0].schema();
    match node.input_distribution_requirements().child_distribution(0) {
        Some(Distribution::KeyPartitioned(keys)) => {
            keys.iter().any(|key| slices.are_by(key, &schema))
        }
        _ => false,
    }
}

/// The family of rows that stay in their tasks, but not in their partitions.
fn in_its_task(node: &Arc<dyn ExecutionPlan>, input: &Family) -> Family {
    match handed_on(node, 0, input) {
        Family::Shuffled => Family::Spread,
        family => family,
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

#[cfg(test)]
mod tests;
