//! The plans that gave wrong rows silently, and what the checker says of them.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, ColumnVersion, Epoch, SliceId, TableId};
use basalt_storage::manifest::Layout;
use datafusion::common::{NullEquality, Statistics};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::aggregates::PhysicalGroupBy;

use super::*;
use crate::scan::{ScanSegment, ScanTable};

const TASKS: usize = 2;
const PARTITIONS: usize = 2;

fn segment() -> ScanSegment {
    ScanSegment {
        slice: SliceId(0),
        segment: SegmentId::generate(),
        layout: Layout::Wide,
        rows: 10,
        row_groups: vec![5, 5],
        meta_digest: Digest::of(b""),
        column_versions: vec![Some(ColumnVersion::FIRST)],
        holders: vec![],
    }
}

fn scan(segments: Vec<ScanSegment>) -> Arc<SegmentScanExec> {
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
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

/// The rows of a leaf after a network shuffle by `k`.
fn shuffled() -> Arc<dyn ExecutionPlan> {
    let leaf = leaf();
    let key = col("k", &leaf.schema()).unwrap();
    let hash = Partitioning::Hash(vec![key], PARTITIONS);
    let repartition = RepartitionExec::try_new(leaf, hash).unwrap();
    Arc::new(NetworkShuffleExec::try_new(Arc::new(repartition), TASKS).unwrap())
}

fn join(left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let on = vec![(col("k", &left.schema()).unwrap(), col("k", &right.schema()).unwrap())];
    let join = HashJoinExec::try_new(
        left,
        right,
        on,
        None,
        &JoinType::Inner,
        None,
        PartitionMode::Partitioned,
        NullEquality::NullEqualsNothing,
        false,
    );
    Arc::new(join.unwrap())
}

fn aggregate(mode: AggregateMode, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let schema = input.schema();
    let keys = PhysicalGroupBy::new_single(vec![(col("k", &schema).unwrap(), "k".to_owned())]);
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
    assert!(verdict(Arc::new(twice)).unwrap_err().reason.contains("twice"));
    let none: Arc<dyn ExecutionPlan> = Arc::new(original.restricted(PARTITIONS, |_| false));
    let lost = DistributedLeafExec::try_new(original, vec![none.clone(), none]).unwrap();
    assert!(verdict(Arc::new(lost)).unwrap_err().reason.contains("not assigned"));
}
