//! Partition keys of windows whose order a worker can see.
//!
//! A window over sorted input needs an order of its PARTITION BY keys. The planner has reasons
//! that do not travel: a filter, a join or a projection, perhaps in the stage below, has made a
//! key constant (`PARTITION BY k` below `WHERE k = 1`), or equal to the column that is sorted. A
//! worker that gets the sort and the window alone finds no order and fails.
//!
//! So a key that is constant becomes a literal, and a key that is equal to a sorted expression
//! becomes that expression. Either way rows of one partition stay rows of one partition.

use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::window::SlidingAggregateWindowExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{
    BoundedWindowAggExec, PlainAggregateWindowExpr, StandardWindowExpr, WindowAggExec, WindowExpr,
};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::scalar::ScalarValue;

/// The plan with windows that no longer need what only the planner knows.
pub(super) fn with_visible_keys(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let new = if let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() {
            visible(window.window_expr(), window.input())?
                .map(|expressions| {
                    BoundedWindowAggExec::try_new(
                        expressions,
                        Arc::clone(window.input()),
                        window.input_order_mode.clone(),
                        !window.partition_keys().is_empty(),
                    )
                    .map(|window| Arc::new(window) as Arc<dyn ExecutionPlan>)
                })
                .transpose()?
        } else if let Some(window) = node.downcast_ref::<WindowAggExec>() {
            visible(window.window_expr(), window.input())?
                .map(|expressions| {
                    WindowAggExec::try_new(
                        expressions,
                        Arc::clone(window.input()),
                        !window.partition_keys().is_empty(),
                    )
                    .map(|window| Arc::new(window) as Arc<dyn ExecutionPlan>)
                })
                .transpose()?
        } else {
            None
        };
        Ok(new.map_or_else(|| Transformed::no(node), Transformed::yes))
    })
    .data()
}

/// The functions of a window with other keys; none if all of them can stay.
fn visible(
    functions: &[Arc<dyn WindowExpr>],
    input: &Arc<dyn ExecutionPlan>,
) -> Result<Option<Vec<Arc<dyn WindowExpr>>>> {
    let known = input.equivalence_properties();
    let sorted = sort_of(input);
    let Some(first) = functions.first() else { return Ok(None) };
    // All functions of a node have the same keys.
    let replaced: Vec<_> = first
        .partition_by()
        .iter()
        .map(|key| visible_key(key, known, &sorted))
        .collect::<Result<_>>()?;
    if replaced.iter().all(Option::is_none) {
        return Ok(None);
    }
    let with_keys = |function: &Arc<dyn WindowExpr>| {
        let keys = function.partition_by().iter().zip(&replaced);
        let keys = keys.map(|(key, new)| Arc::clone(new.as_ref().unwrap_or(key)));
        with_partition_by(function, &keys.collect::<Vec<_>>())
    };
    functions.iter().map(with_keys).collect::<Result<_>>().map(Some)
}

/// What stands for a key, if it cannot stay.
fn visible_key(
    key: &Arc<dyn PhysicalExpr>,
    known: &EquivalenceProperties,
    sorted: &[PhysicalSortExpr],
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    if key.is::<Literal>() {
        return Ok(None);
    }
    if known.is_expr_constant(key).is_some() {
        let value = ScalarValue::try_from(&key.data_type(known.schema())?)?;
        return Ok(Some(Arc::new(Literal::new(value))));
    }
    let is_sorted =
        |expression: &Arc<dyn PhysicalExpr>| sorted.iter().any(|sorted| sorted.expr.eq(expression));
    if is_sorted(key) {
        return Ok(None);
    }
    let equal = known.eq_group().get_equivalence_class(key);
    Ok(equal.and_then(|class| class.iter().find(|other| is_sorted(other))).cloned())
}

/// What a node's rows are sorted by, in the words of the sort itself: what the planner says of
/// their order names one of several equal expressions, not always the sorted one. Nothing where
/// there is no sort, or one whose columns are others here.
fn sort_of(node: &Arc<dyn ExecutionPlan>) -> Vec<PhysicalSortExpr> {
    if let Some(sort) = node.downcast_ref::<SortExec>() {
        return sort.expr().to_vec();
    }
    if let Some(merge) = node.downcast_ref::<SortPreservingMergeExec>() {
        return merge.expr().to_vec();
    }
    // Windows add columns behind those of their input.
    let is_window = node.is::<BoundedWindowAggExec>() || node.is::<WindowAggExec>();
    match node.children().first() {
        Some(input) if is_window => sort_of(input),
        _ => vec![],
    }
}

/// A window function with other keys. It has no FILTER: those are gone (`portable_windows`).
fn with_partition_by(
    function: &Arc<dyn WindowExpr>,
    keys: &[Arc<dyn PhysicalExpr>],
) -> Result<Arc<dyn WindowExpr>> {
    let order = function.order_by();
    let frame = Arc::clone(function.get_window_frame());
    let any = function.as_any();
    if let Some(plain) = any.downcast_ref::<PlainAggregateWindowExpr>() {
        let aggregate = Arc::new(plain.get_aggregate_expr().clone());
        Ok(Arc::new(PlainAggregateWindowExpr::new(aggregate, keys, order, frame, None)))
    } else if let Some(sliding) = any.downcast_ref::<SlidingAggregateWindowExpr>() {
        let aggregate = Arc::new(sliding.get_aggregate_expr().clone());
        Ok(Arc::new(SlidingAggregateWindowExpr::new(aggregate, keys, order, frame, None)))
    } else if let Some(standard) = any.downcast_ref::<StandardWindowExpr>() {
        let inner = Arc::clone(standard.get_standard_func_expr());
        Ok(Arc::new(StandardWindowExpr::new(inner, keys, order, frame)))
    } else {
        internal_err!("a window function of an unknown kind: {}", function.name())
    }
}
