//! How our own plan nodes travel inside datafusion-distributed's stages.
//!
//! DataFusion encodes its nodes by itself, those of recursive queries excepted; such a node, or one
//! of ours, becomes one `PlanNode` message. Nothing
//! in a message is a path or a name to be looked up: ids, digests, versions.

use std::sync::Arc;

use datafusion::common::{DataFusionError, internal_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion_proto::physical_plan::to_proto::serialize_physical_expr;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use prost::Message;

use crate::files::FileScanExec;
use crate::fold::{FoldedPlan, unfold};
use crate::protocol::{MalformedMessage, PlanNode, plan_node::Node};
use crate::scan::SegmentScanExec;
use crate::shared_subplans::SharedRowsExec;
use crate::unknown_nulls::UnknownNullsExec;
use crate::write::SliceAppendExec;

/// Encodes and decodes the engine's plan nodes.
#[derive(Debug, Clone, Copy)]
pub struct EngineCodec;

impl PhysicalExtensionCodec for EngineCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let malformed = || DataFusionError::from(MalformedMessage::new("PlanNode", "node"));
        let message = PlanNode::decode(bytes).map_err(|_| malformed())?;
        match (message.node.ok_or_else(malformed)?, inputs) {
            (Node::SegmentScan(scan), []) => {
                Ok(Arc::new(SegmentScanExec::from_wire(scan, context, self, converter)?))
            }
            (Node::FileScan(scan), []) => Ok(Arc::new(FileScanExec::from_proto(&scan)?)),
            (Node::SliceAppend(append), [input]) => {
                Ok(Arc::new(SliceAppendExec::from_wire(append, Arc::clone(input))?))
            }
            (Node::RecursiveQuery(query), [static_term, recursive_term]) => {
                query.into_plan(Arc::clone(static_term), Arc::clone(recursive_term))
            }
            (Node::WorkTable(table), []) => table.into_plan(),
            (Node::UnknownNulls(_), [input]) => {
                Ok(Arc::new(UnknownNullsExec::new(Arc::clone(input))))
            }
            (Node::SharedRows(rows), []) => Ok(Arc::new(SharedRowsExec::from_wire(&rows)?)),
            (Node::Folded(plan), []) => unfold(&plan, context, converter),
            _ => Err(malformed()),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let message = if let Some(scan) = node.downcast_ref::<SegmentScanExec>() {
            Node::SegmentScan(scan.to_wire(self, converter)?)
        } else if let Some(scan) = node.downcast_ref::<FileScanExec>() {
            Node::FileScan(scan.to_proto()?)
        } else if let Some(append) = node.downcast_ref::<SliceAppendExec>() {
            Node::SliceAppend(append.to_wire()?)
        } else if let Some(query) = node.downcast_ref::<RecursiveQueryExec>() {
            Node::RecursiveQuery(query.into())
        } else if let Some(table) = node.downcast_ref::<WorkTableExec>() {
            Node::WorkTable(table.into())
        } else if node.is::<UnknownNullsExec>() {
            Node::UnknownNulls(true)
        } else if let Some(rows) = node.downcast_ref::<SharedRowsExec>() {
            Node::SharedRows(rows.to_wire()?)
        } else if let Some(folded) = node.downcast_ref::<FoldedPlan>() {
            Node::Folded(folded.plan.clone())
        } else {
            return internal_err!("{} cannot run on a worker", node.name());
        };
        PlanNode { node: Some(message) }
            .encode(buffer)
            .map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

/// Whether an expression can be sent to a worker as part of a scan.
pub(crate) fn is_serialisable(expr: &Arc<dyn PhysicalExpr>) -> bool {
    serialize_physical_expr(expr, &EngineCodec).is_ok()
}
