//! Build sides that have fewer rows than probe sides.
//!
//! DataFusion makes that side of a join its build side that has fewer bytes, as far as it knows, and takes a semi or
//! anti join's bytes for those of its input before the join (DataFusion 55: `statistics=[Rows=60000, Bytes=95241920]`).
//! So TPC-H's q21 put four million lines into a hash table, to look some hundred thousand up in it.
//!
//! What a hash table costs are its rows first. Where one side is estimated to have clearly fewer, it is the one that is
//! built; the others stay as DataFusion has them.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use crate::session::FragmentOptions;

/// A build side with more than so many times the rows of the probe side changes places with it.
const CLEARLY_MORE: f64 = 2.0;

/// Swaps the sides of joins of partitions whose build side is clearly the larger one.
#[derive(Debug)]
pub(crate) struct SmallerBuilds;

impl PhysicalOptimizerRule for SmallerBuilds {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !config.optimizer.join_reordering || !FragmentOptions::of(config).smaller_builds {
            return Ok(plan);
        }
        plan.transform_up(|node| match node.downcast_ref::<HashJoinExec>() {
            Some(join) if is_swapped(join) => {
                join.swap_inputs(PartitionMode::Partitioned).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "smaller_builds"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Statistics are hints: where they cannot be had, a join stays as it is.
fn is_swapped(join: &HashJoinExec) -> bool {
    if *join.partition_mode() != PartitionMode::Partitioned
        || join.null_aware
        || !join.join_type().supports_swap()
    {
        return false;
    }
    let rows = |side: &Arc<dyn ExecutionPlan>| {
        let known = StatisticsContext::new().compute(side.as_ref(), &StatisticsArgs::new()).ok()?;
        known.num_rows.get_value().map(|rows| *rows as f64)
    };
    let (Some(build), Some(probe)) = (rows(join.left()), rows(join.right())) else {
        return false;
    };
    build > CLEARLY_MORE * probe
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::stats::Precision;
    use datafusion::common::tree_node::TreeNodeRecursion;
    use datafusion::common::{ColumnStatistics, JoinType, NullEquality, Statistics};
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::test::exec::StatisticsExec;

    use super::*;

    fn side(rows: usize, bytes: usize) -> Arc<dyn ExecutionPlan> {
        let statistics = Statistics {
            num_rows: Precision::Inexact(rows),
            total_byte_size: Precision::Inexact(bytes),
            column_statistics: vec![ColumnStatistics::new_unknown()],
        };
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, false)]);
        Arc::new(StatisticsExec::new(statistics, schema))
    }

    /// The type of a join of so many rows with so many, and the rows of its build side, behind the rule.
    fn built(kind: JoinType, left: usize, right: usize) -> (JoinType, usize) {
        let (left, right) = (side(left, 8), side(right, 1 << 30));
        let on = vec![(col("k", &left.schema()).unwrap(), col("k", &right.schema()).unwrap())];
        let mode = PartitionMode::Partitioned;
        let equality = NullEquality::NullEqualsNothing;
        let join = HashJoinExec::try_new(left, right, on, None, &kind, None, mode, equality, false);
        let plan = SmallerBuilds.optimize(Arc::new(join.unwrap()), &ConfigOptions::default());
        let mut found = None;
        plan.unwrap()
            .apply(|node| {
                if let Some(join) = node.downcast_ref::<HashJoinExec>() {
                    let statistics = StatisticsContext::new()
                        .compute(join.left().as_ref(), &StatisticsArgs::new())?;
                    found = statistics.num_rows.get_value().map(|rows| (*join.join_type(), *rows));
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .unwrap();
        found.unwrap()
    }

    #[test]
    fn the_side_of_clearly_fewer_rows_is_built_whatever_its_bytes() {
        assert_eq!(built(JoinType::RightAnti, 1_000, 100), (JoinType::LeftAnti, 100));
        assert_eq!(built(JoinType::Inner, 1_000, 100), (JoinType::Inner, 100));
        assert_eq!(built(JoinType::Left, 1_000, 100), (JoinType::Right, 100));
        assert_eq!(built(JoinType::RightAnti, 150, 100), (JoinType::RightAnti, 150));
        assert_eq!(built(JoinType::LeftSemi, 100, 1_000), (JoinType::LeftSemi, 100));
    }
}
