//! Keys of aggregates, not taken for keys of everything above them.
//!
//! `SELECT k, max(x) FROM m GROUP BY k` has each `k` once. Joined to another table it may have it many
//! times, and DataFusion knows; but an aggregate over that join by `k` and a column of the other table says
//! again that `k` determines all columns (`aggregate_functional_dependencies`;
//! `sql-tests/upstream/keys-of-aggregates.md`). The rules that believe it drop ORDER BY keys, GROUP BY keys and
//! DISTINCT, and make semi joins of joins; and the planner of SQL groups by all columns of a subquery
//! where its key is one to group by. So where there is such an aggregate, they see plans that know of no
//! keys.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, FunctionalDependencies, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::sql::sqlparser::ast::{Ident, TableAlias, TableFactor};

use crate::logical_rules::LogicalRule;

/// The names of DataFusion's rules that look at dependencies.
const BELIEVERS: [&str; 4] = [
    "eliminate_duplicated_expr",
    "eliminate_join",
    "optimize_projections",
    "replace_distinct_aggregate",
];

/// Hides from these rules what is not so.
pub(crate) fn hide_wrong_dependencies(rules: &mut Vec<LogicalRule>) {
    let hidden = rules.drain(..).flat_map(|rule| {
        let before: Option<LogicalRule> = match BELIEVERS.contains(&rule.name()) {
            true => Some(Arc::new(HideWrongDependencies)),
            false => None,
        };
        before.into_iter().chain([rule])
    });
    *rules = hidden.collect();
}

/// Makes plans that know of no keys. All of a plan at once: a node keeps what it says when those below
/// say something else.
#[derive(Debug)]
struct HideWrongDependencies;

impl OptimizerRule for HideWrongDependencies {
    fn name(&self) -> &'static str {
        "hide_wrong_dependencies"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let plan = if has_distinct_join(&plan)? { without_distinct(plan)? } else { plan };
        let plan = if has_wrong(&plan)? { without_dependencies(plan)? } else { plan };
        // The rows are the same, and so is all that the other rules look at.
        Ok(Transformed::no(plan))
    }
}

/// Whether a DISTINCT stands above a join. The rule that makes an aggregate of it goes from the bottom
/// to the top, and what it makes below says to it what is not so above.
fn has_distinct_join(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Distinct(Distinct::All(input)) = node {
            found |= input.exists(|below| Ok(matches!(below, LogicalPlan::Join(_))))?;
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Each DISTINCT as an aggregate.
fn without_distinct(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Distinct(Distinct::All(input)) if !input.schema().fields().is_empty() => {
            let keys = input.schema().columns().into_iter().map(Expr::Column).collect();
            let aggregate = Aggregate::try_new(input, keys, vec![])?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// Plans tables of FROM, which are subqueries, views and WITH too, without dependencies that are none.
#[derive(Debug)]
pub(crate) struct PlainRelations;

/// The alias of a table that is being planned; no statement's own is called so.
const PLANNED: &str = "\u{2}planned";

impl RelationPlanner for PlainRelations {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (TableFactor::Derived { alias, .. } | TableFactor::Table { alias, args: None, .. }) =
            &relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        // One without a name could have two columns of one name, which an alias would change.
        let is_original = match alias {
            Some(alias) => alias.name.value == PLANNED,
            None => matches!(relation, TableFactor::Derived { .. }),
        };
        if is_original {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let name = Ident::with_quote('"', PLANNED);
        let marked = TableAlias { explicit: true, name, columns: vec![], at: None };
        let alias = match &mut relation {
            TableFactor::Derived { alias, .. } | TableFactor::Table { alias, .. } => {
                alias.replace(marked)
            }
            _ => None,
        };
        let plan = match context.plan(relation)? {
            LogicalPlan::SubqueryAlias(planned) => Arc::unwrap_or_clone(planned.input),
            other => return internal_err!("a table was planned as {}", other.display()),
        };
        let plan = if has_wrong(&plan)? { without_dependencies(plan)? } else { plan };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// Whether an aggregate over a join says that a part of its keys determines the rest. Plans keep what
/// was said of them when their inputs change, so it is the aggregate's word that counts.
fn has_wrong(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            let keys = aggregate.group_expr.len();
            let mut known = aggregate.schema.functional_dependencies().iter();
            found |= known.any(|dependency| dependency.source_indices.len() < keys)
                && aggregate.input.exists(|below| Ok(matches!(below, LogicalPlan::Join(_))))?;
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn without_dependencies(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|mut node| {
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
