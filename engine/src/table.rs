//! A stored table as DataFusion sees it, over one pinned snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::ColumnId;
use basalt_storage::manifest::SegmentRecord;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use crate::column_samples::ColumnSamples;
use crate::scan::row_ids::row_id_field;
use crate::scan::{
    CatalogSegments, DistributionKey, ScanTable, SegmentScanExec, listed_statistics,
    table_statistics,
};
use crate::snapshot::{ClusterView, Distribution, TableSnapshot};
use crate::statistics::{Estimates, add_distinct_counts};
use crate::types::scan_type;

/// A table of the snapshot that a statement has pinned.
#[derive(Debug, Clone)]
pub struct SegmentTable {
    table: Arc<TableSnapshot>,
    cluster: Arc<ClusterView>,
    schema: SchemaRef,
    chosen: Option<Arc<ChosenRows>>,
    /// Whether row ids stay the same from snapshot to snapshot.
    lasting_ids: bool,
}

/// Some rows of a table at one commit, by the place of their segment in the snapshot's list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChosenRows(BTreeMap<u32, DeleteVector>);

impl ChosenRows {
    /// The rows of some segments.
    pub fn new(by_segment: BTreeMap<u32, DeleteVector>) -> Self {
        Self(by_segment)
    }

    /// How many there are.
    pub fn rows(&self) -> u64 {
        self.0.values().map(DeleteVector::rows).sum()
    }

    /// The rows of each segment that has any.
    pub fn by_segment(&self) -> impl Iterator<Item = (u32, &DeleteVector)> {
        self.0.iter().map(|(ordinal, rows)| (*ordinal, rows))
    }
}

impl SegmentTable {
    /// A table at one commit, served by the workers of `cluster`.
    pub fn new(table: Arc<TableSnapshot>, cluster: Arc<ClusterView>) -> Self {
        let fields =
            table.schema.columns.iter().map(|column| {
                Field::new(&column.name, scan_type(&column.data_type), column.nullable)
            });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { table, cluster, schema, chosen: None, lasting_ids: false }
    }

    /// The table at its commit.
    pub fn snapshot(&self) -> &Arc<TableSnapshot> {
        &self.table
    }

    /// Whether it has all rows of its snapshot, and their columns alone.
    pub(crate) fn is_whole(&self) -> bool {
        self.chosen.is_none() && self.schema.fields().len() == self.table.schema.columns.len()
    }

    /// The same table with one more column, the last: its row ids.
    #[must_use]
    pub fn with_row_ids(&self) -> Self {
        let mut fields = self.schema.fields().to_vec();
        fields.push(Arc::new(row_id_field()));
        Self { schema: Arc::new(Schema::new(fields)), ..self.clone() }
    }

    /// The same with ids that a row keeps as long as its segment lives. They say not where it is.
    #[must_use]
    pub fn with_lasting_row_ids(&self) -> Self {
        Self { lasting_ids: true, ..self.with_row_ids() }
    }

    /// The same table without the rows that are not chosen.
    #[must_use]
    pub fn with_only(&self, chosen: Arc<ChosenRows>) -> Self {
        Self { chosen: Some(chosen), ..self.clone() }
    }

    /// What is known of some columns before anything is read.
    pub(crate) fn planner_statistics(
        &self,
        projection: Option<&Vec<usize>>,
        config: &SessionConfig,
    ) -> Statistics {
        let columns = self.columns_of(projection);
        let table = ScanTable::new(&self.table, &self.cluster, &columns);
        let segments = self.segments(&table, &self.cluster);
        self.known(&table, &segments.records, config)
    }

    fn known(
        &self,
        table: &ScanTable,
        records: &[Arc<SegmentRecord>],
        config: &SessionConfig,
    ) -> Statistics {
        let mut statistics = match &self.chosen {
            None => listed_statistics(table, &self.table.segments),
            Some(_) => table_statistics(table, records),
        };
        let estimates = config.get_extension::<Estimates>();
        if let Some(analysed) = &self.table.statistics
            && estimates.is_none_or(|estimates| estimates.0)
        {
            add_distinct_counts(&mut statistics, &table.columns, analysed);
        }
        statistics
    }

    /// Rows that ANALYZE drew of some columns.
    pub(crate) fn samples(
        &self,
        projection: Option<&Vec<usize>>,
        config: &SessionConfig,
    ) -> ColumnSamples {
        let table = ScanTable::new(&self.table, &self.cluster, &self.columns_of(projection));
        self.samples_of(&table.columns, config)
    }

    fn samples_of(&self, columns: &[ColumnId], config: &SessionConfig) -> ColumnSamples {
        let estimates = config.get_extension::<Estimates>();
        let analysed = self.table.statistics.as_ref();
        match analysed.filter(|_| estimates.is_none_or(|estimates| estimates.0)) {
            None => ColumnSamples::default(),
            Some(analysed) => ColumnSamples::new(
                columns.iter().map(|column| analysed.column(*column)?.sketch.sample.clone()),
            ),
        }
    }

    fn columns_of(&self, projection: Option<&Vec<usize>>) -> Vec<usize> {
        match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        }
    }

    /// The segments to scan.
    fn segments(&self, table: &ScanTable, cluster: &Arc<ClusterView>) -> CatalogSegments {
        let (records, ordinals) = match &self.chosen {
            None => (Arc::clone(self.table.segments.shared()), None),
            Some(chosen) => {
                let (ordinals, records) = self.only(chosen).unzip();
                (Arc::new(records), Some(ordinals))
            }
        };
        CatalogSegments {
            records,
            ordinals,
            lasting_ids: self.lasting_ids,
            columns: table.columns.clone(),
            cluster: Arc::clone(cluster),
        }
    }

    /// The segments of which rows are chosen, each with its place in the snapshot's list.
    fn only(&self, chosen: &ChosenRows) -> impl Iterator<Item = (u32, Arc<SegmentRecord>)> {
        let all = (0..).zip(&self.table.segments);
        all.filter_map(|(ordinal, segment)| {
            let kept = chosen.0.get(&ordinal)?;
            let deleted = DeleteVector::complement(Some(kept), segment.rows);
            Some((ordinal, Arc::new(SegmentRecord { deleted, ..(**segment).clone() })))
        })
    }
}

/// The distribution key, if it is read. Intervals that are equal may have other hashes.
fn distribution_key(
    key: Option<ColumnId>,
    table: &ScanTable,
    cluster: &ClusterView,
) -> Option<DistributionKey> {
    let key = key?;
    let read = table.columns.iter().position(|column| *column == key)?;
    let is_interval = matches!(table.schema.field(read).data_type(), DataType::Interval(_));
    let slices = u16::try_from(cluster.slice_owners.len()).ok()?;
    (!is_interval).then_some(DistributionKey { read, slices })
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = self.columns_of(projection);
        // A plan that is made again uses the workers that there are now.
        let newer = state.config().get_extension::<ClusterView>();
        let cluster = newer.as_ref().unwrap_or(&self.cluster);
        let table = ScanTable::new(&self.table, cluster, &columns);
        let segments = self.segments(&table, cluster);
        let statistics = self.known(&table, &segments.records, state.config());
        let samples = self.samples_of(&table.columns, state.config());
        let copies_are_everywhere = || cluster.are_at_every_worker(&segments.records);
        let (is_everywhere, is_held_by_all) = match self.table.distribution {
            Distribution::All => (true, copies_are_everywhere()),
            Distribution::Auto if self.table.chosen_key.is_none() => {
                let are_everywhere = copies_are_everywhere();
                (are_everywhere, are_everywhere)
            }
            Distribution::Auto | Distribution::Even | Distribution::Key(_) => (false, false),
        };
        // Rows that are changed or written anew are best read where their slice is written.
        let is_held_by_all = is_held_by_all && self.is_whole();
        let partitions = state.config().target_partitions();
        let place = |key: &ColumnId| table.columns.iter().position(|column| column == key);
        let key = self.table.sort_key.iter().map_while(place).collect();
        let distribution_key = distribution_key(self.table.key_of_rows(), &table, cluster);
        let scan = SegmentScanExec::of_catalog(Arc::new(table), segments, partitions, statistics)
            .with_key(key)
            .with_distribution_key(distribution_key)
            .with_copies_everywhere(is_everywhere)
            .with_all_at_every_worker(is_held_by_all)
            .with_samples(samples)
            .with_distribution_in_effect(&self.table.distribution_in_effect());
        let scan: Arc<dyn ExecutionPlan> = Arc::new(scan);
        Ok(match limit {
            Some(_) => scan.with_fetch(limit).unwrap_or(scan),
            None => scan,
        })
    }

    fn statistics(&self) -> Option<Statistics> {
        None
    }
}
