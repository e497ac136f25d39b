//! Semi joins with what is small and read once more: to make less of what is large, before it is grouped or moved.

use std::sync::Arc;

use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, Join, JoinConstraint, LogicalPlan, Projection, SubqueryAlias,
};

/// A key of a small relation, which has all of its values that matter.
pub(super) struct SmallSide<'a> {
    pub(super) plan: &'a LogicalPlan,
    pub(super) key: &'a Expr,
}

impl SmallSide<'_> {
    /// The rows of a plan whose key is one of the small side's; `number` is one that no other has in the plan.
    pub(super) fn semi_joined(
        &self,
        plan: Arc<LogicalPlan>,
        key: &Expr,
        number: usize,
    ) -> Result<LogicalPlan> {
        let keys = Projection::try_new(vec![self.key.clone()], Arc::new(self.plan.clone()))?;
        let name = format!("__reducer_{number}");
        let keys = SubqueryAlias::try_new(Arc::new(LogicalPlan::Projection(keys)), name)?;
        let keys = LogicalPlan::SubqueryAlias(keys);
        let other = Expr::Column(keys.schema().columns().swap_remove(0));
        let join = Join::try_new(
            plan,
            Arc::new(keys),
            vec![(key.clone(), other)],
            None,
            JoinType::LeftSemi,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?;
        Ok(LogicalPlan::Join(join))
    }
}

/// Whether reading a plan once more costs little: filters and columns of one table, the same each time.
pub(super) fn is_cheap(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => {
            scan.fetch.is_none() && !scan.filters.iter().any(Expr::is_volatile)
        }
        LogicalPlan::Filter(filter) => {
            !filter.predicate.is_volatile()
                && !has_subquery(&filter.predicate)
                && is_cheap(&filter.input)
        }
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
                && is_cheap(&projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => is_cheap(&alias.input),
        _ => false,
    }
}

fn has_subquery(expr: &Expr) -> bool {
    // What cannot be told is taken for one.
    super::cluster::has_subquery(expr).unwrap_or(true)
}
