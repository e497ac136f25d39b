//! From a logical plan to stages that are safe to run.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use datafusion_distributed::{DistributedExt, NetworkBoundary, NetworkCoalesceExec};

use super::Topology;
use super::check::check_plan;
use super::colocate::{Colocation, colocated};
use super::depth::{check_depth, fold_deep};
use super::few_rows::with_fewer_tasks;
use super::head::{reads_data, relieve_head};
use super::whole_builds::{WholeBuilds, with_whole_builds};
use crate::guarded::is_sender;
use crate::join_order::ordered;
use crate::plan_cache::{Asked, Optimized};
use crate::unestimated::unestimated;
use crate::window_memory::count_windows;

/// A physical plan that passed the checker.
#[derive(Debug, Clone)]
pub struct DistributedPlan {
    /// The plan to execute on the coordinator; its stages run on workers.
    pub plan: Arc<dyn ExecutionPlan>,
    /// Why the first plan was refused and this one runs as one task, if so.
    pub fallback: Option<String>,
    /// The statement that was planned, optimised, with its joins in order.
    pub logical: LogicalPlan,
    /// The columns of its rows before they take wire form: those of the statement once its types
    /// are coerced, under the names that it gives them.
    pub columns: SchemaRef,
    /// Whether it was optimised for a statement before.
    pub is_known: bool,
}

/// Plans a statement over the workers of the session's topology.
///
/// A plan that the checker refuses is planned again as one task; an error only if that fails too.
pub async fn plan_distributed(
    state: &SessionState,
    logical: &LogicalPlan,
) -> Result<DistributedPlan> {
    let asked = Asked::of(state, logical)?;
    let known = asked.as_ref().map(Asked::found).transpose()?.flatten();
    let is_known = known.is_some();
    let optimized = match known {
        Some(known) => known,
        None => {
            let optimized = optimized(state, logical)?;
            asked.map(|asked| asked.keep(&optimized)).transpose()?;
            optimized
        }
    };
    let Optimized { plan: shown, columns } = optimized;
    let logical = unestimated(shown.clone())?;
    let plan = plan_once(state, &logical).await?;
    let Err(refusal) = check_plan(&plan) else {
        let plan = ready(plan)?;
        return Ok(DistributedPlan { plan, fallback: None, logical: shown, columns, is_known });
    };
    tracing::warn!(%refusal, "plan refused, planning again as one task");
    let single = state.clone().with_distributed_max_tasks_per_stage(1)?;
    let plan = plan_once(&single, &logical).await?;
    check_plan(&plan).map_err(|second| DataFusionError::External(Box::new(second)))?;
    Ok(DistributedPlan {
        plan: ready(plan)?,
        fallback: Some(refusal.to_string()),
        logical: shown,
        columns,
        is_known,
    })
}

/// A statement as it was parsed, optimised, with its joins in order.
fn optimized(state: &SessionState, logical: &LogicalPlan) -> Result<Optimized> {
    let ignore = |_: &LogicalPlan, _: &dyn AnalyzerRule| {};
    let analyzed =
        state.analyzer().execute_and_check(logical.clone(), state.config_options(), ignore)?;
    let columns = Arc::clone(analyzed.schema().inner());
    let optimized = state.optimizer().optimize(analyzed, state, |_, _| {})?;
    Ok(Optimized { plan: ordered(optimized, state)?, columns })
}

/// A plan as it runs here. One that is cut into stages is looked at again by the workers that get
/// them; one without data is not, and may hold anything.
fn ready(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if !reads_data(&plan) {
        return count_windows(plan);
    }
    if check_depth(&plan).is_ok() {
        return Ok(plan);
    }
    let folded = fold_deep(plan)?;
    check_depth(&folded)?;
    Ok(folded)
}

/// Whether rows may be joined where they lie.
fn is_colocation_on(state: &SessionState) -> bool {
    state.config().get_extension::<Colocation>().is_none_or(|switch| switch.0)
}

/// Whether joins within a task may build one table.
fn is_whole_builds_on(state: &SessionState) -> bool {
    state.config().get_extension::<WholeBuilds>().is_none_or(|switch| switch.0)
}

/// The physical plan of a logical plan that is optimised already.
async fn plan_once(state: &SessionState, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = state.query_planner().create_physical_plan(logical, state).await?;
    if !reads_data(&plan) {
        return Ok(plan);
    }
    let plan = match (state.config().get_extension::<Topology>(), is_colocation_on(state)) {
        (Some(topology), true) => colocated(plan, &topology, state.config().target_partitions())?,
        _ => plan,
    };
    let few = state.config().get_extension::<Topology>().map_or(0, |known| known.one_task_rows());
    let plan = with_fewer_tasks(plan, few)?;
    let config = datafusion_distributed::DistributedConfig::from_session_config(state.config())?;
    let plan = relieve_head(plan, config.collect_metrics)?;
    let plan = if is_whole_builds_on(state) { with_whole_builds(plan)? } else { plan };
    with_own_roots(plan)
}

/// A plan of which no stage that is collected has a root that a worker would take for that of a shuffle, and
/// leave out: another node above it does nothing else.
fn with_own_roots(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let root = match node.downcast_ref::<NetworkCoalesceExec>() {
            Some(collected) => collected.input_stage().local_plan().cloned(),
            None => None,
        };
        let Some(root) = root.filter(is_sender) else { return Ok(Transformed::no(node)) };
        let root: Arc<dyn ExecutionPlan> = Arc::new(CooperativeExec::new(root));
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(node.replace_children(vec![root], options)?))
    })
    .data()
}
