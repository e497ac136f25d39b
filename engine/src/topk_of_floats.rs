//! Groups of which only the first few are asked for, where the keys or values are floats.
//!
//! DataFusion then keeps a heap of the best groups and finds a group by `==`, by which no NaN is
//! like another: they make many groups, and taking one out again ends in a panic
//! (`sql-tests/upstream/topk-of-nan.md`). A plan with such an aggregate keeps all its groups.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use crate::physical_rules::Rule;

/// The name of DataFusion's rule.
pub(crate) const TOP_K_AGGREGATION: &str = "LimitAggregation";

/// That rule, kept from aggregates of floats.
#[derive(Debug)]
pub(crate) struct NoTopKOfFloats(pub(crate) Rule);

impl PhysicalOptimizerRule for NoTopKOfFloats {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let groups_floats = |node: &Arc<dyn ExecutionPlan>| {
            Ok(node.is::<AggregateExec>() && node.schema().fields().iter().any(is_float))
        };
        match plan.exists(groups_floats)? {
            true => Ok(plan),
            false => self.0.optimize(plan, config),
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn is_float(field: &Arc<arrow::datatypes::Field>) -> bool {
    matches!(field.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64)
}
