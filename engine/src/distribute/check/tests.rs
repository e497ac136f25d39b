//! The plans that gave wrong rows silently, and what the checker says of them.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, ColumnVersion, Epoch, SegmentId, SliceId, TableId};
use basalt_storage::manifest::Layout;
use datafusion::common::{NullEquality, ScalarValue, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::functions::math::random;
use datafusion::physical_expr::expressions::{IsNotNullExpr, col, lit};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::PhysicalGroupBy;
use proptest::prelude::*;

use super::*;
use crate::scan::{ScanSegment, ScanTable, SegmentScanExec};

mod slices;

const TASKS: usize = 2;
const PARTITIONS: usize = 2;

fn segment() -> ScanSegment {
    ScanSegment {
        table: TableId(1),
        slice: SliceId(0),
        segment: SegmentId::generate(),
        layout: Layout::Wide,
        rows: 10,
        row_groups: vec![5, 5],
        meta_digest: Digest::of(b""),
        column_versions: vec![Some(ColumnVersion::FIRST)],
        deleted: None,
        ordinal: 0,
        holders: vec![],
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]))
}

fn scan(segments: Vec<ScanSegment>) -> Arc<SegmentScanExec> {
    let schema = schema();
    let statistics = Statistics::new_unknown(&schema);
    let table = ScanTable {
        epoch: Epoch(1),
        table: TableId(1),
        name: "t".to_owned(),
        columns: vec![ColumnId(1)],
        schema,
        endpoints: BTreeMap::new(),
    };
    Arc::new(SegmentScanExec::new(Arc::new(table), segments, PARTITIONS, statistics))
}

/// A leaf cut into tasks: one segment each.
fn leaf() -> Arc<dyn ExecutionPlan> {
    let segments = vec![segment(), segment()];
    let original = scan(segments.clone());
    let variants = segments.iter().map(|own| {
        let id = own.segment;
        Arc::new(original.restricted(PARTITIONS, |s| s.segment == id)) as Arc<dyn ExecutionPlan>
    });
    let variants: Vec<_> = variants.collect();
    Arc::new(DistributedLeafExec::try_new(original, variants).unwrap())
}

proptest! {
    #[test]
    fn what_every_worker_has_is_shared_out_so_that_each_row_group_is_in_one_task(
        groups in prop::collection::vec(prop::collection::vec(1_u32..100_000, 0..5), 0..6),
        tasks in 1_usize..5,
        partitions in 1_usize..4,
    ) {
        let segments = (0..).zip(groups).map(|(ordinal, row_groups)| {
            let rows = row_groups.iter().map(|rows| u64::from(*rows)).sum();
            ScanSegment { row_groups, rows, ordinal, ..segment() }
        });
        let original = scan(segments.collect());
        let shares = original.shared_out(tasks, partitions);
        prop_assert!(shares.iter().all(|share| share.partitions().len() == partitions));
        for of in original.segments() {
            let groups = |share: &SegmentScanExec| {
                let units = share.partitions().iter().flatten();
                let own = units.filter(|u| share.segments()[u.segment as usize].segment == of.segment);
                own.map(|unit| unit.end - unit.first).sum::<u32>()
            };
            let shared: Vec<_> = shares.iter().map(groups).collect();
            prop_assert!(shared.iter().max().unwrap() - shared.iter().min().unwrap() <= 1);
        }
        let shares = shares.into_iter().map(|share| Arc::new(share) as Arc<dyn ExecutionPlan>);
        let leaf: Arc<dyn ExecutionPlan> =
            Arc::new(DistributedLeafExec::try_new(original, shares).unwrap());
        prop_assert_eq!(StageCheck { tasks }.leaf(&leaf).unwrap(), Family::Spread);
    }
}

#[test]
fn small_segments_are_shared_out_evenly_too() {
    let small = |ordinal| ScanSegment { row_groups: vec![10], ordinal, ..segment() };
    let original = scan((0..16).map(small).collect());
    let rows = original
        .shared_out(3, PARTITIONS)
        .iter()
        .map(SegmentScanExec::assigned_rows)
        .collect::<Vec<_>>();
    assert_eq!(rows, [60, 50, 50]);
}

/// The rows of a leaf after a network shuffle by `k`.
fn shuffled() -> Arc<dyn ExecutionPlan> {
    let leaf = leaf();
    let key = col("k", &leaf.schema()).unwrap();
    let hash = Partitioning::Hash(vec![key], PARTITIONS);
    let repartition = RepartitionExec::try_new(leaf, hash).unwrap();
    Arc::new(NetworkShuffleExec::try_new(Arc::new(repartition), TASKS).unwrap())
}

fn join(left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    join_as(JoinType::Inner, PartitionMode::Partitioned, left, right)
}

fn join_as(
    kind: JoinType,
    mode: PartitionMode,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
) -> Arc<dyn ExecutionPlan> {
    let on = vec![(col("k", &left.schema()).unwrap(), col("k", &right.schema()).unwrap())];
    let equality = NullEquality::NullEqualsNothing;
    let join =
        HashJoinExec::try_new(left, right, on, None, &kind, None, mode, equality, false).unwrap();
    Arc::new(join)
}

/// The rows of a leaf in every task, as a join collects them.
fn broadcast() -> Arc<dyn ExecutionPlan> {
    let broadcast = Arc::new(BroadcastExec::new(leaf(), TASKS));
    Arc::new(CoalescePartitionsExec::new(Arc::new(
        NetworkBroadcastExec::try_new(broadcast, TASKS).unwrap(),
    )))
}

fn aggregate(mode: AggregateMode, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let keys = vec![(col("k", &input.schema()).unwrap(), "k".to_owned())];
    aggregate_by(PhysicalGroupBy::new_single(keys), mode, input)
}

fn aggregate_by(
    keys: PhysicalGroupBy,
    mode: AggregateMode,
    input: Arc<dyn ExecutionPlan>,
) -> Arc<dyn ExecutionPlan> {
    let schema = input.schema();
    Arc::new(AggregateExec::try_new(mode, keys, vec![], vec![], input, schema).unwrap())
}

/// What the checker says of `stage` run in several tasks.
fn verdict(stage: Arc<dyn ExecutionPlan>) -> Result<(), Refusal> {
    let head = NetworkCoalesceExec::try_new(stage, TASKS, 1).unwrap();
    check_plan(&(Arc::new(head) as Arc<dyn ExecutionPlan>))
}

#[test]
fn a_single_mode_aggregate_over_a_cut_leaf_is_refused() {
    let refusal = verdict(aggregate(AggregateMode::Single, leaf())).unwrap_err();
    assert_eq!((refusal.node.as_str(), refusal.tasks), ("AggregateExec", TASKS));
}

#[test]
fn a_final_aggregate_needs_a_shuffle_by_its_keys() {
    assert!(verdict(aggregate(AggregateMode::SinglePartitioned, leaf())).is_err());
    assert_eq!(verdict(aggregate(AggregateMode::SinglePartitioned, shuffled())), Ok(()));
    assert_eq!(verdict(aggregate(AggregateMode::Partial, leaf())), Ok(()));
}

#[test]
fn a_join_of_a_shuffled_side_with_one_that_only_lies_by_its_slices_is_refused() {
    assert_eq!(verdict(join(shuffled(), shuffled())), Ok(()));
    assert!(verdict(join(leaf(), shuffled())).is_err());
    // The three-way plan: the inner join's exchanges removed, the outer side shuffled.
    let refusal = verdict(join(join(leaf(), leaf()), shuffled())).unwrap_err();
    assert_eq!(refusal.node, "HashJoinExec");
}

/// datafusion-distributed takes it for the root of a shuffle, and a worker leaves it out.
#[test]
fn a_repartition_is_not_collected_at_the_root_of_a_stage() {
    let hash = Partitioning::Hash(vec![col("k", &schema()).unwrap()], PARTITIONS);
    let root = RepartitionExec::try_new(leaf(), hash).unwrap();
    assert!(verdict(Arc::new(root)).unwrap_err().reason.contains("sent already"));
}

#[test]
fn a_leaf_that_is_not_cut_may_only_run_in_one_task() {
    let whole: Arc<dyn ExecutionPlan> = scan(vec![segment()]);
    assert!(verdict(Arc::clone(&whole)).is_err());
    assert_eq!(check_plan(&whole), Ok(()));
}

#[test]
fn a_row_group_in_two_tasks_or_in_none_is_refused() {
    let segments = vec![segment(), segment()];
    let original = scan(segments);
    let all: Arc<dyn ExecutionPlan> = original.clone();
    let twice = DistributedLeafExec::try_new(original.clone(), vec![all.clone(), all]).unwrap();
    assert!(verdict(Arc::new(twice)).unwrap_err().reason.contains("same rows"));
    let first = original.segments()[0].segment;
    let first: Arc<dyn ExecutionPlan> =
        Arc::new(original.restricted(PARTITIONS, |segment| segment.segment == first));
    let all: Arc<dyn ExecutionPlan> = original.clone();
    let twice = DistributedLeafExec::try_new(original.clone(), [first, all]).unwrap();
    assert!(verdict(Arc::new(twice)).unwrap_err().reason.contains("twice"));
    let none: Arc<dyn ExecutionPlan> = Arc::new(original.restricted(PARTITIONS, |_| false));
    let lost = DistributedLeafExec::try_new(original, vec![none.clone(), none]).unwrap();
    assert!(verdict(Arc::new(lost)).unwrap_err().reason.contains("not assigned"));
}

#[test]
fn a_join_that_collects_may_not_emit_the_rows_of_its_replicated_side() {
    for (kind, safe) in [
        (JoinType::Inner, true),
        (JoinType::Right, true),
        (JoinType::RightSemi, true),
        (JoinType::RightAnti, true),
        (JoinType::Left, false),
        (JoinType::Full, false),
        (JoinType::LeftSemi, false),
        (JoinType::LeftAnti, false),
    ] {
        let verdict = verdict(join_as(kind, PartitionMode::CollectLeft, broadcast(), leaf()));
        assert_eq!(verdict.is_ok(), safe, "{kind:?}: {verdict:?}");
    }
    let spread = join_as(JoinType::Inner, PartitionMode::CollectLeft, coalesced(leaf()), leaf());
    assert!(verdict(spread).unwrap_err().reason.contains("build side is spread"));
}

fn coalesced(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(CoalescePartitionsExec::new(input))
}

#[test]
fn a_join_whose_mode_is_undecided_is_refused() {
    let plan = join_as(JoinType::Inner, PartitionMode::Auto, shuffled(), shuffled());
    assert_eq!(verdict(plan).unwrap_err().reason, "its mode has not been decided");
}

#[test]
fn a_union_with_a_replicated_side_is_refused() {
    let union = UnionExec::try_new(vec![leaf(), broadcast()]).unwrap();
    assert!(verdict(union).unwrap_err().reason.contains("more than once"));
}

#[test]
fn a_limit_on_the_one_partition_of_each_task_is_refused() {
    let filter = |input| {
        let predicate = Arc::new(IsNotNullExpr::new(col("k", &schema()).unwrap()));
        Arc::new(FilterExec::try_new(predicate, input).unwrap()) as Arc<dyn ExecutionPlan>
    };
    let limited = |plan: Arc<dyn ExecutionPlan>| plan.with_fetch(Some(3)).unwrap();
    let merged = || {
        let by_k = PhysicalSortExpr::new_default(col("k", &schema()).unwrap());
        Arc::new(SortPreservingMergeExec::new([by_k].into(), leaf())) as Arc<dyn ExecutionPlan>
    };
    for plan in [
        limited(coalesced(leaf())),
        limited(merged()),
        limited(filter(coalesced(leaf()))),
        limited(join_as(JoinType::Inner, PartitionMode::CollectLeft, broadcast(), merged())),
    ] {
        assert_eq!(verdict(plan).unwrap_err().reason, "each task would take its own first rows");
    }
    // On several partitions it is no limit of the query's, only a bound for each of them.
    assert_eq!(verdict(limited(filter(leaf()))), Ok(()));
    assert_eq!(verdict(Arc::new(LocalLimitExec::new(coalesced(leaf()), 3))), Ok(()));
}

/// Another value for each row, in every task.
fn random_number() -> Arc<dyn PhysicalExpr> {
    Arc::new(ScalarFunctionExpr::new(
        "random",
        random(),
        vec![],
        Arc::new(Field::new("random", DataType::Float64, false)),
        Arc::new(ConfigOptions::default()),
    ))
}

#[test]
fn replicas_that_differ_between_tasks_are_refused() {
    let random = random_number();
    let columns = |expression: Arc<dyn PhysicalExpr>| {
        let columns =
            [(col("k", &schema()).unwrap(), "k".to_owned()), (expression, "x".to_owned())];
        Arc::new(ProjectionExec::try_new(columns, broadcast()).unwrap()) as Arc<dyn ExecutionPlan>
    };
    let joined = |left| join_as(JoinType::Inner, PartitionMode::CollectLeft, left, leaf());
    assert_eq!(verdict(joined(columns(col("k", &schema()).unwrap()))), Ok(()));
    assert_eq!(verdict(joined(columns(random))).unwrap_err().node, "ProjectionExec");
}

#[test]
fn grouping_sets_are_never_grouped_in_one_step_over_a_shuffle() {
    let key = (col("k", &schema()).unwrap(), "k".to_owned());
    let null = (lit(ScalarValue::Int64(None)), "k".to_owned());
    let sets = PhysicalGroupBy::new(vec![key], vec![null], vec![vec![false], vec![true]], true);
    let plan = aggregate_by(sets, AggregateMode::SinglePartitioned, shuffled());
    assert!(verdict(plan).unwrap_err().reason.contains("no shuffle"));
}

#[test]
fn a_recursive_query_over_an_exchange_is_refused_even_in_one_task() {
    let recursive = |term: Arc<dyn ExecutionPlan>| {
        let static_term = coalesced(scan(vec![segment()]));
        let query = RecursiveQueryExec::try_new("r".to_owned(), schema(), static_term, term, false);
        Arc::new(query.unwrap()) as Arc<dyn ExecutionPlan>
    };
    assert_eq!(check_plan(&recursive(coalesced(scan(vec![segment()])))), Ok(()));
    let refusal = check_plan(&recursive(coalesced(shuffled()))).unwrap_err();
    assert_eq!(refusal.node, "RecursiveQueryExec");
}

#[test]
fn a_variant_that_limits_its_rows_by_itself_is_refused() {
    let original = scan(vec![segment(), segment()]);
    let whole = original.with_fetch(Some(1)).unwrap();
    let none: Arc<dyn ExecutionPlan> = Arc::new(original.restricted(PARTITIONS, |_| false));
    let limited = DistributedLeafExec::try_new(original, vec![whole, none]).unwrap();
    assert!(verdict(Arc::new(limited)).unwrap_err().reason.contains("limits"));
}
