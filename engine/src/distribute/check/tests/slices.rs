//! Rows that are in the tasks of their slices: what may be joined and grouped there, and what not.

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{binary, cast};
use datafusion::physical_plan::joins::utils::JoinFilter;

use super::*;
use crate::scan::DistributionKey;

/// A table by its key: slice `s` in task `tasks[s]`.
fn by_slice_in(tasks: &[usize]) -> Arc<dyn ExecutionPlan> {
    let slices = u16::try_from(tasks.len()).unwrap();
    let segments: Vec<_> =
        (0..slices).map(|slice| ScanSegment { slice: SliceId(slice), ..segment() }).collect();
    let key = DistributionKey { read: 0, slices };
    let original = scan(segments).as_ref().clone().with_distribution_key(Some(key));
    let variants = (0..TASKS).map(|task| {
        let variant = original.restricted(PARTITIONS, |s| tasks[usize::from(s.slice.0)] == task);
        Arc::new(variant) as Arc<dyn ExecutionPlan>
    });
    let variants: Vec<_> = variants.collect();
    Arc::new(DistributedLeafExec::try_new(Arc::new(original), variants).unwrap())
}

fn by_slice() -> Arc<dyn ExecutionPlan> {
    by_slice_in(&[0, 1])
}

/// A table that every task reads.
fn everywhere() -> Arc<dyn ExecutionPlan> {
    let original = scan(vec![segment()]).as_ref().clone();
    let whole = || Arc::new(original.restricted(PARTITIONS, |_| true)) as Arc<dyn ExecutionPlan>;
    let variants = [whole(), whole()];
    Arc::new(DistributedLeafExec::try_new(Arc::new(original), variants).unwrap())
}

/// Repartitioned within each task.
fn hashed(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let key = col("k", &input.schema()).unwrap();
    let hash = Partitioning::Hash(vec![key], PARTITIONS);
    Arc::new(RepartitionExec::try_new(input, hash).unwrap())
}

const KINDS: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];

#[test]
fn tables_by_their_keys_are_joined_in_every_way_where_they_lie() {
    for kind in KINDS {
        let join =
            join_as(kind, PartitionMode::Partitioned, hashed(by_slice()), hashed(by_slice()));
        assert_eq!(verdict(join), Ok(()), "{kind:?}");
        let build = coalesced(by_slice());
        let join = join_as(kind, PartitionMode::CollectLeft, build, by_slice());
        assert_eq!(verdict(join), Ok(()), "{kind:?}");
    }
}

#[test]
fn partitions_within_tasks_have_to_match_too() {
    let join = join(by_slice(), by_slice());
    assert!(verdict(join).unwrap_err().reason.contains("not shuffled by the keys"));
}

#[test]
fn slices_in_other_tasks_are_not_joined() {
    let join = join(hashed(by_slice()), hashed(by_slice_in(&[1, 0])));
    assert!(verdict(join).is_err());
    // One of them has no rows in the slice that the other has elsewhere.
    let join = super::join(hashed(by_slice_in(&[0])), hashed(by_slice_in(&[0, 1])));
    assert_eq!(verdict(join), Ok(()));
}

#[test]
fn a_slice_in_two_tasks_is_no_slice() {
    let segments = vec![segment(), segment()];
    let key = DistributionKey { read: 0, slices: 2 };
    let original = scan(segments.clone()).as_ref().clone().with_distribution_key(Some(key));
    let variants = segments.iter().map(|own| {
        let variant = original.restricted(PARTITIONS, |s| s.segment == own.segment);
        Arc::new(variant) as Arc<dyn ExecutionPlan>
    });
    let variants: Vec<_> = variants.collect();
    let leaf = DistributedLeafExec::try_new(Arc::new(original), variants).unwrap();
    assert!(verdict(join(hashed(Arc::new(leaf)), hashed(by_slice()))).is_err());
}

/// DESIGN.md: rows vanish without a word where the inner join's exchanges are taken out and the third table
/// is hashed by DataFusion.
#[test]
fn in_the_three_way_plan_all_lie_by_slice_or_none_does() {
    let inner = || join(hashed(by_slice()), hashed(by_slice()));
    assert!(verdict(join(inner(), shuffled())).is_err());
    assert!(verdict(join(shuffled(), inner())).is_err());
    assert_eq!(verdict(join(inner(), hashed(by_slice()))), Ok(()));
    assert_eq!(verdict(join(join(shuffled(), shuffled()), shuffled())), Ok(()));
}

#[test]
fn what_every_task_has_is_joined_unless_its_unmatched_rows_come_out() {
    for kind in KINDS {
        let emits_left = matches!(
            kind,
            JoinType::Left
                | JoinType::Full
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark
        );
        let emits_right = matches!(
            kind,
            JoinType::Right
                | JoinType::Full
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark
        );
        for other in [leaf, by_slice] {
            let on_the_left = [
                (PartitionMode::Partitioned, hashed(everywhere()), hashed(other())),
                (PartitionMode::CollectLeft, coalesced(everywhere()), other()),
            ];
            for (mode, left, right) in on_the_left {
                let verdict = verdict(join_as(kind, mode, left, right));
                assert_eq!(verdict.is_ok(), !emits_left, "{kind:?} {mode:?}: {verdict:?}");
            }
            let on_the_right = [
                (PartitionMode::Partitioned, hashed(other()), hashed(everywhere())),
                (PartitionMode::CollectLeft, coalesced(other()), everywhere()),
            ];
            for (mode, left, right) in on_the_right {
                let verdict = verdict(join_as(kind, mode, left, right));
                assert_eq!(verdict.is_ok(), !emits_right, "{kind:?} {mode:?}: {verdict:?}");
            }
        }
    }
}

#[test]
fn what_every_task_has_is_not_sent_on() {
    assert!(verdict(everywhere()).is_err());
    assert!(verdict(join(hashed(everywhere()), hashed(everywhere()))).is_err());
    assert!(verdict(aggregate(AggregateMode::Partial, everywhere())).is_err());
}

/// Joined by a condition that is another in every task.
#[test]
fn replicas_are_not_joined_at_random() {
    let joined = |filter: Option<JoinFilter>| {
        let (left, right) = (hashed(everywhere()), hashed(everywhere()));
        let on = vec![(col("k", &left.schema()).unwrap(), col("k", &right.schema()).unwrap())];
        let (kind, mode) = (JoinType::Inner, PartitionMode::Partitioned);
        let equality = NullEquality::NullEqualsNothing;
        let join =
            HashJoinExec::try_new(left, right, on, filter, &kind, None, mode, equality, false);
        let replicas = key_of(&(Arc::new(join.unwrap()) as Arc<dyn ExecutionPlan>), 0);
        join_as(kind, PartitionMode::CollectLeft, coalesced(replicas), by_slice())
    };
    assert_eq!(verdict(joined(None)), Ok(()));
    let condition = binary(random_number(), Operator::Lt, lit(0.5), &Schema::empty()).unwrap();
    let filter = JoinFilter::new(condition, vec![], Arc::new(Schema::empty()));
    assert!(verdict(joined(Some(filter))).unwrap_err().reason.contains("differ"));
}

#[test]
fn groups_by_the_key_are_made_where_they_lie() {
    let grouped = |input| {
        let partial = aggregate(AggregateMode::Partial, input);
        aggregate(AggregateMode::FinalPartitioned, hashed(partial))
    };
    assert_eq!(verdict(grouped(by_slice())), Ok(()));
    assert!(verdict(grouped(leaf())).is_err());
    assert_eq!(verdict(join(grouped(by_slice()), hashed(by_slice()))), Ok(()));
}

#[test]
fn grouping_sets_have_no_key_of_their_slices() {
    let key = (col("k", &schema()).unwrap(), "k".to_owned());
    let null = (lit(ScalarValue::Int64(None)), "k".to_owned());
    let sets = PhysicalGroupBy::new(vec![key], vec![null], vec![vec![false], vec![true]], true);
    let partial = aggregate_by(sets, AggregateMode::Partial, by_slice());
    assert!(verdict(aggregate(AggregateMode::FinalPartitioned, hashed(partial))).is_err());
}

/// The columns of a join with `k` on both sides: `k` of the left side, then of the right.
fn key_of(join: &Arc<dyn ExecutionPlan>, column: usize) -> Arc<dyn ExecutionPlan> {
    let key: Arc<dyn PhysicalExpr> =
        Arc::new(datafusion::physical_expr::expressions::Column::new("k", column));
    Arc::new(ProjectionExec::try_new([(key, "k".to_owned())], Arc::clone(join)).unwrap())
}

#[test]
fn a_column_that_a_join_fills_with_null_is_no_key() {
    for (kind, left_is_key, right_is_key) in [
        (JoinType::Inner, true, true),
        (JoinType::Left, true, false),
        (JoinType::Right, false, true),
        (JoinType::Full, false, false),
    ] {
        let inner =
            join_as(kind, PartitionMode::Partitioned, hashed(by_slice()), hashed(by_slice()));
        for (column, is_key) in [(0, left_is_key), (1, right_is_key)] {
            let outer = join(hashed(key_of(&inner, column)), hashed(by_slice()));
            assert_eq!(verdict(outer).is_ok(), is_key, "{kind:?}, column {column}");
        }
    }
}

#[test]
fn a_key_is_followed_through_what_leaves_integers_as_they_are_only() {
    let through = |expr: Arc<dyn PhysicalExpr>| {
        let projected: Arc<dyn ExecutionPlan> =
            Arc::new(ProjectionExec::try_new([(expr, "k".to_owned())], by_slice()).unwrap());
        let key = col("k", &projected.schema()).unwrap();
        let keys = PhysicalGroupBy::new_single(vec![(key, "k".to_owned())]);
        let partial = aggregate_by(keys, AggregateMode::Partial, projected);
        verdict(aggregate(AggregateMode::FinalPartitioned, hashed(partial)))
    };
    let key = || col("k", &schema()).unwrap();
    assert_eq!(through(key()), Ok(()));
    assert_eq!(through(cast(key(), &schema(), DataType::Int32).unwrap()), Ok(()));
    assert!(through(cast(key(), &schema(), DataType::Float64).unwrap()).is_err());
    assert!(through(cast(key(), &schema(), DataType::Utf8).unwrap()).is_err());
}

#[test]
fn unions_of_tables_by_their_keys_are_by_their_keys() {
    let both = || UnionExec::try_new(vec![by_slice(), by_slice()]).unwrap();
    assert_eq!(verdict(join(hashed(both()), hashed(by_slice()))), Ok(()));
    let mixed = UnionExec::try_new(vec![by_slice(), leaf()]).unwrap();
    assert!(verdict(join(hashed(mixed), hashed(by_slice()))).is_err());
    let apart = UnionExec::try_new(vec![by_slice(), by_slice_in(&[1, 0])]).unwrap();
    assert!(verdict(join(hashed(apart), hashed(by_slice()))).is_err());
}
