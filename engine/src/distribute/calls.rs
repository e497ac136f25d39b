//! What starting a plan asks of workers.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::NetworkBoundaryExt;

/// Calls that a plan makes before its first row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Tasks: the coordinator sends each its part of the plan.
    pub tasks: usize,
    /// Streams of rows: each task asks each task of the stages that it reads from.
    pub streams: usize,
}

/// The calls of a plan as the coordinator has it.
pub fn calls(plan: &Arc<dyn ExecutionPlan>) -> Calls {
    let mut calls = Calls::default();
    let mut waiting = vec![(plan, 1)];
    while let Some((node, tasks)) = waiting.pop() {
        let below = match node.as_network_boundary() {
            Some(boundary) => {
                let producers = boundary.input_stage().task_count();
                calls.tasks += producers;
                calls.streams += producers * tasks;
                producers
            }
            None => tasks,
        };
        waiting.extend(node.children().into_iter().map(|child| (child, below)));
    }
    calls
}
