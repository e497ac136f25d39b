//! Partition keys of windows whose order a worker can see.
//!
//! A window over sorted input needs an order of its PARTITION BY keys. The planner has reasons
//! that do not travel: a filter, a join or a projection, perhaps in the stage below, has made a
//! key constant (`PARTITION BY k` below `WHERE k = 1`), or equal to the column that is sorted. A
//! worker that gets the sort and the window alone finds no order and fails.
//!
//! So a key that is constant becomes a literal, and a key that is equal to a sorted expression
//! becomes that expression. Either way rows of one partition stay rows of one partition. Where that
//! is not enough (behind a column that is sorted before the keys and constant), the input is sorted
//! once more, in the order that it has.

use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::window::SlidingAggregateWindowExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{
    BoundedWindowAggExec, PlainAggregateWindowExpr, StandardWindowExpr, WindowAggExec, WindowExpr,
};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::scalar::ScalarValue;

/// Gives windows the keys, before a plan is cut: what an operator that hands rows to others knows
/// of them is not what the planner knew.
#[derive(Debug)]
pub(crate) struct VisibleWindowKeys;

impl PhysicalOptimizerRule for VisibleWindowKeys {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        with_visible_keys(plan)
    }

    fn name(&self) -> &'static str {
        "visible_window_keys"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan with windows that no longer need what only the planner knows.
fn with_visible_keys(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let new = if let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() {
            visible(window.window_expr(), window.input())?
                .map(|(functions, input)| {
                    BoundedWindowAggExec::try_new(
                        functions,
                        input,
                        window.input_order_mode.clone(),
                        !window.partition_keys().is_empty(),
                    )
                    .map(|window| Arc::new(window) as Arc<dyn ExecutionPlan>)
                })
                .transpose()?
        } else if let Some(window) = node.downcast_ref::<WindowAggExec>() {
            visible(window.window_expr(), window.input())?
                .map(|(functions, input)| {
                    WindowAggExec::try_new(functions, input, !window.partition_keys().is_empty())
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

type Functions = Vec<Arc<dyn WindowExpr>>;

/// The functions and the input of a window in other words; none if they can stay.
fn visible(
    functions: &[Arc<dyn WindowExpr>],
    original: &Arc<dyn ExecutionPlan>,
) -> Result<Option<(Functions, Arc<dyn ExecutionPlan>)>> {
    let known = original.equivalence_properties();
    let Some(first) = functions.first() else { return Ok(None) };
    let keys = first.partition_by();
    let mut input = Arc::clone(original);
    let mut new = visible_keys(keys, known, &sort_of(&input))?;
    if !are_sorted(&new, &sort_of(&input))
        && let Some(order) = known.output_ordering()
    {
        let again = visible_keys(keys, known, &order)?;
        if are_sorted(&again, &order) {
            new = again;
            input = Arc::new(SortExec::new(order, input).with_preserve_partitioning(true));
        }
    }
    if Arc::ptr_eq(&input, original)
        && keys.iter().zip(&new).all(|(key, new)| Arc::ptr_eq(key, new))
    {
        return Ok(None);
    }
    // All functions of a node have the same keys.
    let functions = functions.iter().map(|function| with_partition_by(function, &new));
    Ok(Some((functions.collect::<Result<_>>()?, input)))
}

/// What stands for each key, the key itself where it can stay.
fn visible_keys(
    keys: &[Arc<dyn PhysicalExpr>],
    known: &EquivalenceProperties,
    sorted: &[PhysicalSortExpr],
) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let visible = |key| Ok(visible_key(key, known, sorted)?.unwrap_or_else(|| Arc::clone(key)));
    keys.iter().map(visible).collect()
}

/// Whether an order begins with all keys but the constant ones.
fn are_sorted(keys: &[Arc<dyn PhysicalExpr>], sorted: &[PhysicalSortExpr]) -> bool {
    let needed = |key: &&Arc<dyn PhysicalExpr>| !key.is::<Literal>();
    let leading = sorted.iter().take_while(|sorted| keys.contains(&sorted.expr));
    let leading: Vec<_> = leading.map(|sorted| &sorted.expr).collect();
    keys.iter().filter(needed).all(|key| leading.contains(&key))
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
    let is_sorted =
        |expression: &Arc<dyn PhysicalExpr>| sorted.iter().any(|sorted| sorted.expr.eq(expression));
    // First: of groups of several sets the planner says too much.
    if is_sorted(key) {
        return Ok(None);
    }
    if known.is_expr_constant(key).is_some() {
        let value = ScalarValue::try_from(&key.data_type(known.schema())?)?;
        return Ok(Some(Arc::new(Literal::new(value))));
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
