//! The plan node of the segment scan.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use basalt_storage::manifest::SegmentRecord;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt, reassign_expr_columns};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs,
};

use super::properties::{plan_properties, scan_statistics, table_statistics};
use super::pruning::segments_that_may_match;
use super::stream::open_partition;
use super::{ScanSegment, ScanTable, ScanUnit, spread_units};
use crate::codec::is_serialisable;
use crate::session::FragmentOptions;
use crate::unestimated::filtered_by;

/// Scans explicit row groups of a table's segments.
#[derive(Debug, Clone)]
pub struct SegmentScanExec {
    pub(super) table: Arc<ScanTable>,
    pub(super) segments: Arc<Vec<ScanSegment>>,
    pub(super) partitions: Vec<Vec<ScanUnit>>,
    /// Indexes of the output columns in the read columns.
    pub(super) projection: Vec<usize>,
    /// Over the read columns; a row is kept when it is true.
    pub(super) predicate: Option<Arc<dyn PhysicalExpr>>,
    /// Rows that suffice per partition.
    pub(super) limit: Option<usize>,
    /// Over the read columns, before the predicate.
    statistics: Arc<Statistics>,
    /// What the catalog says of each segment; empty on workers, and in the variants of tasks.
    records: Arc<Vec<Arc<SegmentRecord>>>,
    /// Segments of the table that the predicate ruled out.
    segments_pruned: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SegmentScanExec {
    /// A scan of all row groups of `segments`, spread over `partitions`.
    pub fn new(
        table: Arc<ScanTable>,
        segments: Vec<ScanSegment>,
        partitions: usize,
        statistics: Statistics,
    ) -> Self {
        let indexed: Vec<_> = (0..).zip(&segments).collect();
        let partitions = spread_units(&indexed, partitions);
        let projection = (0..table.columns.len()).collect::<Vec<_>>();
        Self::from_parts(table, Arc::new(segments), partitions, projection, statistics)
    }

    pub(super) fn from_parts(
        table: Arc<ScanTable>,
        segments: Arc<Vec<ScanSegment>>,
        partitions: Vec<Vec<ScanUnit>>,
        projection: Vec<usize>,
        statistics: Statistics,
    ) -> Self {
        let properties = plan_properties(&table.schema, &projection, partitions.len());
        Self {
            table,
            segments,
            partitions,
            projection,
            predicate: None,
            limit: None,
            statistics: Arc::new(statistics),
            records: Arc::default(),
            segments_pruned: 0,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// What all segments have in common.
    pub fn table(&self) -> &Arc<ScanTable> {
        &self.table
    }

    /// The segments that units refer to.
    pub fn segments(&self) -> &[ScanSegment] {
        &self.segments
    }

    /// The units of each partition.
    pub fn partitions(&self) -> &[Vec<ScanUnit>] {
        &self.partitions
    }

    /// Rows in the units of this scan, before any filter.
    pub fn assigned_rows(&self) -> u64 {
        let rows = |unit: &ScanUnit| {
            let groups = self.segments.get(unit.segment as usize).map(|s| &s.row_groups);
            groups
                .and_then(|groups| groups.get(unit.first as usize..unit.end as usize))
                .map_or(0, |groups| groups.iter().map(|rows| u64::from(*rows)).sum())
        };
        self.partitions.iter().flatten().map(rows).sum()
    }

    /// This scan restricted to the segments that `keep` chooses, spread again over as many
    /// partitions as `partitions` says: one task's variant.
    pub fn restricted(&self, partitions: usize, keep: impl Fn(&ScanSegment) -> bool) -> Self {
        let segments: Vec<_> =
            self.segments.iter().filter(|segment| keep(segment)).cloned().collect();
        let indexed: Vec<_> = (0..).zip(&segments).collect();
        let spread = spread_units(&indexed, partitions);
        let statistics = Statistics::new_unknown(&self.table.schema);
        let mut variant = Self::from_parts(
            Arc::clone(&self.table),
            Arc::new(segments),
            spread,
            self.projection.clone(),
            statistics,
        );
        variant.predicate = self.predicate.clone();
        variant.limit = self.limit;
        variant.segments_pruned = self.segments_pruned;
        variant
    }

    pub(super) fn with_predicate(mut self, predicate: Option<Arc<dyn PhysicalExpr>>) -> Self {
        self.predicate = predicate;
        self
    }

    /// Says what the catalog knows of the segments, in their order: those that a predicate rules out
    /// will not be scanned.
    #[must_use]
    pub fn with_records(mut self, records: Vec<Arc<SegmentRecord>>) -> Self {
        self.records = Arc::new(records);
        self
    }

    /// This scan without the segments that its predicate rules out.
    fn without_pruned(mut self) -> Result<Self> {
        let Some(predicate) = &self.predicate else { return Ok(self) };
        if self.records.len() != self.segments.len() {
            return Ok(self);
        }
        let kept = segments_that_may_match(predicate, &self.table, &self.records)?;
        let pruned = kept.iter().filter(|kept| !**kept).count();
        if pruned == 0 {
            return Ok(self);
        }
        let of_kept = || kept.iter().copied();
        self.segments = Arc::new(only(&self.segments, of_kept()));
        self.records = Arc::new(only(&self.records, of_kept()));
        let indexed: Vec<_> = (0..).zip(self.segments.iter()).collect();
        self.partitions = spread_units(&indexed, self.partitions.len());
        self.segments_pruned += pruned;
        self.statistics = Arc::new(table_statistics(&self.table, &self.records));
        Ok(self)
    }

    pub(super) fn with_limit(mut self, limit: Option<usize>) -> Self {
        self.limit = limit;
        self
    }

    /// The predicate, over the read columns.
    pub fn predicate(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.predicate.as_ref()
    }

    pub(super) fn read_schema(&self) -> &SchemaRef {
        &self.table.schema
    }

    /// The same filter over the read columns, or `None` when the scan cannot evaluate it.
    fn over_read_columns(&self, filter: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let filter = filtered_by(filter);
        if is_volatile(filter) || !is_serialisable(filter) {
            return None;
        }
        let filter = reassign_expr_columns(Arc::clone(filter), self.read_schema()).ok()?;
        (!self.has_bounds_of_nested(&filter)).then_some(filter)
    }

    /// Whether a filter will be the bounds of keys that are lists or structs. Joins and sorts find bounds in
    /// another order of the NULLs within them than `<` has, and would lose rows
    /// (`sql-tests/upstream/bounds-of-lists.md`).
    fn has_bounds_of_nested(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        let is_dynamic = |part: &Arc<dyn PhysicalExpr>| Ok(part.is::<DynamicFilterPhysicalExpr>());
        let schema = self.read_schema();
        // The closure never fails.
        filter.exists(is_dynamic).unwrap_or(true)
            && collect_columns(filter)
                .iter()
                .any(|column| schema.field(column.index()).data_type().is_nested())
    }
}

/// The items that are kept.
fn only<T: Clone>(items: &[T], kept: impl Iterator<Item = bool>) -> Vec<T> {
    items.iter().zip(kept).filter(|(_, kept)| *kept).map(|(item, _)| item.clone()).collect()
}

impl DisplayAs for SegmentScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            self.schema().fields().iter().map(|field| field.name().clone()).collect();
        write!(
            f,
            "SegmentScanExec: table={}, segments={}, rows={}, partitions={}, projection=[{}]",
            self.table.name,
            self.segments.len(),
            self.assigned_rows(),
            self.partitions.len(),
            names.join(", ")
        )?;
        if let Some(predicate) = &self.predicate {
            write!(f, ", predicate={predicate}")?;
        }
        if self.segments_pruned > 0 {
            write!(f, ", segments_pruned={}", self.segments_pruned)?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SegmentScanExec {
    fn name(&self) -> &'static str {
        "SegmentScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        match &self.predicate {
            Some(predicate) => f(predicate),
            None => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            return Ok(self);
        }
        internal_err!("a segment scan has no children")
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition >= self.partitions.len() {
            return internal_err!("a segment scan has no partition {partition}");
        }
        open_partition(self, partition, &self.metrics, &context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        scan_statistics(self, &self.statistics, args.partition())
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(self.clone().with_limit(limit)))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let mut indexes = Vec::with_capacity(projection.expr().len());
        for output in projection.expr() {
            let Some(column) = output.expr.downcast_ref::<Column>() else { return Ok(None) };
            if column.name() != output.alias {
                return Ok(None);
            }
            let Some(read) = self.projection.get(column.index()) else { return Ok(None) };
            indexes.push(*read);
        }
        let mut scan = self.clone();
        scan.properties = plan_properties(self.read_schema(), &indexes, self.partitions.len());
        scan.projection = indexes;
        Ok(Some(Arc::new(scan)))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let options = FragmentOptions::of(config);
        let filters: Vec<_> = pushed
            .parent_filters
            .iter()
            .map(|parent| match options.filter_pushdown {
                true => self.over_read_columns(&parent.filter),
                false => None,
            })
            .collect();
        let answers = filters
            .iter()
            .map(|filter| if filter.is_some() { PushedDown::Yes } else { PushedDown::No })
            .collect();
        let propagation = FilterPushdownPropagation::with_parent_pushdown_result(answers);
        let accepted: Vec<_> =
            self.predicate.iter().cloned().chain(filters.into_iter().flatten()).collect();
        match conjunction_opt(accepted) {
            Some(predicate) if self.limit.is_none() => {
                let scan = self.clone().with_predicate(Some(predicate));
                let scan = if options.pruning { scan.without_pruned()? } else { scan };
                Ok(propagation.with_updated_node(Arc::new(scan)))
            }
            // A limit counts rows before any filter that comes later, so none may sink below it.
            Some(_) => Ok(FilterPushdownPropagation::with_parent_pushdown_result(vec![
                    PushedDown::No;
                    pushed
                        .parent_filters
                        .len()
                ])),
            None => Ok(propagation),
        }
    }
}
