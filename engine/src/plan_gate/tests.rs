//! Every kind of node that may not run is found wherever it hides; real plans pass.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion_proto::bytes::physical_plan_to_bytes;
use datafusion_proto::protobuf::*;

use super::*;

fn node(kind: Kind) -> PhysicalPlanNode {
    PhysicalPlanNode { physical_plan_type: Some(kind) }
}

fn child(node: PhysicalPlanNode) -> Option<Box<PhysicalPlanNode>> {
    Some(Box::new(node))
}

fn empty() -> PhysicalPlanNode {
    node(Kind::Empty(EmptyExecNode::default()))
}

fn gate(root: PhysicalPlanNode) -> Result<(), PlanRefusal> {
    check_plan_bytes(&root.encode_to_vec())
}

/// Every kind of node that reads or writes by itself, or that workers have no use for.
fn forbidden() -> Vec<(&'static str, PhysicalPlanNode)> {
    vec![
        ("ParquetScan", node(Kind::ParquetScan(ParquetScanExecNode::default()))),
        ("CsvScan", node(Kind::CsvScan(CsvScanExecNode::default()))),
        ("JsonScan", node(Kind::JsonScan(JsonScanExecNode::default()))),
        ("ArrowScan", node(Kind::ArrowScan(ArrowScanExecNode::default()))),
        ("AvroScan", node(Kind::AvroScan(AvroScanExecNode::default()))),
        ("ParquetSink", node(Kind::ParquetSink(Box::default()))),
        ("CsvSink", node(Kind::CsvSink(Box::default()))),
        ("JsonSink", node(Kind::JsonSink(Box::default()))),
        ("Explain", node(Kind::Explain(ExplainExecNode::default()))),
        ("Analyze", node(Kind::Analyze(Box::default()))),
        ("ScalarSubquery", node(Kind::ScalarSubquery(Box::default()))),
    ]
}

/// Every way in which an allowed node can have another one below it.
fn hidden(inner: &PhysicalPlanNode) -> Vec<PhysicalPlanNode> {
    let inner = || inner.clone();
    let unary = |input: Option<Box<PhysicalPlanNode>>| {
        vec![
            Kind::Projection(Box::new(ProjectionExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::Filter(Box::new(FilterExecNode { input: input.clone(), ..Default::default() })),
            Kind::Aggregate(Box::new(AggregateExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::Sort(Box::new(SortExecNode { input: input.clone(), ..Default::default() })),
            Kind::Window(Box::new(WindowAggExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::Unnest(Box::new(UnnestExecNode { input: input.clone(), ..Default::default() })),
            Kind::Merge(Box::new(CoalescePartitionsExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::GlobalLimit(Box::new(GlobalLimitExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::LocalLimit(Box::new(LocalLimitExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::Cooperative(Box::new(CooperativeExecNode { input: input.clone() })),
            Kind::AsyncFunc(Box::new(AsyncFuncExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::Buffer(Box::new(BufferExecNode { input: input.clone(), ..Default::default() })),
            Kind::CoalesceBatches(Box::new(CoalesceBatchesExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::SortPreservingMerge(Box::new(SortPreservingMergeExecNode {
                input: input.clone(),
                ..Default::default()
            })),
            Kind::Repartition(Box::new(RepartitionExecNode {
                input,
                partitioning: Some(unknown(2)),
                ..Default::default()
            })),
        ]
    };
    let (left, right) = (child(empty()), child(inner()));
    let mut kinds = unary(child(inner()));
    kinds.extend([
        Kind::HashJoin(Box::new(HashJoinExecNode {
            left: left.clone(),
            right: right.clone(),
            ..Default::default()
        })),
        Kind::HashJoin(Box::new(HashJoinExecNode {
            left: right.clone(),
            right: left.clone(),
            ..Default::default()
        })),
        Kind::CrossJoin(Box::new(CrossJoinExecNode { left: left.clone(), right: right.clone() })),
        Kind::NestedLoopJoin(Box::new(NestedLoopJoinExecNode {
            left: left.clone(),
            right: right.clone(),
            ..Default::default()
        })),
        Kind::SymmetricHashJoin(Box::new(SymmetricHashJoinExecNode {
            left: left.clone(),
            right: right.clone(),
            ..Default::default()
        })),
        Kind::SortMergeJoin(Box::new(SortMergeJoinExecNode { left, right, ..Default::default() })),
        Kind::Union(UnionExecNode { inputs: vec![empty(), inner(), empty()] }),
        Kind::Interleave(InterleaveExecNode { inputs: vec![empty(), inner()] }),
        Kind::Extension(PhysicalExtensionNode {
            node: Coded { codec: ENGINE_CODEC, bytes: vec![] }.encode_to_vec(),
            inputs: vec![inner()],
        }),
        Kind::Extension(PhysicalExtensionNode {
            node: Coded { codec: DISTRIBUTED_CODEC, bytes: vec![] }.encode_to_vec(),
            inputs: vec![empty(), inner()],
        }),
    ]);
    kinds.into_iter().map(node).collect()
}

#[test]
fn every_forbidden_node_is_named_at_the_root_and_below_every_other_node() {
    for (name, bad) in forbidden() {
        let expected = Err(PlanRefusal::Node { node: name });
        assert_eq!(gate(bad.clone()), expected);
        for wrapped in hidden(&bad) {
            assert_eq!(gate(wrapped.clone()), expected, "below {wrapped:?}");
            for twice in hidden(&wrapped) {
                assert_eq!(gate(twice), expected);
            }
        }
    }
    for wrapped in hidden(&empty()) {
        assert_eq!(gate(wrapped.clone()), Ok(()), "{wrapped:?}");
    }
}

fn unknown(count: u64) -> Partitioning {
    Partitioning { partition_method: Some(PartitionMethod::Unknown(count)) }
}

fn spread(method: PartitionMethod) -> PhysicalPlanNode {
    node(Kind::Repartition(Box::new(RepartitionExecNode {
        input: child(empty()),
        partitioning: Some(Partitioning { partition_method: Some(method) }),
        ..Default::default()
    })))
}

fn distributed(bytes: DistributedNode) -> PhysicalPlanNode {
    let coded = Coded { codec: DISTRIBUTED_CODEC, bytes: bytes.encode_to_vec() };
    let node_bytes = coded.encode_to_vec();
    node(Kind::Extension(PhysicalExtensionNode { node: node_bytes, inputs: vec![empty()] }))
}

#[test]
fn counts_that_would_allocate_or_loop_for_ever_are_refused() {
    let check = |root: PhysicalPlanNode, what: &'static str| match gate(root) {
        Err(PlanRefusal::Count { what: found, .. }) => assert_eq!(found, what),
        other => panic!("{what}: {other:?}"),
    };
    let hash = |partition_count| {
        PartitionMethod::Hash(PhysicalHashRepartition { hash_expr: vec![], partition_count })
    };
    for count in [0, PARTITIONS_MAX + 1, u64::MAX] {
        check(spread(hash(count)), "partitions");
        check(spread(PartitionMethod::RoundRobin(count)), "partitions");
    }
    check(spread(PartitionMethod::Unknown(u64::MAX)), "partitions");
    let many = EmptyExecNode { partitions: u32::MAX, ..Default::default() };
    check(node(Kind::Empty(many)), "partitions");
    let broadcast = Some(Broadcast { consumer_tasks: u64::MAX });
    check(distributed(DistributedNode { broadcast, ..Default::default() }), "partitions");
    let exchange = Some(Exchange { partitioning: Some(unknown(1 << 40)) });
    check(distributed(DistributedNode { shuffle: exchange, ..Default::default() }), "partitions");
    let filter =
        FilterExecNode { input: child(empty()), batch_size: u32::MAX, ..Default::default() };
    check(node(Kind::Filter(Box::new(filter))), "rows per batch");
    let series = GenerateSeriesNode { target_batch_size: u32::MAX, ..Default::default() };
    check(node(Kind::GenerateSeries(series)), "rows per batch");
    let wide = vec![empty(); NODES_MAX + 1];
    check(node(Kind::Union(UnionExecNode { inputs: wide })), "nodes");
    let fat = EmptyExecNode { partitions: 65_536, ..Default::default() };
    let fat = vec![node(Kind::Empty(fat)); 257];
    check(node(Kind::Union(UnionExecNode { inputs: fat })), "partitions in all");
    let partitioning = Partitioning { partition_method: Some(hash(1 << 40)) }.encode_to_vec();
    assert!(check_partitioning_bytes(&partitioning).is_err());
    assert_eq!(check_partitioning_bytes(&unknown(4).encode_to_vec()), Ok(()));
}

#[test]
fn unknown_extensions_and_compressed_rows_are_refused() {
    let coded = Coded { codec: 2, bytes: vec![] }.encode_to_vec();
    let unknown = node(Kind::Extension(PhysicalExtensionNode { node: coded, inputs: vec![] }));
    assert_eq!(gate(unknown), Err(PlanRefusal::Node { node: "Extension" }));

    let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let batch = RecordBatch::try_from_iter([("n", rows)]).unwrap();
    let check = |compression, expected| {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        let partitions = vec![writer.into_inner().unwrap()];
        let scan = MemoryScanExecNode { partitions, ..Default::default() };
        assert_eq!(gate(node(Kind::MemoryScan(scan))), expected);
    };
    check(None, Ok(()));
    check(Some(CompressionType::LZ4_FRAME), Err(PlanRefusal::Rows(UnsafeIpc::Compressed)));
}

#[test]
fn garbage_truncated_and_endlessly_nested_bytes_are_refused() {
    let check = |bytes: &[u8]| assert_eq!(check_plan_bytes(bytes), Err(PlanRefusal::Malformed));
    check(b"");
    check(b"GET / HTTP/1.1\r\n\r\n");
    check(&[0xff; 4096]);
    let whole = hidden(&empty()).swap_remove(0).encode_to_vec();
    check(&whole[..whole.len() - 1]);
    let mut deep = empty();
    for _ in 0..200 {
        deep = node(Kind::Cooperative(Box::new(CooperativeExecNode { input: child(deep) })));
    }
    assert_eq!(check_plan_bytes(&deep.encode_to_vec()), Err(PlanRefusal::TooDeep));
    let status = Status::from(PlanRefusal::TooDeep);
    let error = crate::error::from_datafusion(datafusion::error::DataFusionError::External(
        Box::new(status),
    ));
    assert_eq!(error.code, crate::error::ErrorCode::InvalidStatement, "{error}");
}

#[tokio::test]
async fn plans_that_datafusion_makes_pass() {
    let context = SessionContext::new();
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    context.register_batch("t", RecordBatch::try_new(schema, vec![column]).unwrap()).unwrap();
    for sql in [
        "SELECT a, count(*) FROM t WHERE a > 1 GROUP BY a ORDER BY 2 DESC LIMIT 3",
        "SELECT x.a FROM t x JOIN t y ON x.a = y.a LEFT JOIN t z ON y.a = z.a + 1",
        "SELECT a FROM t UNION ALL SELECT value FROM generate_series(1, 10) ORDER BY 1",
        "SELECT sum(a) OVER (ORDER BY a), [a, a] FROM t WHERE a IN (SELECT 1)",
    ] {
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let bytes = physical_plan_to_bytes(Arc::<dyn ExecutionPlan>::clone(&plan)).unwrap();
        assert_eq!(check_plan_bytes(&bytes), Ok(()), "{sql}");
    }
}
