//! Rows of which less is known than DataFusion says.
//!
//! An outer join fills a side with NULL, and GROUPING SETS leave out keys. DataFusion says of the
//! rows above that what was constant before, equal to something or in order, still is: it drops
//! sorts that are needed, and takes groups and windows for complete that are not (`sql-tests/upstream/
//! order-of-outer-joins.md`, `order-of-grouping-sets.md`). It also says that the rows of a join are in
//! the order of one side and then of the other, which they are only where the first has no ties. So
//! above such a node stands one that knows nothing of its rows but how they are partitioned. It
//! stays, and goes to workers with the plan: what reads an order reads it again there.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::projection::{ProjectionExec, make_with_child};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, ReplaceChildrenOptions,
};

/// Puts the nodes where they are needed.
#[derive(Debug)]
pub(crate) struct UnknownNulls;

impl PhysicalOptimizerRule for UnknownNulls {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match says_too_much(&node) {
            true => Ok(Transformed::yes(Arc::new(UnknownNullsExec::new(node)))),
            false => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "unknown_nulls"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn says_too_much(node: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        // Whatever is known now: a sort that comes below it later is claimed above, too.
        return aggregate.group_expr().has_grouping_set();
    }
    let children = node.children();
    let [left, right] = children.as_slice() else { return false };
    match join_type(node) {
        Some(JoinType::Left) => may_break(right),
        Some(JoinType::Right) => may_break(left),
        Some(JoinType::Full) => may_break(left) || may_break(right),
        Some(JoinType::Inner) => may_be_ordered(left) && may_be_ordered(right),
        _ => false,
    }
}

fn join_type(node: &Arc<dyn ExecutionPlan>) -> Option<JoinType> {
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        Some(*join.join_type())
    } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        Some(*join.join_type())
    } else {
        node.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type)
    }
}

/// Whether something that is known of a side is wrong once its columns may be NULL. Columns that
/// are equal are NULL together.
fn may_break(side: &Arc<dyn ExecutionPlan>) -> bool {
    let known = side.equivalence_properties();
    let computed = |expression: &Arc<dyn PhysicalExpr>| !expression.is::<Column>();
    !known.constants().is_empty()
        || known.eq_group().iter().any(|class| class.iter().any(computed))
        || may_be_ordered(side)
}

/// Whether a side is in an order, or will be: windows are sorted for later.
fn may_be_ordered(side: &Arc<dyn ExecutionPlan>) -> bool {
    let orders = |node: &Arc<dyn ExecutionPlan>| {
        Ok(node.is::<SortExec>()
            || node.is::<SortPreservingMergeExec>()
            || node.is::<WindowAggExec>()
            || node.is::<BoundedWindowAggExec>())
    };
    !side.equivalence_properties().oeq_class().is_empty() || side.exists(orders).unwrap_or(true)
}

/// The node.
#[derive(Debug)]
pub(crate) struct UnknownNullsExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl UnknownNullsExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let known = input.properties();
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            known.partitioning.clone(),
            known.emission_type,
            known.boundedness,
        ));
        Self { input, properties }
    }
}

impl DisplayAs for UnknownNullsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for UnknownNullsExec {
    fn name(&self) -> &'static str {
        "UnknownNullsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// A sort that was pushed through it would be dropped below.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self::new(input)))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(match inputs.first() {
            Some(input) => Arc::clone(input),
            None => Arc::new(Statistics::new_unknown(&self.schema())),
        })
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if projection.expr().len() >= self.schema().fields().len() {
            return Ok(None);
        }
        let projected = make_with_child(projection, &self.input)?;
        Ok(Some(Arc::new(Self::new(projected))))
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(pushed))
    }
}
