//! `count(DISTINCT a), sum(x)` in two steps, without an error for a sum of the first.
//!
//! DataFusion groups by `a` first and sums the sums of these groups. The result may fit where one
//! of them does not, so they are decimals here, and the last step casts back.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::sum::{DIGITS_OF_64_BITS, WIDE_STATE_DIGITS};

/// The name of DataFusion's rule.
pub(super) const TWO_STEPS: &str = "single_distinct_aggregation_to_group_by";

/// DataFusion's rule over sums that cannot overflow in between.
#[derive(Debug)]
pub(super) struct WideFirstStep(pub(super) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for WideFirstStep {
    fn name(&self) -> &str {
        TWO_STEPS
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let Some(widened) = widen(aggregate)? else { return Ok(Transformed::no(plan)) };
        let steps = self.0.rewrite(LogicalPlan::Aggregate(widened), config)?;
        if !steps.transformed {
            return Ok(Transformed::no(plan));
        }
        let columns = plan.schema().iter().zip(steps.data.schema().columns());
        let columns = columns.map(|((qualifier, field), column)| {
            let column = Expr::Column(column);
            let column = match column.get_type(steps.data.schema())? == *field.data_type() {
                true => column,
                false => cast(column, field.data_type().clone()),
            };
            Ok(column.alias_qualified(qualifier.cloned(), field.name()))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlanBuilder::from(steps.data).project(columns)?.build()?;
        Ok(Transformed::yes(plan))
    }
}

/// The aggregation with sums of decimals instead of integers; `None` if it should stay one step:
/// without DISTINCT, or with a sum for which there is no wider type.
fn widen(aggregate: &Aggregate) -> Result<Option<Aggregate>> {
    let is_distinct = |expr: &Expr| match expr {
        Expr::AggregateFunction(function) => function.params.distinct,
        _ => false,
    };
    if !aggregate.aggr_expr.iter().any(is_distinct) {
        return Ok(None);
    }
    let mut exprs = aggregate.aggr_expr.clone();
    for expr in &mut exprs {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { continue };
        let ([argument], "sum", false) = (params.args.as_mut_slice(), func.name(), params.distinct)
        else {
            continue;
        };
        match argument.get_type(aggregate.input.schema())? {
            DataType::Int64 | DataType::UInt64 => {
                let wide = DataType::Decimal128(DIGITS_OF_64_BITS, 0);
                *argument = cast(std::mem::take(argument), wide);
            }
            DataType::Decimal128(precision, _) if precision > WIDE_STATE_DIGITS => return Ok(None),
            _ => {}
        }
    }
    let groups = aggregate.group_expr.clone();
    Aggregate::try_new(Arc::clone(&aggregate.input), groups, exprs).map(Some)
}
