//! Sorts that scans make needless.
//!
//! DataFusion has a rule for that ([`PushdownSort`]), which does not know how many rows a sort is for, and puts a
//! buffer of up to a gigabyte where a sort was. This one asks the same question of scans
//! ([`ExecutionPlan::try_pushdown_sort`]) and then does this:
//!
//! - A sort of all rows goes away when the scan can merge its sorted segments instead.
//! - A sort for the first rows does when nothing has to be merged for them: the scan ends early. Else it
//!   stays, and the scan begins where the first rows are likely: its bound then rules out the rest
//!   before more than the key is read.
//!
//! And aggregates over the sort key get their groups one after the other, where the scan need not merge for it:
//! each chain of segments is a partition of its own then, and a group is handed on as soon as it is complete.
//!
//! [`PushdownSort`]: datafusion::physical_optimizer::pushdown_sort::PushdownSort

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, InputOrderMode, ReplaceChildrenOptions,
    SortOrderPushdownResult,
};

use crate::scan::SegmentScanExec;
use crate::session::FragmentOptions;

/// The rule of DataFusion in whose place this one is.
pub(crate) const PUSHDOWN_SORT: &str = "PushdownSort";

/// Partitions that a scan is cut into at most, so that none of them has to be merged.
const CHAINS_SIDE_BY_SIDE_MAX: usize = 64;

/// Rows of a scan below which all groups fit a small hash table anyway.
const STREAMED_ROWS_MIN: u64 = 262_144;

/// Columns of an aggregate's groups, at most, that are tried in different orders.
const GROUP_COLUMNS_MAX: usize = 4;

/// Lets scans sort.
#[derive(Debug)]
pub(crate) struct SortedScans;

impl PhysicalOptimizerRule for SortedScans {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !FragmentOptions::of(config).sorted_scans {
            return Ok(plan);
        }
        plan.transform_up(without_sort)?.data.transform_up(with_groups_in_order).data()
    }

    fn name(&self) -> &'static str {
        "sorted_scans"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

type Plan = Arc<dyn ExecutionPlan>;

fn without_sort(node: Plan) -> Result<Transformed<Plan>> {
    let Some(sort) = node.downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
    let input = match (sort.input().try_pushdown_sort(sort.expr())?, sort.fetch()) {
        (SortOrderPushdownResult::Exact { inner }, None) => return Ok(Transformed::yes(inner)),
        (SortOrderPushdownResult::Exact { inner }, Some(rows)) if merges_nothing(&inner)? => {
            let limited = inner.with_fetch(Some(rows));
            let limited = limited.unwrap_or_else(|| Arc::new(LocalLimitExec::new(inner, rows)));
            return Ok(Transformed::yes(limited));
        }
        (SortOrderPushdownResult::Exact { inner }, Some(_)) => Some(first_rows_first(inner)?),
        (SortOrderPushdownResult::Inexact { inner }, Some(_)) => Some(inner),
        _ => None,
    };
    let Some(input) = input else { return Ok(Transformed::no(node)) };
    let sort = SortExec::new(sort.expr().clone(), input)
        .with_fetch(sort.fetch())
        .with_preserve_partitioning(sort.preserve_partitioning());
    Ok(Transformed::yes(Arc::new(sort)))
}

/// Whether no partition of a scan below has more than one chain to merge.
fn merges_nothing(plan: &Plan) -> Result<bool> {
    let merges = |node: &Plan| {
        let scan = node.downcast_ref::<SegmentScanExec>();
        Ok(scan.and_then(SegmentScanExec::merged_chains).is_some_and(|chains| chains > 1))
    };
    Ok(!plan.exists(merges)?)
}

/// The plan over a scan that begins with the first rows of its order and merges nothing.
fn first_rows_first(plan: Plan) -> Result<Plan> {
    let unmerged = |node: Plan| {
        let scan = node.downcast_ref::<SegmentScanExec>();
        Ok(match scan.and_then(SegmentScanExec::first_rows_first) {
            Some(scan) => Transformed::yes(Arc::new(scan) as Plan),
            None => Transformed::no(node),
        })
    };
    plan.transform_up(unmerged).data()
}

/// An aggregate over a scan in the order of its groups.
fn with_groups_in_order(node: Plan) -> Result<Transformed<Plan>> {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else {
        return Ok(Transformed::no(node));
    };
    let keys = aggregate.group_expr();
    let is_first = *aggregate.mode() == AggregateMode::Partial;
    let is_hashed = matches!(aggregate.input_order_mode(), InputOrderMode::Linear);
    let is_plain = !keys.has_grouping_set() && keys.expr().len() <= GROUP_COLUMNS_MAX;
    if !is_first || !is_hashed || !is_plain {
        return Ok(Transformed::no(node));
    }
    let columns: Vec<_> = keys.expr().iter().map(|(column, _)| Arc::clone(column)).collect();
    let Some(input) = in_order_of_all(aggregate.input(), columns)? else {
        return Ok(Transformed::no(node));
    };
    let Some(input) = side_by_side(input)? else { return Ok(Transformed::no(node)) };
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Ok(Transformed::yes(node.replace_children(vec![input], options)?))
}

/// A plan in an order by exactly some columns, whichever of them comes first.
fn in_order_of_all(input: &Plan, mut columns: Vec<Arc<dyn PhysicalExpr>>) -> Result<Option<Plan>> {
    let (mut order, mut ordered) = (Vec::new(), None);
    while !columns.is_empty() {
        let mut next = None;
        for (at, column) in columns.iter().enumerate() {
            let options = SortOptions { descending: false, nulls_first: false };
            order.push(PhysicalSortExpr::new(Arc::clone(column), options));
            if let SortOrderPushdownResult::Exact { inner } = input.try_pushdown_sort(&order)? {
                next = Some((at, inner));
                break;
            }
            order.pop();
        }
        let Some((at, inner)) = next else { return Ok(None) };
        columns.remove(at);
        ordered = Some(inner);
    }
    Ok(ordered)
}

/// The plan over a scan whose chains are partitions of their own; `None` when it is not worth that.
fn side_by_side(plan: Plan) -> Result<Option<Plan>> {
    let mut is_found = false;
    let cut = |node: Plan| {
        let Some(scan) = node.downcast_ref::<SegmentScanExec>() else {
            return Ok(Transformed::no(node));
        };
        let is_large = scan.assigned_rows() >= STREAMED_ROWS_MIN;
        match scan.unmerged(CHAINS_SIDE_BY_SIDE_MAX).filter(|_| is_large) {
            Some(scan) => {
                is_found = true;
                Ok(Transformed::yes(Arc::new(scan) as Plan))
            }
            None => Ok(Transformed::no(node)),
        }
    };
    let plan = plan.transform_up(cut).data()?;
    Ok(is_found.then_some(plan))
}
