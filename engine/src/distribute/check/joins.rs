//! Which rows a join may have in which tasks.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::family::{Family, Slices, handed_on, key_columns};
use super::{Checked, StageCheck, in_its_task};

impl StageCheck {
    /// A hash join that collects its left side in every task.
    pub(super) fn collect_hash_join(
        &self,
        node: &Arc<dyn ExecutionPlan>,
        join: &HashJoinExec,
        children: &[Family],
    ) -> Checked {
        let kind = *join.join_type();
        match children {
            // Each row of the left side is in one task, which has all of the right.
            [left, Family::Replicated] if *left != Family::Replicated && !emits_right(kind) => {
                Ok(in_its_task(node, left))
            }
            _ => match joined_by_slice(node, join, children) {
                Some(family) => Ok(family),
                None => self.collect_join(node, kind, children),
            },
        }
    }

    /// A join that collects its left side in every task, whatever it joins on.
    pub(super) fn collect_join(
        &self,
        node: &Arc<dyn ExecutionPlan>,
        kind: JoinType,
        children: &[Family],
    ) -> Checked {
        match children {
            _ if emits_left(kind) => {
                self.refuse(node, "every task would emit the unmatched rows of its build side")
            }
            [Family::Replicated, right] => Ok(handed_on(node, 1, right)),
            [left, _] => self.refuse(node, format!("its build side is {left}")),
            _ => self.refuse(node, "it has not two inputs"),
        }
    }

    /// A hash join of each partition with its like.
    pub(super) fn partitioned_join(
        &self,
        node: &Arc<dyn ExecutionPlan>,
        join: &HashJoinExec,
        children: &[Family],
    ) -> Checked {
        let kind = *join.join_type();
        let family = match children {
            [Family::Shuffled, Family::Shuffled] => return self.partitioned(node, children),
            // What all tasks have needs to be in no particular one, if its unmatched rows do not come out.
            [Family::Replicated, right] if !emits_left(kind) => handed_on(node, 1, right),
            [left, Family::Replicated] if !emits_right(kind) => handed_on(node, 0, left),
            _ => match joined_by_slice(node, join, children) {
                Some(family) => family,
                None => return self.partitioned(node, children),
            },
        };
        self.partitions_match(node).map(|()| family)
    }
}

/// The family of a join whose sides are both in the tasks of their slices, by keys that it joins on: equal
/// keys are in one task, and every row of either side is in one task only, so that no kind of join loses or
/// doubles a row. `None` for any other.
fn joined_by_slice(
    node: &Arc<dyn ExecutionPlan>,
    join: &HashJoinExec,
    children: &[Family],
) -> Option<Family> {
    let [Family::Sliced(left), Family::Sliced(right)] = children else { return None };
    let (left_schema, right_schema) = (join.left().schema(), join.right().schema());
    let is_by_key = join
        .on()
        .iter()
        .any(|(l, r)| left.are_by(l, &left_schema) && right.are_by(r, &right_schema));
    let tasks = left.tasks_with(right).filter(|_| is_by_key)?;
    let keys = key_columns(node, |source| match source.child {
        0 => left.keys().contains(&source.column),
        _ => right.keys().contains(&source.column),
    });
    Some(Slices::by(keys, &tasks).map_or(Family::Spread, Family::Sliced))
}

/// Whether a join emits rows of its left side that match nothing, or that match something once.
fn emits_left(kind: JoinType) -> bool {
    !matches!(
        kind,
        JoinType::Inner
            | JoinType::Right
            | JoinType::RightSemi
            | JoinType::RightAnti
            | JoinType::RightMark
    )
}

/// The same of its right side.
fn emits_right(kind: JoinType) -> bool {
    !matches!(
        kind,
        JoinType::Inner
            | JoinType::Left
            | JoinType::LeftSemi
            | JoinType::LeftAnti
            | JoinType::LeftMark
    )
}

/// How many partitions each input has.
pub(super) fn partition_counts(node: &Arc<dyn ExecutionPlan>) -> Vec<usize> {
    let inputs = node.children();
    inputs.iter().map(|child| child.output_partitioning().partition_count()).collect()
}
