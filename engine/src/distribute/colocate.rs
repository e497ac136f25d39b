//! Exchanges that are not needed, taken out of a plan.
//!
//! datafusion-distributed puts an exchange wherever DataFusion would repartition rows by hash. Where the rows of all
//! inputs of a join are already in the tasks of their slices, by a key that it joins on, or every worker has all
//! of one input or can fetch its few rows, rows need only be repartitioned within their tasks. As does an aggregate by a key that its rows are in
//! slices by.
//!
//! Where only one side of a join lies by its key, the other is sent to the tasks of its slices (`slice_route`), and the
//! first stays where it is.
//!
//! Never join by join: in `(lineitem JOIN orders) JOIN x`, all by the order's key, with the inner exchanges taken out and x
//! hashed by DataFusion, rows vanish without a word (DESIGN.md). So each subtree of a stage is made in all ways that it
//! can be made in, one for each family that its rows can be of, and the plan checker says which of them go
//! together. What is chosen at the top moves least.
//!
//! Invariant: a plan is only ever put together of parts that the checker has found to go together; without any exchange
//! that can go, it is the plan it was.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::new_empty_array;
use arrow::datatypes::DataType;
use basalt_storage::slice_hash::hashes_of;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};
use datafusion_distributed::{
    BroadcastExec, DistributedExec, DistributedLeafExec, NetworkBoundary, NetworkBoundaryExt,
    NetworkShuffleExec, Stage,
};

use super::Topology;
use super::check::{Family, StageCheck, column_of};
use super::slice_route::route_by_slice;
use crate::scan::{ScanSegment, SegmentScanExec};
use crate::shared_subplans::SharedRowsExec;

/// Ways to make a subtree that are thought of at once.
const CHOICES_MAX: usize = 8;
/// What an exchange costs that sends each row to one task.
const SHUFFLE_COST: f64 = 1.0;
/// The same to the task of its slice, where that alone spares nothing.
const SLICE_SHUFFLE_COST: f64 = 1.001;
/// What one costs that collects rows, or sends few to all: joins broadcast small sides only.
const OTHER_COST: f64 = 0.5;

/// What it costs that every task reads all of a table.
const REPLICA_COST: f64 = 0.01;
/// And for each of its rows: of two tables which every worker has the smaller is read by all, and none of fifty million
/// rows to spare a shuffle.
const REPLICA_ROW_COST: f64 = 2e-8;

/// Whether a session lets rows be joined where they lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Colocation(pub(crate) bool);

/// A plan of stages without the exchanges that it does not need.
pub(super) fn colocated(
    plan: Arc<dyn ExecutionPlan>,
    topology: &Topology,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let workers = topology.worker_count();
    let (Some(distributed), true) = (plan.downcast_ref::<DistributedExec>(), workers > 1) else {
        return Ok(plan);
    };
    let head = Arc::clone(distributed.children()[0]);
    let mut search = Search {
        topology,
        tasks: workers,
        partitions,
        task_of: slices_of(&head, topology)?,
        found: HashMap::new(),
    };
    let place = Place { tasks: 1, was: 1 };
    let Some(best) = cheapest(search.choices(&head, place)?) else { return Ok(plan) };
    Ok(Arc::new(DistributedExec::new(numbered(best.plan)?)))
}

/// The task of each slice, for the tables of the plan that lie by their keys; none where there is no such table.
fn slices_of(plan: &Arc<dyn ExecutionPlan>, topology: &Topology) -> Result<Vec<usize>> {
    let mut segments: Vec<&ScanSegment> = Vec::new();
    plan.apply(|node| {
        if let Some(scan) = scan_of(node)
            && !scan.distribution_columns().is_empty()
        {
            segments.extend(scan.segments());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if segments.is_empty() {
        return Ok(vec![]);
    }
    Ok(topology.tasks_of_slices(segments.into_iter()))
}

fn scan_of(node: &Arc<dyn ExecutionPlan>) -> Option<&SegmentScanExec> {
    node.downcast_ref::<DistributedLeafExec>()?.original().downcast_ref::<SegmentScanExec>()
}

fn shared_rows_of(node: &Arc<dyn ExecutionPlan>) -> Option<&SharedRowsExec> {
    node.downcast_ref::<DistributedLeafExec>()?.original().downcast_ref::<SharedRowsExec>()
}

/// A leaf of which each task reads a variant.
fn cut<T: ExecutionPlan + Clone + 'static>(
    leaf: &T,
    variants: Vec<T>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let variants = variants.into_iter().map(|variant| Arc::new(variant) as Arc<dyn ExecutionPlan>);
    Ok(Arc::new(DistributedLeafExec::try_new(Arc::new(leaf.clone()), variants)?))
}

/// A way to make a subtree.
#[derive(Debug, Clone)]
struct Choice {
    plan: Arc<dyn ExecutionPlan>,
    family: Family,
    cost: f64,
}

/// The stage that a subtree is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    /// Its tasks.
    tasks: usize,
    /// The tasks of the stage that the subtree is in now. Exchanges below it are made for these, so
    /// that in another stage there can be none.
    was: usize,
}

/// All ways to make the subtrees of a plan.
struct Search<'a> {
    topology: &'a Topology,
    /// Workers, and tasks of a stage that reads all slices.
    tasks: usize,
    /// Partitions of a task's leaf.
    partitions: usize,
    /// The task of each slice; empty where no table lies by its key.
    task_of: Vec<usize>,
    /// By the address of the node, in the plan that was there before; it lives as long as the search.
    found: HashMap<(usize, Place), Vec<Choice>>,
}

impl Search<'_> {
    /// The ways to make a subtree in a stage, each of another family.
    fn choices(&mut self, node: &Arc<dyn ExecutionPlan>, place: Place) -> Result<Vec<Choice>> {
        let key = (Arc::as_ptr(node).cast::<()>() as usize, place);
        if let Some(known) = self.found.get(&key) {
            return Ok(known.clone());
        }
        let choices = match node.as_network_boundary() {
            Some(boundary) => self.exchange(node, boundary, place)?,
            None if node.children().is_empty() => self.leaf(node, place)?,
            None => self.operator(node, place)?,
        };
        let choices = best_of_each(choices);
        self.found.insert(key, choices.clone());
        Ok(choices)
    }

    /// Each way to make the inputs of a node, if they go together below it.
    fn operator(&mut self, node: &Arc<dyn ExecutionPlan>, place: Place) -> Result<Vec<Choice>> {
        let mut inputs: Vec<Vec<Choice>> = vec![vec![]];
        for child in node.children() {
            let ways = self.choices(child, place)?;
            let with = |chosen: &Vec<Choice>| {
                let one = |way: &Choice| [chosen.as_slice(), std::slice::from_ref(way)].concat();
                ways.iter().map(one).collect::<Vec<_>>()
            };
            inputs = inputs.iter().flat_map(with).collect();
            // Unions have any number of inputs.
            inputs.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
            inputs.truncate(CHOICES_MAX * CHOICES_MAX);
        }
        let check = StageCheck { tasks: place.tasks };
        let mut choices = Vec::new();
        for inputs in inputs {
            let families: Vec<_> = inputs.iter().map(|input| input.family.clone()).collect();
            let cost = cost(&inputs);
            let plans = inputs.into_iter().map(|input| input.plan).collect();
            let plan = with_children(node, plans)?;
            let family = match place.tasks {
                1 => Ok(Family::Spread),
                _ => check.operator(&plan, &families),
            };
            if let Ok(family) = family {
                choices.push(Choice { plan, family, cost });
            }
        }
        Ok(choices)
    }

    fn leaf(&self, node: &Arc<dyn ExecutionPlan>, place: Place) -> Result<Vec<Choice>> {
        let mut plans = Vec::new();
        if place.tasks == place.was {
            plans.push((Arc::clone(node), 0.0));
        }
        if let Some(scan) = scan_of(node)
            && place.tasks == self.tasks
        {
            if !scan.distribution_columns().is_empty() {
                let variants = scan.divided(self.tasks, self.partitions, |segment| {
                    self.task_of.get(usize::from(segment.slice.0)).copied()
                });
                plans.push((cut(scan, variants)?, 0.0));
            }
            if scan.is_everywhere() || self.topology.is_small(scan) {
                let variants = scan.replicated(self.tasks, self.partitions);
                let cost = REPLICA_COST + scan.assigned_rows() as f64 * REPLICA_ROW_COST;
                plans.push((cut(scan, variants)?, cost));
            }
        }
        if let Some(rows) = shared_rows_of(node)
            && place.tasks == self.tasks
        {
            if place.tasks != place.was {
                plans.push((cut(rows, rows.divided(self.tasks, self.partitions))?, 0.0));
            }
            if rows.is_small() {
                plans.push((cut(rows, rows.replicated(self.tasks))?, REPLICA_COST));
            }
        }
        let check = StageCheck { tasks: place.tasks };
        let choice = |(plan, cost)| {
            let family = check.leaf(&plan).ok()?;
            Some(Choice { plan, family, cost })
        };
        Ok(plans.into_iter().filter_map(choice).collect())
    }

    /// Rows of another stage: as they come now, or made in this stage.
    fn exchange(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        boundary: &dyn NetworkBoundary,
        place: Place,
    ) -> Result<Vec<Choice>> {
        let stage = boundary.input_stage();
        let Some(sender) = stage.local_plan().cloned() else { return Ok(vec![]) };
        let sent = Place { tasks: stage.task_count(), was: stage.task_count() };
        let mut choices = Vec::new();
        // The exchange goes on asking for as many partitions as there were.
        let mut senders = self.choices(&sender, sent)?;
        senders.retain(|choice| partitions_of(&choice.plan) == partitions_of(&sender));
        if place.tasks == place.was
            && let Some(best) = cheapest(senders)
        {
            let check = StageCheck { tasks: place.tasks };
            let is_shuffle = sender.is::<RepartitionExec>();
            let cost = best.cost + if is_shuffle { SHUFFLE_COST } else { OTHER_COST };
            let plan = with_children(node, vec![best.plan])?;
            if let Ok(family) = check.boundary(&plan) {
                choices.push(Choice { plan, family, cost });
            }
        }
        if place.tasks == self.tasks {
            choices.extend(self.without_exchange(node, &sender, sent.was)?);
            if place.tasks == place.was {
                choices.extend(self.by_slice(node, stage, &sender)?);
            }
        }
        Ok(choices)
    }

    /// The rows of another stage, made in this one, which has a task for each worker.
    fn without_exchange(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        sender: &Arc<dyn ExecutionPlan>,
        was: usize,
    ) -> Result<Vec<Choice>> {
        let place = Place { tasks: self.tasks, was };
        if sender.is::<BroadcastExec>() {
            return self.choices(sender.children()[0], place);
        }
        let Some(repartition) = sender.downcast_ref::<RepartitionExec>() else {
            return Ok(vec![]);
        };
        let Partitioning::Hash(keys, _) = repartition.partitioning() else { return Ok(vec![]) };
        let partitions = node.output_partitioning().partition_count();
        let within_task = |choice: Choice| {
            let hash = Partitioning::Hash(keys.clone(), partitions);
            let plan = Arc::new(RepartitionExec::try_new(choice.plan, hash)?);
            let family = choice.family;
            Ok(Choice { plan, family, cost: choice.cost })
        };
        let choices = self.choices(repartition.input(), place)?;
        choices
            .into_iter()
            .filter(|choice| choice.family != Family::Shuffled)
            .map(within_task)
            .collect()
    }

    /// Rows that a shuffle brings, sent to the tasks of their slices by one of its keys instead.
    fn by_slice(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        stage: &Stage,
        sender: &Arc<dyn ExecutionPlan>,
    ) -> Result<Vec<Choice>> {
        let (Some(repartition), Stage::Local(stage)) =
            (sender.downcast_ref::<RepartitionExec>(), stage)
        else {
            return Ok(vec![]);
        };
        let Partitioning::Hash(keys, _) = repartition.partitioning() else { return Ok(vec![]) };
        if self.task_of.is_empty() {
            return Ok(vec![]);
        }
        let input = repartition.input();
        let schema = input.schema();
        let sent = Place { tasks: stage.tasks, was: stage.tasks };
        let Some(best) = cheapest(self.choices(input, sent)?) else { return Ok(vec![]) };
        let has_slices = |key: &&Arc<dyn PhysicalExpr>| {
            let data_type = key.data_type(&schema);
            column_of(key, &schema).is_some() && data_type.is_ok_and(|of| is_hashed_by_value(&of))
        };
        let mut choices = Vec::new();
        for key in keys.iter().filter(has_slices) {
            let route = route_by_slice(Arc::clone(key), &self.task_of, self.tasks)?;
            let routed = |partitions| -> Result<Arc<dyn ExecutionPlan>> {
                let by = Partitioning::Hash(vec![Arc::clone(&route)], partitions);
                Ok(Arc::new(RepartitionExec::try_new(Arc::clone(&best.plan), by)?))
            };
            // One partition for each task, which is partitioned there.
            let shuffle = NetworkShuffleExec::try_new(routed(1)?, stage.tasks)?;
            let mut stage = stage.clone();
            stage.plan = routed(self.tasks)?;
            let shuffle: Arc<dyn ExecutionPlan> = shuffle.with_input_stage(Stage::Local(stage))?;
            let Ok(family) = (StageCheck { tasks: self.tasks }).boundary(&shuffle) else {
                continue;
            };
            let partitions = node.output_partitioning().partition_count();
            let hash = Partitioning::Hash(keys.clone(), partitions);
            let plan = Arc::new(RepartitionExec::try_new(shuffle, hash)?);
            choices.push(Choice { plan, family, cost: best.cost + SLICE_SHUFFLE_COST });
        }
        Ok(choices)
    }
}

/// Whether values that are equal have one slice hash, whatever they are joined with. Intervals that are
/// equal may have several.
fn is_hashed_by_value(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Interval(_)) && hashes_of(&new_empty_array(data_type)).is_ok()
}

fn partitions_of(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}

fn cost(inputs: &[Choice]) -> f64 {
    inputs.iter().map(|input| input.cost).sum()
}

/// A node over other inputs; itself where they are the same.
pub(super) fn with_children(
    node: &Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let unchanged =
        node.children().into_iter().zip(&children).all(|(old, new)| Arc::ptr_eq(old, new));
    if unchanged {
        return Ok(Arc::clone(node));
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(node).replace_children(children, options)
}

/// The cheapest of each family, and of all of them a few: those that come first where they cost the same.
fn best_of_each(choices: Vec<Choice>) -> Vec<Choice> {
    let mut best: Vec<Choice> = Vec::new();
    for choice in choices {
        match best.iter_mut().find(|known| known.family == choice.family) {
            Some(known) if known.cost > choice.cost => *known = choice,
            Some(_) => {}
            None => best.push(choice),
        }
    }
    best.sort_by(|one, other| one.cost.total_cmp(&other.cost));
    best.truncate(CHOICES_MAX);
    best
}

/// The cheapest of which each row is in one task.
fn cheapest(choices: Vec<Choice>) -> Option<Choice> {
    let rows = choices.into_iter().filter(|choice| choice.family != Family::Replicated);
    rows.min_by(|one, other| one.cost.total_cmp(&other.cost))
}

/// A plan whose stages have numbers without gaps, those below first.
fn numbered(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut number = 0;
    plan.transform_up(|node| {
        let Some(boundary) = node.as_network_boundary() else { return Ok(Transformed::no(node)) };
        let Stage::Local(mut stage) = boundary.input_stage().clone() else {
            return Ok(Transformed::no(node));
        };
        number += 1;
        stage.num = number;
        let node: Arc<dyn ExecutionPlan> = boundary.with_input_stage(Stage::Local(stage))?;
        Ok(Transformed::yes(node))
    })
    .data()
}
