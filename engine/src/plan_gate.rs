//! The bytes of a plan, looked at before anything decodes them (RULES 29, FAULTS A5 49).
//!
//! ```text
//! bytes ─▶ plan_gate: kinds of nodes, counts ─▶ DataFusion decodes ─▶ allow_list: nodes by name
//! ```
//! Decoding a node of DataFusion may already do what must not happen: allocate by a count in the
//! message, expand compressed rows, or panic. So the gate walks the message itself: a kind of node
//! that no worker runs is refused by name, wherever it hides, and so is a count that nothing real
//! has. Our own nodes and datafusion-distributed's are opaque bytes to DataFusion; their inputs are
//! not, and are walked like all others.
//!
//! Not here: paths (`files`, on opening), epochs and names of decoded nodes (`allow_list`), and
//! literals inside expressions, which come from whoever knows the cluster secret.

use datafusion_proto::protobuf::partitioning::PartitionMethod;
use datafusion_proto::protobuf::physical_plan_node::PhysicalPlanType as Kind;
use datafusion_proto::protobuf::{Partitioning, PhysicalExtensionNode, PhysicalPlanNode};
use prost::Message;
use tonic::Status;

use crate::error::{ErrorCode, SqlError, carried_text};
use crate::ipc::{Compression, UnsafeIpc, check_stream};

/// Nodes of one plan. A logical plan has at most 20,000 (`plan_size`), each of which becomes a few.
const NODES_MAX: usize = 100_000;
/// Partitions of one node: 256 per task (`target_partitions`) of 256 tasks.
pub const PARTITIONS_MAX: u64 = 65_536;
/// Partitions that all nodes of a plan ask for together.
const PARTITIONS_TOTAL_MAX: u64 = 1 << 24;
/// Rows per batch that a node may ask for; sessions have at most 65,536.
const BATCH_ROWS_MAX: u32 = 65_536;

/// Why the bytes of a plan are not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanRefusal {
    /// They are no plan.
    #[error("a plan is malformed")]
    Malformed,
    /// They are nested deeper than a decoder goes, which only a plan of ours is.
    #[error("a plan is nested too deeply")]
    TooDeep,
    /// A node reads or writes files by itself, or is none that runs on workers.
    #[error("plan node {node} is not allowed on a worker")]
    Node {
        /// Its kind.
        node: &'static str,
    },
    /// A count is out of all proportion.
    #[error("a plan asks for {count} {what}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
    },
    /// Its rows are not safe to decode.
    #[error("the rows of a plan cannot be used: {0}")]
    Rows(#[from] UnsafeIpc),
}

impl From<PlanRefusal> for Status {
    fn from(refusal: PlanRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            PlanRefusal::Node { .. } => Self::permission_denied(message),
            // The one refusal that a user can do something about.
            PlanRefusal::TooDeep => Self::invalid_argument(carried_text(
                SqlError::new(
                    ErrorCode::InvalidStatement,
                    "the statement is nested too deeply: its plan cannot be sent to a worker",
                )
                .with_hint("store what comes in between with CREATE TABLE ... AS SELECT"),
            )),
            _ => Self::invalid_argument(message),
        }
    }
}

/// Why a message cannot be decoded: prost tells its limit of a hundred levels in words alone.
fn refusal(error: prost::DecodeError) -> PlanRefusal {
    match error.to_string().contains("recursion limit") {
        true => PlanRefusal::TooDeep,
        false => PlanRefusal::Malformed,
    }
}

/// Looks at an encoded plan.
///
/// # Errors
/// [`PlanRefusal`].
pub fn check_plan_bytes(plan: &[u8]) -> Result<(), PlanRefusal> {
    let root = PhysicalPlanNode::decode(plan).map_err(refusal)?;
    let mut walk = Walk { waiting: vec![&root], partitions: 0 };
    let mut nodes = 0;
    while let Some(node) = walk.waiting.pop() {
        nodes += 1;
        if nodes > NODES_MAX {
            return Err(PlanRefusal::Count { what: "nodes", count: nodes as u64 });
        }
        walk.visit(node)?;
    }
    Ok(())
}

/// Looks at an encoded partitioning, as it comes with a request to run a task.
///
/// # Errors
/// [`PlanRefusal`].
pub fn check_partitioning_bytes(partitioning: &[u8]) -> Result<(), PlanRefusal> {
    let partitioning = Partitioning::decode(partitioning).map_err(|_| PlanRefusal::Malformed)?;
    check_partitions(partition_count(&partitioning)?)
}

/// A number of partitions that something real can have.
///
/// # Errors
/// [`PlanRefusal::Count`].
pub fn check_partitions(count: u64) -> Result<(), PlanRefusal> {
    match count {
        0..=PARTITIONS_MAX => Ok(()),
        _ => Err(PlanRefusal::Count { what: "partitions", count }),
    }
}

/// How many partitions rows are spread over. By hash or in turn it cannot be none.
fn partition_count(partitioning: &Partitioning) -> Result<u64, PlanRefusal> {
    let count = match &partitioning.partition_method {
        Some(PartitionMethod::Unknown(count)) => return Ok(*count),
        Some(PartitionMethod::RoundRobin(count)) => *count,
        Some(PartitionMethod::Hash(hash)) => hash.partition_count,
        Some(PartitionMethod::Range(range)) => range.split_point.len() as u64 + 1,
        None => return Err(PlanRefusal::Malformed),
    };
    if count == 0 { Err(PlanRefusal::Count { what: "partitions", count }) } else { Ok(count) }
}

/// The nodes still to visit, and what the visited ones ask for together.
struct Walk<'a> {
    waiting: Vec<&'a PhysicalPlanNode>,
    partitions: u64,
}

impl<'a> Walk<'a> {
    fn child(&mut self, input: &'a Option<Box<PhysicalPlanNode>>) -> Result<(), PlanRefusal> {
        self.waiting.push(input.as_deref().ok_or(PlanRefusal::Malformed)?);
        Ok(())
    }

    fn children(
        &mut self,
        left: &'a Option<Box<PhysicalPlanNode>>,
        right: &'a Option<Box<PhysicalPlanNode>>,
    ) -> Result<(), PlanRefusal> {
        self.child(left)?;
        self.child(right)
    }

    fn partitions(&mut self, count: u64) -> Result<(), PlanRefusal> {
        check_partitions(count)?;
        self.partitions += count;
        match self.partitions {
            0..=PARTITIONS_TOTAL_MAX => Ok(()),
            count => Err(PlanRefusal::Count { what: "partitions in all", count }),
        }
    }

    fn partitioning(&mut self, partitioning: Option<&Partitioning>) -> Result<(), PlanRefusal> {
        let partitioning = partitioning.ok_or(PlanRefusal::Malformed)?;
        self.partitions(partition_count(partitioning)?)
    }

    /// Every kind is listed, so that a new one of DataFusion does not compile unseen.
    fn visit(&mut self, node: &'a PhysicalPlanNode) -> Result<(), PlanRefusal> {
        match node.physical_plan_type.as_ref().ok_or(PlanRefusal::Malformed)? {
            Kind::Projection(node) => self.child(&node.input),
            Kind::GlobalLimit(node) => self.child(&node.input),
            Kind::LocalLimit(node) => self.child(&node.input),
            Kind::Aggregate(node) => self.child(&node.input),
            Kind::Sort(node) => self.child(&node.input),
            Kind::SortPreservingMerge(node) => self.child(&node.input),
            Kind::Merge(node) => self.child(&node.input),
            Kind::Window(node) => self.child(&node.input),
            Kind::Unnest(node) => self.child(&node.input),
            Kind::Cooperative(node) => self.child(&node.input),
            Kind::AsyncFunc(node) => self.child(&node.input),
            Kind::Buffer(node) => self.child(&node.input),
            Kind::HashJoin(node) => self.children(&node.left, &node.right),
            Kind::CrossJoin(node) => self.children(&node.left, &node.right),
            Kind::NestedLoopJoin(node) => self.children(&node.left, &node.right),
            Kind::SymmetricHashJoin(node) => self.children(&node.left, &node.right),
            Kind::SortMergeJoin(node) => self.children(&node.left, &node.right),
            Kind::Filter(node) => {
                batch_rows(node.batch_size)?;
                self.child(&node.input)
            }
            Kind::CoalesceBatches(node) => {
                batch_rows(node.target_batch_size)?;
                self.child(&node.input)
            }
            Kind::Repartition(node) => {
                self.partitioning(node.partitioning.as_ref())?;
                self.child(&node.input)
            }
            Kind::Union(node) => self.inputs(&node.inputs),
            Kind::Interleave(node) => self.inputs(&node.inputs),
            Kind::Extension(node) => self.extension(node),
            Kind::Empty(node) => self.partitions(u64::from(node.partitions)),
            Kind::PlaceholderRow(node) => self.partitions(u64::from(node.partitions)),
            Kind::GenerateSeries(node) => batch_rows(node.target_batch_size),
            Kind::MemoryScan(node) => {
                self.partitions(node.partitions.len() as u64)?;
                let mut partitions = node.partitions.iter();
                Ok(partitions.try_for_each(|rows| check_stream(rows, Compression::Refused))?)
            }
            Kind::ParquetScan(_) => refused("ParquetScan"),
            Kind::CsvScan(_) => refused("CsvScan"),
            Kind::JsonScan(_) => refused("JsonScan"),
            Kind::ArrowScan(_) => refused("ArrowScan"),
            Kind::AvroScan(_) => refused("AvroScan"),
            Kind::ParquetSink(_) => refused("ParquetSink"),
            Kind::CsvSink(_) => refused("CsvSink"),
            Kind::JsonSink(_) => refused("JsonSink"),
            Kind::Explain(_) => refused("Explain"),
            Kind::Analyze(_) => refused("Analyze"),
            Kind::ScalarSubquery(_) => refused("ScalarSubquery"),
        }
    }

    fn inputs(&mut self, inputs: &'a [PhysicalPlanNode]) -> Result<(), PlanRefusal> {
        if inputs.len() > NODES_MAX {
            return Err(PlanRefusal::Count { what: "nodes", count: inputs.len() as u64 });
        }
        self.waiting.extend(inputs);
        Ok(())
    }

    /// A node of datafusion-distributed, or one of ours.
    fn extension(&mut self, node: &'a PhysicalExtensionNode) -> Result<(), PlanRefusal> {
        let malformed = |_| PlanRefusal::Malformed;
        let coded = Coded::decode(node.node.as_slice()).map_err(malformed)?;
        match coded.codec {
            DISTRIBUTED_CODEC => {
                let node = DistributedNode::decode(coded.bytes.as_slice()).map_err(malformed)?;
                let exchanges = [&node.shuffle, &node.coalesce, &node.network_broadcast];
                for exchange in exchanges.into_iter().flatten() {
                    self.partitioning(exchange.partitioning.as_ref())?;
                }
                if let Some(broadcast) = node.broadcast {
                    self.partitions(broadcast.consumer_tasks)?;
                }
            }
            ENGINE_CODEC => {}
            _ => return refused("Extension"),
        }
        self.inputs(&node.inputs)
    }
}

fn refused<T>(node: &'static str) -> Result<T, PlanRefusal> {
    Err(PlanRefusal::Node { node })
}

fn batch_rows(rows: u32) -> Result<(), PlanRefusal> {
    match rows {
        0..=BATCH_ROWS_MAX => Ok(()),
        _ => Err(PlanRefusal::Count { what: "rows per batch", count: u64::from(rows) }),
    }
}

/// The order in which datafusion-distributed composes its own codec and ours.
const DISTRIBUTED_CODEC: u32 = 0;
const ENGINE_CODEC: u32 = 1;

/// An extension node's bytes, as `ComposedPhysicalExtensionCodec` frames them.
#[derive(Clone, PartialEq, Message)]
struct Coded {
    #[prost(uint32, tag = "1")]
    codec: u32,
    #[prost(bytes = "vec", tag = "2")]
    bytes: Vec<u8>,
}

/// What of datafusion-distributed's nodes has counts (its `DistributedExecProto`).
#[derive(Clone, PartialEq, Message)]
struct DistributedNode {
    #[prost(message, optional, tag = "1")]
    shuffle: Option<Exchange>,
    #[prost(message, optional, tag = "2")]
    coalesce: Option<Exchange>,
    #[prost(message, optional, tag = "5")]
    network_broadcast: Option<Exchange>,
    #[prost(message, optional, tag = "6")]
    broadcast: Option<Broadcast>,
}

#[derive(Clone, PartialEq, Message)]
struct Exchange {
    #[prost(message, optional, tag = "2")]
    partitioning: Option<Partitioning>,
}

#[derive(Clone, PartialEq, Message)]
struct Broadcast {
    #[prost(uint64, tag = "1")]
    consumer_tasks: u64,
}

#[cfg(test)]
mod tests;
