//! How rows lie over the tasks of a stage, and what becomes of that on the way up a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Schema;
use basalt_storage::ids::SliceId;
use datafusion::common::JoinType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion_distributed::BroadcastExec;

use crate::unknown_nulls::UnknownNullsExec;

/// How a node's rows lie over the tasks of its stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::distribute) enum Family {
    /// Each row is in one task, for no reason that means anything.
    Spread,
    /// Each row is in the (task, partition) that DataFusion's hash over a network shuffle chose;
    /// the node's output partitioning says over which expressions.
    Shuffled,
    /// Each row is in the task of the slice that the slice hash of one of its columns chose. Partitions
    /// within the task are as the node's output partitioning says.
    Sliced(Slices),
    /// Each task has every row.
    Replicated,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spread => "spread over tasks",
            Self::Shuffled => "shuffled by hash",
            Self::Sliced(_) => "in the task of their slice",
            Self::Replicated => "replicated to every task",
        })
    }
}

/// Rows that are in the task of their slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::distribute) struct Slices {
    /// Columns whose values are, each by itself, those that the slice hash was taken of; one at least.
    keys: BTreeSet<usize>,
    /// The task of each slice that has rows.
    tasks: Arc<BTreeMap<SliceId, usize>>,
}

impl Slices {
    /// Rows in the task of their slice by the values of some columns; none where there are none.
    pub(super) fn by(
        keys: impl IntoIterator<Item = usize>,
        tasks: &Arc<BTreeMap<SliceId, usize>>,
    ) -> Option<Self> {
        let keys: BTreeSet<_> = keys.into_iter().collect();
        (!keys.is_empty()).then(|| Self { keys, tasks: Arc::clone(tasks) })
    }

    /// Whether an expression has the values that the slice hash was taken of.
    pub(super) fn are_by(&self, expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
        column_of(expr, schema).is_some_and(|column| self.keys.contains(&column))
    }

    /// The tasks of the slices of either side; none where a slice has another task on each.
    pub(super) fn tasks_with(&self, other: &Self) -> Option<Arc<BTreeMap<SliceId, usize>>> {
        if self.tasks == other.tasks {
            return Some(Arc::clone(&self.tasks));
        }
        let mut all = self.tasks.as_ref().clone();
        for (slice, task) in other.tasks.as_ref() {
            if *all.entry(*slice).or_insert(*task) != *task {
                return None;
            }
        }
        Some(Arc::new(all))
    }

    pub(super) fn keys(&self) -> &BTreeSet<usize> {
        &self.keys
    }
}

/// The column that an expression is, or is but for its width: the slice hash is of values, so integers of
/// all widths hash alike.
pub(in crate::distribute) fn column_of(
    expr: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Option<usize> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some(column.index());
    }
    let cast = expr.downcast_ref::<CastExpr>()?;
    let column = cast.expr().downcast_ref::<Column>()?.index();
    let is_integer = schema.field(column).data_type().is_integer();
    (is_integer && cast.cast_type().is_integer()).then_some(column)
}

/// A column of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// Which input.
    pub(super) child: usize,
    /// Which of its columns.
    pub(super) column: usize,
}

/// The column of an input that each output column hands on as it is, where it does and this is known.
pub(super) fn sources(node: &Arc<dyn ExecutionPlan>) -> Vec<Option<Source>> {
    let first = |column| Some(Source { child: 0, column });
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let schema = projection.input().schema();
        let outputs = projection.expr().iter();
        return outputs.map(|output| column_of(&output.expr, &schema).and_then(first)).collect();
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let all = (0..filter.input().schema().fields().len()).map(first).collect();
        return picked(all, filter.projection().as_deref());
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return grouped(aggregate);
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let joined = joined(*join.join_type(), join.left(), join.right());
        return picked(joined, join.projection.as_deref());
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let joined = joined(*join.join_type(), join.left(), join.right());
        return picked(joined, join.projection().as_deref());
    }
    if let Some(join) = node.downcast_ref::<CrossJoinExec>() {
        return joined(JoinType::Inner, join.left(), join.right());
    }
    let keeps_columns = node.is::<CooperativeExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<RepartitionExec>()
        || node.is::<SortExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<BroadcastExec>()
        || node.is::<UnknownNullsExec>()
        // These put their own columns behind those of their input.
        || node.is::<WindowAggExec>()
        || node.is::<BoundedWindowAggExec>();
    let outputs = node.schema().fields().len();
    match node.children().first() {
        Some(input) if keeps_columns => {
            let inputs = input.schema().fields().len();
            (0..outputs).map(|column| first(column).filter(|_| column < inputs)).collect()
        }
        _ => vec![None; outputs],
    }
}

/// The input, and which of its columns, that a node's output column hands on as it is, where it does.
pub(in crate::distribute) fn source_of(
    node: &Arc<dyn ExecutionPlan>,
    column: usize,
) -> Option<(usize, usize)> {
    let source = sources(node).get(column).copied().flatten()?;
    Some((source.child, source.column))
}

fn picked(all: Vec<Option<Source>>, projection: Option<&[usize]>) -> Vec<Option<Source>> {
    match projection {
        Some(projection) => {
            projection.iter().map(|column| all.get(*column).copied().flatten()).collect()
        }
        None => all,
    }
}

/// The keys come first. In grouping sets those of some sets are NULL.
fn grouped(aggregate: &AggregateExec) -> Vec<Option<Source>> {
    let outputs = aggregate.schema().fields().len();
    let keys = aggregate.group_expr();
    if keys.has_grouping_set() {
        return vec![None; outputs];
    }
    let schema = aggregate.input().schema();
    let key = |expr| column_of(expr, &schema).map(|column| Source { child: 0, column });
    let mut sources: Vec<_> = keys.expr().iter().map(|(expr, _)| key(expr)).collect();
    sources.resize(outputs, None);
    sources
}

/// Before the join's projection. Columns that the join fills with NULL are not what they were.
fn joined(
    kind: JoinType,
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
) -> Vec<Option<Source>> {
    let side = |child, plan: &Arc<dyn ExecutionPlan>, is_kept: bool| {
        let columns = 0..plan.schema().fields().len();
        columns.map(move |column| is_kept.then_some(Source { child, column })).collect::<Vec<_>>()
    };
    match kind {
        JoinType::LeftSemi | JoinType::LeftAnti => side(0, left, true),
        JoinType::RightSemi | JoinType::RightAnti => side(1, right, true),
        JoinType::LeftMark => [side(0, left, true), vec![None]].concat(),
        JoinType::RightMark => [side(1, right, true), vec![None]].concat(),
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
            let keeps_left = matches!(kind, JoinType::Inner | JoinType::Left);
            let keeps_right = matches!(kind, JoinType::Inner | JoinType::Right);
            [side(0, left, keeps_left), side(1, right, keeps_right)].concat()
        }
    }
}

/// The family of a node's rows where those of its input `child` have a family and are handed on in their tasks.
pub(super) fn handed_on(node: &Arc<dyn ExecutionPlan>, child: usize, family: &Family) -> Family {
    let Family::Sliced(slices) = family else { return family.clone() };
    let keys =
        key_columns(node, |source| source.child == child && slices.keys.contains(&source.column));
    Slices::by(keys, &slices.tasks).map_or(Family::Spread, Family::Sliced)
}

/// The output columns whose source is a key.
pub(super) fn key_columns(
    node: &Arc<dyn ExecutionPlan>,
    is_key: impl Fn(Source) -> bool,
) -> Vec<usize> {
    let sources = sources(node);
    let keys = sources.into_iter().enumerate();
    keys.filter(|(_, source)| source.is_some_and(&is_key)).map(|(column, _)| column).collect()
}

/// The family of the rows of several inputs together.
pub(super) fn united(inputs: &[Family]) -> Family {
    let mut slices = inputs.iter().map(|input| match input {
        Family::Sliced(slices) => Some(slices.clone()),
        _ => None,
    });
    let first = slices.next().flatten();
    let all = slices.fold(first, |all, next| {
        let (all, next) = (all?, next?);
        let tasks = all.tasks_with(&next)?;
        Slices::by(all.keys.intersection(&next.keys).copied(), &tasks)
    });
    all.map_or(Family::Spread, Family::Sliced)
}
