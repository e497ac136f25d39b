//! The first rows of partitions in the order in which the partitions are merged.
//!
//! A column that is constant in each branch of a UNION ALL is constant in each partition, and DataFusion
//! leaves it out where partitions are sorted: `(SELECT 1 AS src, x FROM a) UNION ALL (SELECT 2, x FROM b)
//! ORDER BY src, x LIMIT 3` sorts by `x` and merges by `src, x`. But partitions that are cut to their first
//! rows tell each other from which row on nothing is wanted, and that is only so in the order of all:
//! branch 2 would cut rows of branch 1, when it is the faster one
//! (`sql-tests/upstream/first-rows-of-unions.md`). So such sorts get all keys of the merge.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

/// Gives sorts their keys.
#[derive(Debug)]
pub(crate) struct PartitionOrders;

impl PhysicalOptimizerRule for PartitionOrders {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(with_ordered_partitions).data()
    }

    fn name(&self) -> &'static str {
        "partition_orders"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

type Plan = Arc<dyn ExecutionPlan>;

fn with_ordered_partitions(node: Plan) -> Result<Transformed<Plan>> {
    let Some(merge) = node.downcast_ref::<SortPreservingMergeExec>() else {
        return Ok(Transformed::no(node));
    };
    let keys = merge.expr().len();
    let input = merge.input();
    let input = match input.downcast_ref::<SortExec>() {
        Some(sort) if cuts_by_fewer(sort, keys) => {
            let full = SortExec::new(merge.expr().clone(), Arc::clone(sort.input()))
                .with_fetch(sort.fetch())
                .with_preserve_partitioning(true);
            Some(Arc::new(full) as Plan)
        }
        _ => cut_later(input, keys)?,
    };
    match input {
        Some(input) => with_children(node, vec![input]).map(Transformed::yes),
        None => Ok(Transformed::no(node)),
    }
}

/// Whether a sort gives the first rows of each partition by fewer keys than they are merged by.
fn cuts_by_fewer(sort: &SortExec, keys: usize) -> bool {
    sort.fetch().is_some() && sort.preserve_partitioning() && sort.expr().len() < keys
}

/// Below a projection the keys of the merge have other names or none: there partitions are sorted whole
/// and cut each for itself.
fn cut_later(plan: &Plan, keys: usize) -> Result<Option<Plan>> {
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        let Some(rows) = sort.fetch().filter(|_| cuts_by_fewer(sort, keys)) else {
            return Ok(None);
        };
        let whole = SortExec::new(sort.expr().clone(), Arc::clone(sort.input()))
            .with_preserve_partitioning(true);
        return Ok(Some(Arc::new(LocalLimitExec::new(Arc::new(whole), rows))));
    }
    let hands_on = plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>();
    match plan.children().as_slice() {
        [input] if hands_on => match cut_later(input, keys)? {
            Some(input) => with_children(Arc::clone(plan), vec![input]).map(Some),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

fn with_children(node: Plan, children: Vec<Plan>) -> Result<Plan> {
    node.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
