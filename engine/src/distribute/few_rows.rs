//! Stages of few rows, run as one task.
//!
//! A stage has a task for each worker wherever one below it has, also where a few groups of an aggregate are all that
//! comes: setting up a task, and a stream for each pair of tasks, then takes longer than the rows do. A stage that
//! reads no table, whose inputs and operators are all estimated to have few rows, is made one task here:
//!
//! ```text
//! 3 tasks: Sort ◀ Final ◀ Shuffle            1 task: Sort ◀ Final ◀ Shuffle
//! 3 tasks: Partial ◀ Scan            ──▶     3 tasks: Partial ◀ Scan
//! ```
//! Estimates that are too low cost time, and the memory of one worker, and change no answer: what runs in one task sees
//! all rows. "Few" is what the session says of scans (`one_task_rows`), so that 0 keeps every exchange.
//!
//! Invariant: no operator changes, nor how many partitions it has in a task; the plan is checked after this.

use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion_distributed::{
    BroadcastExec, DistributedExec, NetworkBoundary, NetworkBoundaryExt, NetworkBroadcastExec,
    NetworkCoalesceExec, NetworkShuffleExec, Stage,
};

use super::colocate::with_children;
use super::node_statistics::NodeStatistics;

/// A plan whose stages of few rows have one task.
pub(super) fn with_fewer_tasks(
    plan: Arc<dyn ExecutionPlan>,
    few: u64,
) -> Result<Arc<dyn ExecutionPlan>> {
    let (Some(distributed), true) = (plan.downcast_ref::<DistributedExec>(), few > 0) else {
        return Ok(plan);
    };
    let head = Arc::clone(distributed.children()[0]);
    let mut rewrite = Rewrite { few, statistics: NodeStatistics::default() };
    let head = rewrite.node(&head, Tasks { were: 1, are: 1 })?;
    with_children(&plan, vec![head])
}

/// The tasks of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tasks {
    were: usize,
    are: usize,
}

struct Rewrite {
    few: u64,
    /// Of the plan as it was.
    statistics: NodeStatistics,
}

impl Rewrite {
    /// A node of a stage.
    fn node(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        tasks: Tasks,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(boundary) = node.as_network_boundary()
            && let Some(plan) = boundary.input_stage().local_plan()
        {
            return self.boundary(node, boundary.input_stage().clone(), plan, tasks);
        }
        let children = node.children().into_iter().map(|child| self.node(child, tasks));
        let children = children.collect::<Result<_>>()?;
        with_children(node, children)
    }

    /// An exchange, and the stage below it.
    fn boundary(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        mut stage: Stage,
        plan: &Arc<dyn ExecutionPlan>,
        above: Tasks,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let were = stage.task_count();
        let are = if were > 1 && self.has_few_rows(plan) { 1 } else { were };
        let plan = self.node(plan, Tasks { were, are })?;
        if were == are && above.were == above.are {
            return with_children(node, vec![plan]);
        }
        // What the exchange is to one task above it, and what its stage sends to all of them.
        let (exchange, sent): (Arc<dyn NetworkBoundary>, _) = if node.is::<NetworkShuffleExec>()
            && let Some(sender) = plan.downcast_ref::<RepartitionExec>()
            && let Partitioning::Hash(keys, partitions) = sender.partitioning()
        {
            let of_task = partitions / above.were.max(1);
            let by = |partitions| -> Result<Arc<dyn ExecutionPlan>> {
                let hash = Partitioning::Hash(keys.clone(), partitions);
                let sender = RepartitionExec::try_new(Arc::clone(sender.input()), hash)?;
                Ok(Arc::new(sender))
            };
            (Arc::new(NetworkShuffleExec::try_new(by(of_task)?, are)?), by(of_task * above.are)?)
        } else if node.is::<NetworkBroadcastExec>()
            && let Some(sender) = plan.downcast_ref::<BroadcastExec>()
        {
            let to = |tasks| -> Arc<dyn ExecutionPlan> {
                Arc::new(BroadcastExec::new(Arc::clone(sender.input()), tasks))
            };
            (Arc::new(NetworkBroadcastExec::try_new(to(1), are)?), to(above.are))
        } else if !node.is::<NetworkCoalesceExec>() {
            return internal_err!("{} sends its rows in an unknown way", node.name());
        } else {
            (Arc::new(NetworkCoalesceExec::try_new(Arc::clone(&plan), are, above.are)?), plan)
        };
        if let Stage::Local(stage) = &mut stage {
            (stage.plan, stage.tasks) = (sent, are);
        }
        let exchange: Arc<dyn ExecutionPlan> = exchange.with_input_stage(stage)?;
        Ok(exchange)
    }

    /// Whether a stage reads no table, and all of its nodes are known to have few rows. What is sent in an order is
    /// left alone.
    fn has_few_rows(&mut self, plan: &Arc<dyn ExecutionPlan>) -> bool {
        let mut nodes = vec![plan];
        while let Some(node) = nodes.pop() {
            let is_few = |rows: usize| rows as u64 <= self.few;
            if !self.statistics.rows(node).is_some_and(is_few) {
                return false;
            }
            match node.as_network_boundary() {
                Some(boundary) => {
                    let sender = boundary.input_stage().local_plan();
                    let is_ordered = |sender: &Arc<dyn ExecutionPlan>| {
                        sender
                            .downcast_ref::<RepartitionExec>()
                            .is_some_and(|of| of.preserve_order())
                    };
                    if sender.is_none_or(is_ordered) {
                        return false;
                    }
                }
                None if node.children().is_empty() => return false,
                None => nodes.extend(node.children()),
            }
        }
        true
    }
}
