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
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};

/// How the names of DataFusion's rules begin that push filters down, before and after the rest.
const FILTER_PUSHDOWN: &str = "FilterPushdown";

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's rules, with those that push filters down kept from losing their columns.
pub(crate) fn physical_rules() -> Vec<Rule> {
    let rules = PhysicalOptimizer::new().rules.into_iter();
    let routed = |rule: Rule| match rule.name().starts_with(FILTER_PUSHDOWN) {
        true => Arc::new(RoutedFilters(rule)) as Rule,
        false => rule,
    };
    rules.map(routed).collect()
}

#[derive(Debug)]
struct RoutedFilters(Rule);

impl PhysicalOptimizerRule for RoutedFilters {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(with_barriers).data()?;
        let plan = self.0.optimize(plan, config)?;
        plan.transform_up(|node| match node.downcast_ref::<Barrier>() {
            Some(barrier) => Ok(Transformed::yes(Arc::clone(&barrier.input))),
            None => Ok(Transformed::no(node)),
        })
        .data()
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
        Arc::new(Barrier { input: Arc::clone(child) })
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

/// Lets no filter through.
#[derive(Debug)]
struct Barrier {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Barrier {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Barrier")
    }
}

impl ExecutionPlan for Barrier {
    fn name(&self) -> &str {
        "Barrier"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self { input }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
