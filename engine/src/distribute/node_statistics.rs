//! DataFusion's estimates of what the nodes of a plan of stages give.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion_distributed::{
    BroadcastExec, DistributedExec, DistributedLeafExec, NetworkBoundaryExt,
};

use crate::scan::SegmentScanExec;

/// The rows that a plan is estimated to have, where that can be had.
pub fn estimated_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let head = match plan.is::<DistributedExec>() {
        true => plan.children().first().copied()?,
        false => plan,
    };
    NodeStatistics::default().rows(head)
}

/// Estimates that were made, by the addresses of nodes of a plan that lives as long.
#[derive(Default)]
pub(super) struct NodeStatistics(HashMap<usize, Arc<Statistics>>);

impl NodeStatistics {
    /// The estimate of a node, made once: exchanges would have it made of all that is below them each time.
    pub(super) fn of(&mut self, node: &Arc<dyn ExecutionPlan>) -> Result<Arc<Statistics>> {
        let key = address(node);
        if let Some(known) = self.0.get(&key) {
            return Ok(Arc::clone(known));
        }
        let args = StatisticsArgs::new();
        let children = node.children();
        let hands_on = node.is_network_boundary() || node.is::<BroadcastExec>();
        let found = if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
            statistics_of_leaf(leaf.original(), &args)?
        } else if let (true, Some(sender)) = (hands_on, children.first()) {
            self.of(sender)?
        } else {
            let asked = node.child_stats_requests(None);
            let inputs = children.iter().zip(asked).map(|(child, asked)| match asked {
                ChildStats::At(_) => self.of(child),
                ChildStats::Skip => Ok(Arc::new(Statistics::new_unknown(&child.schema()))),
            });
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            node.statistics_from_inputs(&inputs, &args)?
        };
        self.0.insert(key, Arc::clone(&found));
        Ok(found)
    }

    /// The rows that a node is estimated to give, where that can be had.
    pub(super) fn rows(&mut self, node: &Arc<dyn ExecutionPlan>) -> Option<usize> {
        self.of(node).ok()?.num_rows.get_value().copied()
    }
}

/// Filters that were pushed into a scan are counted here: its own statistics are those of all that it reads.
fn statistics_of_leaf(
    leaf: &Arc<dyn ExecutionPlan>,
    args: &StatisticsArgs,
) -> Result<Arc<Statistics>> {
    let all = leaf.statistics_from_inputs(&[], args)?;
    let Some(scan) = leaf.downcast_ref::<SegmentScanExec>() else { return Ok(all) };
    let (Some(rows), true) = (all.num_rows.get_value(), scan.predicate().is_some()) else {
        return Ok(all);
    };
    let kept = (*rows as f64 * scan.kept_share()).ceil() as usize;
    Ok(Arc::new(Statistics {
        num_rows: Precision::Inexact(kept),
        ..all.as_ref().clone().to_inexact()
    }))
}

/// What tells nodes of one plan apart.
pub(super) fn address(node: &Arc<dyn ExecutionPlan>) -> usize {
    Arc::as_ptr(node).cast::<()>() as usize
}
