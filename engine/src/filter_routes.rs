//! Filters that find their column: pushing filters down a plan, where columns share a name.
//!
//! DataFusion hands a filter from node to node by the *names* of its columns, and takes the first
//! column of a name. Below a join there may be several: in `o JOIN n JOIN m JOIN p ON p.k = n.k`,
//! the values of `p.k` that the last join has seen filter `o.k`, and rows are lost. A semi join
//! hands filters on its key to the other side as well, to whatever has the key's name there.
//!
//! So while filters are pushed down, a node that lets none through stands where a name does not say
//! which column is meant. Filters that start below it are pushed as ever.
//!
//! Invariant: the plan has no such node afterwards; what is lost is pruning, never a row.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use crate::pass_through::PassThrough;
use crate::physical_rules::Rule;

/// How the names of DataFusion's rules begin that push filters down, before and after the rest.
pub(crate) const FILTER_PUSHDOWN: &str = "FilterPushdown";
/// The node that lets no filter through.
const BARRIER: &str = "Barrier";

/// A rule that pushes filters down, kept from losing their columns.
#[derive(Debug)]
pub(crate) struct RoutedFilters(pub(crate) Rule);

impl PhysicalOptimizerRule for RoutedFilters {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(with_barriers).data()?;
        let plan = self.0.optimize(plan, config)?;
        PassThrough::removed(BARRIER, plan)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn with_barriers(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let mut is_changed = false;
    let behind_barrier = |(index, child): (usize, &Arc<dyn ExecutionPlan>)| {
        if is_clear(&node, index, child) {
            return Arc::clone(child);
        }
        is_changed = true;
        Arc::new(PassThrough::new(BARRIER, Arc::clone(child)))
    };
    let children: Vec<_> = node.children().into_iter().enumerate().map(behind_barrier).collect();
    match is_changed {
        true => {
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            Ok(Transformed::yes(node.replace_children(children, options)?))
        }
        false => Ok(Transformed::no(node)),
    }
}

/// Whether a column's name says which column of a child is meant.
fn is_clear(node: &Arc<dyn ExecutionPlan>, index: usize, child: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = child.schema();
    let mut names = HashSet::new();
    if !schema.fields().iter().all(|field| names.insert(field.name())) {
        return false;
    }
    if node.is::<UnionExec>() {
        let union = node.schema();
        return union.fields().iter().zip(schema.fields()).all(|(a, b)| a.name() == b.name());
    }
    match node.downcast_ref::<HashJoinExec>() {
        Some(join) => is_clear_key(join, index, &schema),
        None => true,
    }
}

/// Whether what has the name of a semi join's key on the side that is not its output is the key
/// there.
fn is_clear_key(join: &HashJoinExec, index: usize, schema: &Schema) -> bool {
    let other_side = match join.join_type() {
        JoinType::LeftSemi => 1,
        JoinType::RightSemi => 0,
        _ => return true,
    };
    join.on().iter().filter(|_| index == other_side).all(|(left, right)| {
        let (output, other) = if other_side == 1 { (left, right) } else { (right, left) };
        let Some(output) = output.downcast_ref::<Column>() else { return true };
        let found = schema.index_of(output.name()).ok();
        let key = other.downcast_ref::<Column>().map(Column::index);
        found.is_none() || found == key
    })
}
