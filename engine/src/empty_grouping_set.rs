//! `GROUP BY GROUPING SETS (())`: one group of all rows, which is what no GROUP BY means.
//!
//! DataFusion keeps a grouping set without keys, and its encoding for workers has no place for one.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;

/// Takes a lone empty grouping set away.
#[derive(Debug, Default)]
pub(crate) struct EmptyGroupingSet;

impl AnalyzerRule for EmptyGroupingSet {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Aggregate(aggregate) if is_one_empty_set(&aggregate.group_expr) => {
                let mut functions = aggregate.aggr_expr;
                if functions.is_empty() {
                    // Nothing would be left; and there is one row all the same.
                    functions.push(count(lit(1)));
                }
                let aggregate =
                    Aggregate::try_new(Arc::clone(&aggregate.input), vec![], functions)?;
                Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "empty_grouping_set"
    }
}

fn is_one_empty_set(keys: &[Expr]) -> bool {
    match keys {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => {
            sets.len() == 1 && sets.iter().all(Vec::is_empty)
        }
        _ => false,
    }
}
