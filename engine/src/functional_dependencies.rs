//! Keys of aggregates, not taken for keys of everything above them.
//!
//! `SELECT k, max(x) FROM m GROUP BY k` has each `k` once. Joined to another table it may have it many
//! times, and DataFusion knows; but an aggregate over that join by `k` and a column of the other table says
//! again that `k` determines all columns (`aggregate_functional_dependencies`;
//! `sql-tests/upstream/keys-of-aggregates.md`). The rules that believe it drop ORDER BY keys, GROUP BY keys and
//! DISTINCT, and make semi joins of joins. So where there is such an aggregate, they see plans that know
//! of no keys.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchemaRef, FunctionalDependencies};
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::logical_rules::LogicalRule;

/// The names of DataFusion's rules that look at dependencies.
const BELIEVERS: [&str; 4] = [
    "eliminate_duplicated_expr",
    "eliminate_join",
    "optimize_projections",
    "replace_distinct_aggregate",
];

/// Hides from these rules what is not so.
pub(crate) fn hide_wrong_dependencies(rules: &mut [LogicalRule]) {
    for rule in rules {
        if BELIEVERS.contains(&rule.name()) {
            *rule = Arc::new(WithoutWrongDependencies(Arc::clone(rule)));
        }
    }
}

/// One of these rules.
#[derive(Debug)]
struct WithoutWrongDependencies(LogicalRule);

impl OptimizerRule for WithoutWrongDependencies {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        // A rule that is called for each node looks at what is right below.
        let may_look = self.0.apply_order().is_none()
            || matches!(
                plan,
                LogicalPlan::Sort(_)
                    | LogicalPlan::Join(_)
                    | LogicalPlan::Aggregate(_)
                    | LogicalPlan::Distinct(_)
            ) && plan.inputs().iter().any(|input| has_dependencies(input));
        let plan = if may_look && has_wrong(&plan)? { without_dependencies(plan)? } else { plan };
        self.0.rewrite(plan, config)
    }
}

fn has_dependencies(plan: &LogicalPlan) -> bool {
    !plan.schema().functional_dependencies().is_empty()
}

/// Whether an aggregate may have a dependency that is none: its input has one, of one side of a join.
fn has_wrong(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| match node {
        LogicalPlan::Aggregate(aggregate) if has_dependencies(&aggregate.input) => {
            aggregate.input.exists(|below| Ok(matches!(below, LogicalPlan::Join(_))))
        }
        _ => Ok(false),
    })
}

fn without_dependencies(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|mut node| {
        let schema = match &mut node {
            LogicalPlan::Projection(node) => &mut node.schema,
            LogicalPlan::Aggregate(node) => &mut node.schema,
            LogicalPlan::Join(node) => &mut node.schema,
            LogicalPlan::SubqueryAlias(node) => &mut node.schema,
            LogicalPlan::Window(node) => &mut node.schema,
            LogicalPlan::Union(node) => &mut node.schema,
            LogicalPlan::Unnest(node) => &mut node.schema,
            LogicalPlan::Distinct(Distinct::On(node)) => &mut node.schema,
            _ => return Ok(Transformed::no(node)),
        };
        if schema.functional_dependencies().is_empty() {
            return Ok(Transformed::no(node));
        }
        *schema = independent(schema)?;
        Ok(Transformed::yes(node))
    })
    .data()
}

fn independent(schema: &DFSchemaRef) -> Result<DFSchemaRef> {
    let schema = schema.as_ref().clone();
    Ok(Arc::new(schema.with_functional_dependencies(FunctionalDependencies::empty())?))
}
