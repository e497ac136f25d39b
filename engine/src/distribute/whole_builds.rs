//! Joins within a task that build one hash table, where DataFusion would build one for each partition.
//!
//! DataFusion partitions both sides of a join by their keys, unless one is tiny. Across workers that is what a shuffle
//! is for. Within a task it means that every row of either side is hashed and copied once more, and that what the
//! build side knows of the keys reaches the scan of the other as a CASE over the partitions' tables. Where the rows
//! of both sides are in their tasks already (`colocate`), and the build side is the much smaller one, it is cheaper to
//! build one table that all partitions probe:
//!
//! ```text
//! HashJoin Partitioned                    HashJoin CollectLeft
//!   Repartition Hash(k)                     CoalescePartitions
//!     left                        ──▶         left
//!   Repartition Hash(k)                     right
//!     right
//! ```
//!
//! One task builds it, the others wait, so with more partitions the other side must be that much larger.
//!
//! Not where a node above needs the partitioning: a join or an aggregate by the same key would have to make it. So
//! no join above may leave some of the probe side's partitions unread, for which this one would wait (`unread_sides`):
//! those that do are joins of partitions.
//!
//! Invariant: the plan checker has accepted each join that is changed, with the families of its new inputs, and no
//! subtree has another number of partitions than before.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_expr::{Distribution, Partitioning};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::InterleaveExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_distributed::NetworkBoundaryExt;

use super::check::{Family, StageCheck};
use super::colocate::with_children;
use super::node_statistics::{NodeStatistics, address};

/// What putting a row into a hash table costs, where hashing it and copying it to its partition costs 1.
const BUILD_COST: f64 = 2.5;

/// A table of more rows is built by several threads, and as several batches: DataFusion makes one of what it builds.
const BUILT_ROWS_MAX: f64 = 8_000_000.0;

/// Whether a session lets joins build one table in each task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeBuilds(pub(crate) bool);

/// A plan of stages whose joins build one hash table where that is cheaper.
pub(super) fn with_whole_builds(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Rewrite::default().node(&plan, Place { tasks: 1, is_keyed: false })
}

/// Where a node is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The tasks of its stage.
    tasks: usize,
    /// Whether a node above needs equal keys in one partition.
    is_keyed: bool,
}

/// What is known of the nodes of the plan as it was, by their addresses: it lives as long as the rewrite.
#[derive(Default)]
struct Rewrite {
    families: HashMap<usize, Option<Family>>,
    statistics: NodeStatistics,
}

impl Rewrite {
    fn node(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        place: Place,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(boundary) = node.as_network_boundary() {
            let tasks = boundary.input_stage().task_count();
            let below = Place { tasks, is_keyed: false };
            return self.rebuilt(node, |_| below);
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && let Some(whole) = self.whole(join, place)?
        {
            let own: Arc<dyn ExecutionPlan> = Arc::new(whole);
            return self.rebuilt(&own, |_| place);
        }
        self.rebuilt(node, |index| Place {
            tasks: place.tasks,
            is_keyed: is_keyed(node, index, place.is_keyed),
        })
    }

    /// A node over its inputs as they are now.
    fn rebuilt(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        place_of: impl Fn(usize) -> Place,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let children = node.children().into_iter().enumerate();
        let children = children
            .map(|(index, child)| self.node(child, place_of(index)))
            .collect::<Result<_>>()?;
        with_children(node, children)
    }

    /// A join of partitions as one that builds one table, if it may be and is cheaper so.
    fn whole(&mut self, join: &HashJoinExec, place: Place) -> Result<Option<HashJoinExec>> {
        if *join.partition_mode() != PartitionMode::Partitioned || join.null_aware || place.is_keyed
        {
            return Ok(None);
        }
        let (left, right) = (unpartitioned(join.left()), unpartitioned(join.right()));
        let partitions = join.right().output_partitioning().partition_count();
        let keeps_partitions = right.output_partitioning().partition_count() == partitions;
        let (Some(left_family), Some(right_family)) =
            (self.family(left, place.tasks), self.family(right, place.tasks))
        else {
            return Ok(None);
        };
        let sides = [(left, &left_family), (right, &right_family)];
        if !keeps_partitions || !self.is_cheaper(sides, place.tasks, partitions) {
            return Ok(None);
        }
        let left: Arc<dyn ExecutionPlan> = match left.output_partitioning().partition_count() {
            1 => Arc::clone(left),
            _ => Arc::new(CoalescePartitionsExec::new(Arc::clone(left))),
        };
        let whole = join
            .builder()
            .with_new_children(vec![left, Arc::clone(right)])?
            .with_partition_mode(PartitionMode::CollectLeft)
            .build()?;
        if place.tasks > 1 {
            let node: Arc<dyn ExecutionPlan> = Arc::new(whole.builder().build()?);
            let check = StageCheck { tasks: place.tasks };
            if check.operator(&node, &[left_family, right_family]).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(whole))
    }

    /// The family of a node's rows in the plan as it was; none if the checker refuses it.
    fn family(&mut self, node: &Arc<dyn ExecutionPlan>, tasks: usize) -> Option<Family> {
        if tasks == 1 {
            return Some(Family::Spread);
        }
        let key = address(node);
        if let Some(known) = self.families.get(&key) {
            return known.clone();
        }
        let check = StageCheck { tasks };
        let family = if node.is_network_boundary() {
            check.boundary(node).ok()
        } else if node.children().is_empty() {
            check.leaf(node).ok()
        } else {
            let inputs = node.children().into_iter().map(|child| self.family(child, tasks));
            let inputs: Option<Vec<_>> = inputs.collect();
            inputs.and_then(|inputs| check.operator(node, &inputs).ok())
        };
        self.families.insert(key, family.clone());
        family
    }

    /// Whether one table for all partitions is expected to be cheaper than one for each of them.
    ///
    /// One thread builds it, at [`BUILD_COST`] for each row of the left side, where as many as there are partitions
    /// could; no row of either side is copied to its partition any more. Statistics are hints: where they cannot be
    /// had, a join stays as it is.
    fn is_cheaper(
        &mut self,
        [left, right]: [(&Arc<dyn ExecutionPlan>, &Family); 2],
        tasks: usize,
        partitions: usize,
    ) -> bool {
        let mut rows_of_task = |(node, family): (&Arc<dyn ExecutionPlan>, &Family)| {
            let parts = if *family == Family::Replicated { 1 } else { tasks };
            self.statistics.rows(node).map(|rows| rows as f64 / parts as f64)
        };
        let (left_rows, right_rows) = (rows_of_task(left), rows_of_task(right));
        tracing::debug!(left = ?left_rows, right = ?right_rows, "one hash table in each task?");
        let (Some(left), Some(right)) = (left_rows, right_rows) else { return false };
        left <= BUILT_ROWS_MAX && left * BUILD_COST * (partitions as f64 - 1.0) <= left + right
    }
}

/// What is below a repartitioning by hash within a task.
fn unpartitioned(node: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    match node.downcast_ref::<RepartitionExec>() {
        Some(by) if matches!(by.partitioning(), Partitioning::Hash(..)) && !by.preserve_order() => {
            by.input()
        }
        _ => node,
    }
}

/// Whether equal keys of a node's input must be in one partition, where the same is said of the node.
fn is_keyed(node: &Arc<dyn ExecutionPlan>, index: usize, is_keyed: bool) -> bool {
    // These make their partitions by themselves, or one.
    if node.is::<RepartitionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<SortPreservingMergeExec>()
    {
        return false;
    }
    let requirements = node.input_distribution_requirements();
    match requirements.child_distribution(index) {
        Some(Distribution::SinglePartition) => false,
        Some(Distribution::UnspecifiedDistribution) => is_keyed || node.is::<InterleaveExec>(),
        _ => true,
    }
}
