//! How deep the stages of a plan are nested once they are encoded.
//!
//! A stage travels as one protobuf message, and prost decodes a hundred messages inside each other
//! and no more. A worker would refuse a deeper one, and the statement would wait for ten seconds
//! before it hears of that; so it is refused here, before anything is sent.
//!
//! ```text
//! PhysicalPlanNode > HashJoinExecNode > PhysicalPlanNode > ... > PhysicalExprNode > ...
//!        0                  1                  2                      two for each level
//! ```
//!
//! Bytes inside bytes start anew, and so a stage that is too deep is folded ([`fold_deep`]): then only
//! a single expression can still be.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr};
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use datafusion_distributed::NetworkBoundaryExt;

use crate::error::{ErrorCode, SqlError};
use crate::fold::{FoldExec, STACK_NEEDED_BYTES, STACK_TAKEN_BYTES};
use crate::scan::SegmentScanExec;

/// Messages inside each other that prost decodes.
const LEVELS_MAX: usize = 100;

/// Levels of a message below which a fold begins another one. Half of what prost decodes: the rest
/// is for expressions.
const FOLD_LEVELS: usize = 50;

/// Folds what is deep in the stages of a plan, so that they can be decoded.
///
/// A plan with scalar subqueries stays as it is: decoding them needs to know the node around them.
pub(super) fn fold_deep(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.exists(|node| Ok(node.is::<ScalarSubqueryExec>()))? {
        return Ok(plan);
    }
    folded(plan).map(|(plan, _)| plan)
}

/// The plan with folds, and how many levels its message has.
fn folded(plan: Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, usize)> {
    stacker::maybe_grow(STACK_NEEDED_BYTES, STACK_TAKEN_BYTES, || {
        let mut children = Vec::new();
        let (mut deepest, mut is_changed) = (0, false);
        for child in plan.children() {
            let (mut new, mut levels) = folded(Arc::clone(child))?;
            if levels > FOLD_LEVELS && !plan.is_network_boundary() {
                new = Arc::new(FoldExec::new(new));
                levels = 2;
            }
            is_changed |= !Arc::ptr_eq(&new, child);
            deepest = deepest.max(levels);
            children.push(new);
        }
        let below = if plan.is_network_boundary() { 0 } else { deepest };
        let plan = match is_changed {
            true => {
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                plan.replace_children(children, options)?
            }
            false => plan,
        };
        Ok((plan, below + 2))
    })
}

/// Refuses a plan with a stage that no worker could decode.
pub(super) fn check_depth(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let mut waiting = vec![(plan, 0_usize)];
    while let Some((node, level)) = waiting.pop() {
        let mut deepest = level + 1;
        // The predicate of a scan is bytes in its message.
        let around = if node.is::<SegmentScanExec>() { 0 } else { level + 1 };
        node.apply_expressions(&mut |expr| {
            deepest = deepest.max(around + levels_of(expr));
            Ok(TreeNodeRecursion::Continue)
        })?;
        if deepest > LEVELS_MAX {
            return Err(SqlError::new(
                ErrorCode::InvalidStatement,
                "the statement is nested too deeply: its plan cannot be sent to a worker",
            )
            .with_hint("store what comes in between with CREATE TABLE ... AS SELECT")
            .into());
        }
        // What is below a boundary is a message of its own, and so are the bytes of a fold.
        let is_apart = node.is_network_boundary() || node.is::<FoldExec>();
        let below = if is_apart { 0 } else { level + 2 };
        waiting.extend(node.children().into_iter().map(|child| (child, below)));
    }
    Ok(())
}

/// Messages inside each other that an expression becomes.
fn levels_of(expr: &Arc<dyn PhysicalExpr>) -> usize {
    let mut deepest = 0;
    let mut waiting = vec![(expr, 0_usize)];
    while let Some((expr, level)) = waiting.pop() {
        // The branches of a CASE are messages between it and their expressions.
        let own = if expr.is::<CaseExpr>() { 3 } else { 2 };
        deepest = deepest.max(level + 2);
        waiting.extend(operands(expr).into_iter().map(|child| (child, level + own)));
    }
    deepest
}

/// What the message of an expression holds: of `a AND b AND c`, all three beside each other.
fn operands(expr: &Arc<dyn PhysicalExpr>) -> Vec<&Arc<dyn PhysicalExpr>> {
    let Some(chain) = expr.downcast_ref::<BinaryExpr>() else { return expr.children() };
    let mut operands = vec![chain.right()];
    let mut left = chain.left();
    while let Some(next) = left.downcast_ref::<BinaryExpr>()
        && next.op() == chain.op()
    {
        operands.push(next.right());
        left = next.left();
    }
    operands.push(left);
    operands
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::Column;
    use datafusion::physical_plan::coop::CooperativeExec;
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion_proto::physical_plan::AsExecutionPlan;
    use datafusion_proto::physical_plan::DefaultPhysicalExtensionCodec;
    use datafusion_proto::physical_plan::to_proto::serialize_physical_expr;
    use datafusion_proto::protobuf::{PhysicalExprNode, PhysicalPlanNode};
    use prost::Message;

    use super::*;

    /// What the check says is what the decoder does, at the limit and beyond.
    #[test]
    fn a_stage_is_refused_where_prost_would_refuse_it() {
        let mut plan: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
        let mut refused = 0;
        for _ in 0..60 {
            plan = Arc::new(CooperativeExec::new(plan));
            let codec = DefaultPhysicalExtensionCodec {};
            let encoded = PhysicalPlanNode::try_from_physical_plan(Arc::clone(&plan), &codec);
            let bytes = encoded.unwrap().encode_to_vec();
            let decodes = PhysicalPlanNode::decode(bytes.as_slice()).is_ok();
            assert_eq!(check_depth(&plan).is_ok(), decodes, "after {refused} refusals");
            refused += usize::from(!decodes);
        }
        assert!(refused > 5, "the limit was not reached");
    }

    /// Chains of one operator are flat, and alternating ones are not; the decoder says the same.
    #[test]
    fn long_predicates_are_flat_and_deep_ones_are_not() {
        let column = || Arc::new(Column::new("b", 0)) as Arc<dyn PhysicalExpr>;
        let deeper =
            |left, op| Arc::new(BinaryExpr::new(left, op, column())) as Arc<dyn PhysicalExpr>;
        let decodes = |expr: &Arc<dyn PhysicalExpr>| {
            let node = serialize_physical_expr(expr, &DefaultPhysicalExtensionCodec {}).unwrap();
            PhysicalExprNode::decode(node.encode_to_vec().as_slice()).is_ok()
        };
        let (mut long, mut deep) = (column(), column());
        let mut refused = 0;
        for level in 0..400 {
            long = deeper(long, Operator::And);
            assert!(levels_of(&long) <= 4 && decodes(&long), "{level}");
            if level < 60 {
                let op = if level % 2 == 0 { Operator::Or } else { Operator::And };
                deep = deeper(deep, op);
                assert_eq!(levels_of(&deep) <= LEVELS_MAX, decodes(&deep), "{level}");
                refused += usize::from(!decodes(&deep));
            }
        }
        assert!(refused > 5, "the limit was not reached");
    }
}
