//! The plan node of the segment scan.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use basalt_storage::ids::ColumnId;
use basalt_storage::manifest::SegmentRecord;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SortOrderPushdownResult,
    StatisticsArgs,
};

use super::order::ScanOrder;
use super::properties::{plan_properties, scan_statistics, table_statistics};
use super::pruning::segments_that_may_match;
use super::row_ids::ROW_ID_COLUMN;
use super::segments::{CatalogSegments, Partitions, ScanSegments};
use super::stream::open_partition;
use super::{ScanSegment, ScanTable, ScanUnit};
use crate::codec::is_serialisable;
use crate::column_samples::ColumnSamples;
use crate::filter_estimates::share_of;
use crate::session::FragmentOptions;
use crate::unestimated::filtered_by;

/// The column whose slice hash says which slice a row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DistributionKey {
    /// Its place among the read columns.
    pub read: usize,
    /// How many slices there are.
    pub slices: u16,
}

/// Scans explicit row groups of a table's segments.
#[derive(Debug, Clone)]
pub struct SegmentScanExec {
    pub(super) table: Arc<ScanTable>,
    pub(super) segments: Arc<ScanSegments>,
    pub(super) partitions: Partitions,
    /// Indexes of the output columns in the read columns.
    pub(super) projection: Vec<usize>,
    /// Over the read columns; a row is kept when it is true.
    pub(super) predicate: Option<Arc<dyn PhysicalExpr>>,
    /// Rows that suffice per partition.
    pub(super) limit: Option<usize>,
    /// Over the read columns, before the predicate.
    pub(super) statistics: Arc<Statistics>,
    /// Rows of the read columns that ANALYZE drew; none on workers.
    samples: ColumnSamples,
    /// What the catalog says of each segment; empty on workers.
    pub(super) records: Arc<Vec<Arc<SegmentRecord>>>,
    /// The columns that segments are sorted by, as far as they are read, by their places among the read
    /// columns; empty on workers.
    pub(super) key: Arc<[usize]>,
    pub(super) order: ScanOrder,
    /// The read column whose slice hash says which slice a row is in, by its place among the read columns;
    /// none on workers.
    distribution_key: Option<DistributionKey>,
    /// Whether every worker has all segments, or should.
    is_everywhere: bool,
    /// Whether every worker has them now, and may as well read them as another.
    is_held_by_all: bool,
    /// How the table is distributed, for EXPLAIN; empty on workers.
    distribution: Arc<str>,
    /// Segments of the table that the predicate ruled out.
    segments_pruned: usize,
    /// Bytes of the read columns in them.
    bytes_pruned: u64,
    properties: Arc<PlanProperties>,
    pub(super) metrics: ExecutionPlanMetricsSet,
}

impl SegmentScanExec {
    /// A scan of all row groups of `segments`, spread over `partitions`.
    pub fn new(
        table: Arc<ScanTable>,
        segments: Vec<ScanSegment>,
        partitions: usize,
        statistics: Statistics,
    ) -> Self {
        Self::of_all(table, segments.into(), partitions, statistics)
    }

    /// The same of a table's segments as the catalog has them, which a predicate may leave few of.
    pub(crate) fn of_catalog(
        table: Arc<ScanTable>,
        segments: CatalogSegments,
        partitions: usize,
        statistics: Statistics,
    ) -> Self {
        let records = Arc::clone(&segments.records);
        Self { records, ..Self::of_all(table, segments.into(), partitions, statistics) }
    }

    fn of_all(
        table: Arc<ScanTable>,
        segments: ScanSegments,
        partitions: usize,
        statistics: Statistics,
    ) -> Self {
        let segments = Arc::new(segments);
        let partitions = Partitions::of_all(&segments, partitions);
        let projection = (0..table.columns.len()).collect::<Vec<_>>();
        Self::from_parts(table, segments, partitions, projection, statistics)
    }

    pub(super) fn from_parts(
        table: Arc<ScanTable>,
        segments: Arc<ScanSegments>,
        partitions: Partitions,
        projection: Vec<usize>,
        statistics: Statistics,
    ) -> Self {
        let order = ScanOrder::None;
        let properties = plan_properties(&table.schema, &projection, partitions.len(), &order);
        Self {
            table,
            segments,
            partitions,
            projection,
            predicate: None,
            limit: None,
            statistics: Arc::new(statistics),
            samples: ColumnSamples::default(),
            records: Arc::default(),
            key: Arc::default(),
            order,
            distribution_key: None,
            is_everywhere: false,
            is_held_by_all: false,
            distribution: Arc::from(""),
            segments_pruned: 0,
            bytes_pruned: 0,
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
        if self.partitions.are_of_all() {
            return self.segments.rows();
        }
        let rows = |unit: &ScanUnit| {
            let groups = self.segments.get(unit.segment as usize).map(|s| &s.row_groups);
            groups
                .and_then(|groups| groups.get(unit.first as usize..unit.end as usize))
                .map_or(0, |groups| groups.iter().map(|rows| u64::from(*rows)).sum())
        };
        self.partitions.iter().flatten().map(rows).sum()
    }

    pub(super) fn with_predicate(mut self, predicate: Option<Arc<dyn PhysicalExpr>>) -> Self {
        self.predicate = predicate;
        self
    }

    /// Says by which columns segments are sorted, by their places among the read columns.
    #[must_use]
    pub fn with_key(mut self, key: Vec<usize>) -> Self {
        self.key = key.into();
        self
    }

    /// Says which read column's slice hash says which slice a row is in.
    #[must_use]
    pub fn with_distribution_key(mut self, key: Option<DistributionKey>) -> Self {
        self.distribution_key = key;
        self
    }

    /// Says which rows ANALYZE drew of the read columns.
    #[must_use]
    pub(crate) fn with_samples(mut self, samples: ColumnSamples) -> Self {
        self.samples = samples;
        self
    }

    /// Says whether every worker has all segments, or should.
    #[must_use]
    pub fn with_copies_everywhere(mut self, is_everywhere: bool) -> Self {
        self.is_everywhere = is_everywhere;
        self
    }

    /// Says whether every worker has all segments, and may as well read them as another.
    #[must_use]
    pub fn with_all_at_every_worker(mut self, is_held_by_all: bool) -> Self {
        self.is_held_by_all = is_held_by_all;
        self
    }

    /// Says how the table is distributed, for people.
    #[must_use]
    pub fn with_distribution_in_effect(mut self, distribution: &str) -> Self {
        self.distribution = Arc::from(distribution);
        self
    }

    /// How the table is distributed, for people.
    pub fn distribution(&self) -> &str {
        &self.distribution
    }

    /// Whether every worker has all segments, or should.
    pub fn is_everywhere(&self) -> bool {
        self.is_everywhere
    }

    /// Whether every worker has all segments, and may as well read them as another.
    pub fn is_held_by_all(&self) -> bool {
        self.is_held_by_all
    }

    /// The output columns whose slice hash says which slice a row is in.
    pub fn distribution_columns(&self) -> Vec<usize> {
        let outputs = self.projection.iter().enumerate();
        let key = self.distribution_key.map(|key| key.read);
        let is_key = |read: &usize| Some(*read) == key;
        outputs.filter(|(_, read)| is_key(read)).map(|(output, _)| output).collect()
    }

    /// The stored column of an output column; none of row ids.
    pub fn stored_column(&self, output: usize) -> Option<ColumnId> {
        let id = *self.table.columns.get(*self.projection.get(output)?)?;
        (id != ROW_ID_COLUMN).then_some(id)
    }

    /// This scan without the segments that its predicate rules out.
    fn without_pruned(self) -> Result<Self> {
        let Some(predicate) = &self.predicate else { return Ok(self) };
        if self.records.len() != self.segments.len() {
            return Ok(self);
        }
        let kept =
            segments_that_may_match(predicate, &self.table, &self.records, self.distribution_key)?;
        let pruned = kept.iter().filter(|kept| !**kept).count();
        if pruned == 0 {
            return Ok(self);
        }
        let dropped = self.records.iter().zip(&kept).filter(|(_, kept)| !**kept);
        let bytes: u64 = dropped.map(|(record, _)| self.bytes_of(record)).sum();
        let mut scan = self.only_segments(kept.into_iter());
        scan.segments_pruned += pruned;
        scan.bytes_pruned += bytes;
        scan.statistics = Arc::new(table_statistics(&scan.table, &scan.records));
        Ok(scan.spread(self.partitions.len()))
    }

    /// Bytes of the read columns in a segment.
    fn bytes_of(&self, record: &SegmentRecord) -> u64 {
        let columns = self.table.columns.iter().filter_map(|id| record.columns.get(id));
        columns.map(|column| column.bytes).sum()
    }

    /// The same rows under properties that fit what it is now.
    pub(super) fn with_properties(mut self) -> Self {
        let (schema, partitions) = (self.read_schema(), self.partitions.len());
        self.properties = plan_properties(schema, &self.projection, partitions, &self.order);
        self
    }

    pub(super) fn with_limit(mut self, limit: Option<usize>) -> Self {
        self.limit = limit;
        self
    }

    /// Says in which order the partitions are already.
    pub(super) fn in_order(mut self, order: ScanOrder) -> Self {
        self.order = order;
        self.with_properties()
    }

    /// The predicate, over the read columns.
    pub fn predicate(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.predicate.as_ref()
    }

    /// The share of its rows that a scan is estimated to keep, whatever filters it is told when it runs.
    pub(crate) fn kept_share(&self) -> f64 {
        let Some(predicate) = &self.predicate else { return 1.0 };
        let is_static = |part: &&Arc<dyn PhysicalExpr>| {
            let is_dynamic =
                |one: &Arc<dyn PhysicalExpr>| Ok(one.is::<DynamicFilterPhysicalExpr>());
            !part.exists(is_dynamic).unwrap_or(true)
        };
        let parts = split_conjunction(predicate).into_iter().filter(is_static).cloned();
        let parts = conjunction_opt(parts);
        parts.map_or(1.0, |parts| {
            share_of(&parts, &self.table.schema, &self.statistics, &self.samples)
        })
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
            let Self { segments_pruned, bytes_pruned, .. } = self;
            write!(f, ", segments_pruned={segments_pruned}, bytes_pruned={bytes_pruned}")?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        self.fmt_order(f)
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
        scan.projection = indexes;
        Ok(Some(Arc::new(scan.with_order_of_output())))
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        Ok(self.try_order(order))
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
