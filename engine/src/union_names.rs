//! UNION whose branches all name their columns as the whole does.
//!
//! A UNION has the names of its first branch. Where all branches but one are found to be empty,
//! DataFusion puts the columns of that one in the place of the UNION's *by name*: `SELECT a, b FROM t
//! WHERE false UNION ALL SELECT DISTINCT b, a FROM t` gives `a` and `b` where `b` and `a` were asked
//! for, and other names are an error (`sql-tests/upstream/names-of-unions.md`). So branches with other
//! names get a projection that gives them those of the whole, by position.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Union};
use datafusion::optimizer::AnalyzerRule;

/// Names the columns of branches.
#[derive(Debug, Default)]
pub(crate) struct UnionNames;

impl AnalyzerRule for UnionNames {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Union(union) if union.inputs.iter().any(|i| is_other(i, &union)) => {
                Ok(Transformed::yes(LogicalPlan::Union(with_names(union)?)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "union_names"
    }
}

/// Whether a branch has other names than the whole.
fn is_other(branch: &LogicalPlan, union: &Union) -> bool {
    let (own, whole) = (branch.schema().fields(), union.schema.fields());
    own.iter().zip(whole).any(|(own, whole)| own.name() != whole.name())
}

fn with_names(union: Union) -> Result<Union> {
    let inputs = union.inputs.iter().map(|branch| {
        if !is_other(branch, &union) {
            return Ok(Arc::clone(branch));
        }
        let columns = branch.schema().iter().zip(union.schema.fields());
        let columns =
            columns.map(|(column, named)| Expr::Column(Column::from(column)).alias(named.name()));
        let branch = LogicalPlanBuilder::from(Arc::clone(branch)).project(columns)?;
        Ok(Arc::new(branch.build()?))
    });
    Ok(Union { inputs: inputs.collect::<Result<_>>()?, schema: union.schema.clone() })
}
