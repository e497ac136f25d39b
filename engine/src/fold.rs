//! Deep plans as messages: subtrees folded into bytes, so that no message is nested too deeply.
//!
//! prost decodes a hundred messages inside each other and no more, and every node of a plan is two:
//! joins of some twenty tables would not travel. A fold is a node whose message holds the plan
//! below it as *bytes*, and bytes begin to count anew:
//!
//! ```text
//! Join > ... > Fold { bytes }        bytes = Join > ... > Fold { bytes }        ...
//! ```
//!
//! Folds exist from the end of planning to the encoding: a worker decodes what is below and keeps
//! no trace of them. Plans that fit without have none.
//!
//! Invariant: what is inside a fold passes the same gate (`plan_gate`) as the plan around it, and
//! folds inside folds are bounded ([`FOLDS_MAX`]), so that bytes cannot exhaust a stack.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{exec_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::proto::ExecutionPlanEncodeCtx;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion_distributed::DistributedCodec;
use datafusion_proto::physical_plan::{PhysicalPlanDecodeContext, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf::PhysicalPlanNode;
use prost::Message;

use crate::plan_gate::check_plan_bytes;
use crate::protocol::MalformedMessage;

/// Folds inside each other. With some twenty nodes in each that is more than a statement, which is
/// bounded (`plan_size`), becomes.
const FOLDS_MAX: u32 = 64;
/// Stack that encoding or decoding a fold may need, and how much is taken when there is less.
pub(crate) const STACK_NEEDED_BYTES: usize = 1 << 20;
pub(crate) const STACK_TAKEN_BYTES: usize = 8 << 20;

/// A node that does nothing but travel as bytes.
#[derive(Debug, Clone)]
pub(crate) struct FoldExec {
    input: Arc<dyn ExecutionPlan>,
}

impl FoldExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input }
    }
}

impl DisplayAs for FoldExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FoldExec")
    }
}

impl ExecutionPlan for FoldExec {
    fn name(&self) -> &'static str {
        "FoldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self { input })),
            Err(_) => internal_err!("a fold has one child"),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn try_to_proto(&self, ctx: &ExecutionPlanEncodeCtx<'_>) -> Result<Option<PhysicalPlanNode>> {
        let plan = stacker::maybe_grow(STACK_NEEDED_BYTES, STACK_TAKEN_BYTES, || {
            ctx.encode_child(&self.input)
        })?;
        let folded = FoldedPlan {
            plan: plan.encode_to_vec(),
            properties: Arc::clone(self.input.properties()),
        };
        let folded: Arc<dyn ExecutionPlan> = Arc::new(folded);
        ctx.encode_child(&folded).map(Some)
    }
}

/// The leaf that a fold becomes while it is encoded; never run.
#[derive(Debug)]
pub(crate) struct FoldedPlan {
    /// The plan below the fold, as a `PhysicalPlanNode` message.
    pub(crate) plan: Vec<u8>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for FoldedPlan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FoldedPlan")
    }
}

impl ExecutionPlan for FoldedPlan {
    fn name(&self) -> &'static str {
        "FoldedPlan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a folded plan is for sending, not for running")
    }
}

thread_local! {
    /// Folds that this thread is decoding, one inside the other.
    static FOLDS: Cell<u32> = const { Cell::new(0) };
}

/// Reads the plan of a fold. What comes back has no fold in it.
pub(crate) fn unfold(
    plan: &[u8],
    context: &TaskContext,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Arc<dyn ExecutionPlan>> {
    let depth = FOLDS.get();
    if depth >= FOLDS_MAX {
        return exec_err!("a plan has more than {FOLDS_MAX} folds inside each other");
    }
    check_plan_bytes(plan).map_err(|refusal| DataFusionError::External(Box::new(refusal)))?;
    let plan = PhysicalPlanNode::decode(plan)
        .map_err(|_| DataFusionError::from(MalformedMessage::new("PlanNode", "folded")))?;
    let codec = DistributedCodec::new_combined_with_user(context.session_config());
    let decode = PhysicalPlanDecodeContext::new(context, &codec);
    let _inside = Inside::enter(depth + 1);
    stacker::maybe_grow(STACK_NEEDED_BYTES, STACK_TAKEN_BYTES, || {
        converter.proto_to_execution_plan(&plan, &decode)
    })
}

/// Counts a fold while it is decoded, also when the decoder panics.
struct Inside;

impl Inside {
    fn enter(depth: u32) -> Self {
        FOLDS.set(depth);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        FOLDS.set(FOLDS.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use datafusion_distributed::DistributedExt;
    use datafusion_proto::bytes::{
        physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter,
    };
    use datafusion_proto::physical_plan::DefaultPhysicalProtoConverter;
    use datafusion_proto::protobuf::physical_plan_node::PhysicalPlanType;

    use super::*;
    use crate::codec::EngineCodec;

    fn empty() -> Arc<dyn ExecutionPlan> {
        Arc::new(EmptyExec::new(Arc::new(Schema::empty())))
    }

    /// What a worker makes of a plan.
    fn sent(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let config = SessionConfig::new().with_distributed_user_codec(EngineCodec);
        let context = SessionContext::new_with_config(config).task_ctx();
        let codec = DistributedCodec::new_combined_with_user(context.session_config());
        let converter = DefaultPhysicalProtoConverter {};
        let bytes = physical_plan_to_bytes_with_proto_converter(plan, &codec, &converter)?;
        physical_plan_from_bytes_with_proto_converter(&bytes, &context, &codec, &converter)
    }

    fn folds(count: u32) -> Arc<dyn ExecutionPlan> {
        (0..count).fold(empty(), |plan, _| Arc::new(FoldExec::new(plan)))
    }

    #[test]
    fn a_worker_gets_the_plan_without_its_folds() {
        for count in [1, 2, FOLDS_MAX] {
            assert_eq!(sent(folds(count)).unwrap().name(), "EmptyExec");
        }
    }

    #[test]
    fn folds_inside_each_other_are_bounded() {
        let error = sent(folds(FOLDS_MAX + 1)).unwrap_err();
        assert!(error.to_string().contains("folds inside each other"), "{error}");
        // And the count is that of one plan, not of all.
        assert!(sent(folds(FOLDS_MAX)).is_ok());
    }

    #[test]
    fn a_fold_hides_nothing_from_the_gate() {
        let forbidden = PhysicalPlanNode {
            physical_plan_type: Some(PhysicalPlanType::CsvScan(Default::default())),
        };
        let hidden = FoldedPlan {
            plan: forbidden.encode_to_vec(),
            properties: Arc::clone(empty().properties()),
        };
        let error = sent(Arc::new(hidden)).unwrap_err();
        assert!(error.to_string().contains("is not allowed on a worker"), "{error}");
    }
}
