//! Sorts where a plan needs an order and shows none.
//!
//! A sort of what is constant is dropped, and where it was is forgotten what is constant: a join
//! forgets it of its right side, a union of expressions that it does not compare. DataFusion's last
//! rule then refuses the plan, which is right (`ORDER BY c` above `JOIN (SELECT 1 AS c FROM t)`).
//! So whatever that rule would refuse for its order is sorted once more.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};

/// The rule that refuses plans without the order they need.
pub(crate) const REQUIRED_BEFORE: &str = "SanityCheckPlan";

/// Adds the sorts.
#[derive(Debug)]
pub(crate) struct RequiredOrders;

impl PhysicalOptimizerRule for RequiredOrders {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(with_sorted_inputs).data()
    }

    fn name(&self) -> &'static str {
        "required_orders"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn with_sorted_inputs(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let mut is_changed = false;
    let mut children = Vec::new();
    for (child, required) in node.children().into_iter().zip(node.required_input_ordering()) {
        let mut child = Arc::clone(child);
        if let Some(required) = required {
            let required = required.into_single();
            let known = child.equivalence_properties();
            if !known.ordering_satisfy_requirement(required.clone())? {
                let is_partitioned = child.output_partitioning().partition_count() > 1;
                // The first rows of all are among the first rows of each.
                let fetch = node.fetch().filter(|_| node.is::<SortPreservingMergeExec>());
                let sort = SortExec::new(LexOrdering::from(required), child).with_fetch(fetch);
                child = Arc::new(sort.with_preserve_partitioning(is_partitioned));
                is_changed = true;
            }
        }
        children.push(child);
    }
    if !is_changed {
        return Ok(Transformed::no(node));
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Ok(Transformed::yes(node.replace_children(children, options)?))
}
