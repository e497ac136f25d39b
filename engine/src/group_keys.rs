//! GROUP BY keys that can be told apart by their names.
//!
//! DataFusion names `CAST(t.a AS VARCHAR)` like `t.a`. Where both are keys, what it makes of them
//! later has two columns of one name, and it refuses its own plan or no longer finds the column
//! (`sql-tests/upstream/names-of-group-keys.md`). So a key that is computed and has the name of another
//! is computed below the aggregate, under a name of its own. So is every computed key of GROUPING SETS:
//! type coercion may name it anew there (`d + 1` of a date becomes the sum of a date and an
//! interval), and what stands above would not find it.
//!
//! ```text
//! Projection: t.a, "t.a"                    Projection: t.a, __group_key_1 AS "t.a"
//!   Filter: "t.a" > 'x'                       Filter: __group_key_1 > 'x'
//!     Aggregate: t.a, CAST(t.a AS ..)           Aggregate: t.a, __group_key_1
//!       ...                                       Projection: t.*, CAST(t.a AS ..) AS __group_key_1
//!                                                   ...
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

/// Gives keys names of their own.
#[derive(Debug, Default)]
pub(crate) struct GroupKeys;

impl AnalyzerRule for GroupKeys {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Projection(projection) = &plan else {
                return Ok(Transformed::no(plan));
            };
            match with_named_keys(&projection.input)? {
                Some((input, renamed)) => Ok(Transformed::yes(above(&plan, input, &renamed)?)),
                None => Ok(Transformed::no(plan)),
            }
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "group_keys"
    }
}

/// The columns of an aggregate that have other names now.
type Renamed = HashMap<Column, Column>;

/// An aggregate, and what stands between it and a projection, with other names for its keys.
fn with_named_keys(plan: &LogicalPlan) -> Result<Option<(LogicalPlan, Renamed)>> {
    let input = match plan {
        LogicalPlan::Aggregate(aggregate) => return named_keys(aggregate),
        LogicalPlan::Filter(filter) => &filter.input,
        LogicalPlan::Sort(sort) => &sort.input,
        LogicalPlan::Window(window) => &window.input,
        _ => return Ok(None),
    };
    let Some((input, renamed)) = with_named_keys(input)? else { return Ok(None) };
    Ok(Some((above(plan, input, &renamed)?, renamed)))
}

/// A node above a new input. Its own columns keep their names.
fn above(plan: &LogicalPlan, input: LogicalPlan, renamed: &Renamed) -> Result<LogicalPlan> {
    let makes_columns = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Window(_));
    let names = NamePreserver::new(plan);
    let rewritten = plan.expressions().into_iter().map(|expr| {
        let name = makes_columns.then(|| names.save(&expr));
        let expr = replace(expr, |expr| match expr {
            Expr::Column(column) => renamed.get(column),
            _ => None,
        })?;
        Ok(match name {
            Some(name) => name.restore(expr),
            None => expr,
        })
    });
    plan.with_new_exprs(rewritten.collect::<Result<_>>()?, vec![input])
}

/// An aggregate whose computed keys have names of their own, if any has the name of another key.
fn named_keys(aggregate: &Aggregate) -> Result<Option<(LogicalPlan, Renamed)>> {
    let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let named: Vec<_> = keys.iter().map(|key| key.schema_name().to_string()).collect();
    let is_shared = |name: &String| named.iter().filter(|other| *other == name).count() > 1;
    let of_sets = aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_)));
    let mut computed: HashMap<Expr, Column> = HashMap::new();
    let mut renamed = Renamed::new();
    for (position, (key, name)) in keys.iter().zip(&named).enumerate() {
        if (of_sets || is_shared(name)) && !matches!(key, Expr::Column(_)) {
            let own = free_name(&aggregate.input, position);
            let (relation, name) = key.qualified_name();
            renamed.insert(Column::new(relation, name), own.clone());
            computed.insert((*key).clone(), own);
        }
    }
    // Two computed keys of one name and relation: which of them a column means, nobody knows.
    if computed.is_empty() || renamed.len() < computed.len() {
        return Ok(None);
    }
    let columns = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let own = computed.iter().map(|(key, own)| key.clone().alias(own.name()));
    let input = LogicalPlanBuilder::from(Arc::clone(&aggregate.input));
    let input = input.project(columns.chain(own))?.build()?;
    let own_key = |expr: &Expr| computed.get(expr);
    let keys = aggregate.group_expr.iter().map(|key| replace(key.clone(), own_key));
    let functions = aggregate.aggr_expr.iter().map(|function| match is_grouping(function) {
        // It asks about a key; the others compute with what they find in it.
        true => {
            let (relation, name) = function.qualified_name();
            Ok(replace(function.clone(), own_key)?.alias_qualified(relation, name))
        }
        false => Ok(function.clone()),
    });
    let (keys, functions) = (keys.collect::<Result<_>>()?, functions.collect::<Result<_>>()?);
    let aggregate = Aggregate::try_new(Arc::new(input), keys, functions)?;
    Ok(Some((LogicalPlan::Aggregate(aggregate), renamed)))
}

/// A name that no column of the input has.
fn free_name(input: &LogicalPlan, position: usize) -> Column {
    let mut name = format!("__group_key_{position}");
    while input.schema().fields().iter().any(|field| *field.name() == name) {
        name.push('_');
    }
    Column::new_unqualified(name)
}

/// Whether an expression is `grouping(...)`.
fn is_grouping(expr: &Expr) -> bool {
    matches!(expr, Expr::AggregateFunction(function) if function.func.name() == "grouping")
}

/// An expression with columns in the place of some of its parts.
fn replace<'a>(expr: Expr, by: impl Fn(&Expr) -> Option<&'a Column>) -> Result<Expr> {
    expr.transform_down(|expr| match by(&expr) {
        Some(column) => {
            Ok(Transformed::new(Expr::Column(column.clone()), true, TreeNodeRecursion::Jump))
        }
        None => Ok(Transformed::no(expr)),
    })
    .data()
}
