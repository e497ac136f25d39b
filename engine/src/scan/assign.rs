//! Which partition of a scan reads what, and in which order.
//!
//! Spread anew whenever the segments change, or the order in which they are wanted: on the coordinator,
//! which knows what the catalog says of them. A worker reads what it is told, as it is told.

use std::fmt;
use std::sync::Arc;

use basalt_storage::ids::ColumnId;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::{ExecutionPlan, SortOrderPushdownResult};

use super::SegmentScanExec;
use super::order::{
    CHAINS_MAX, KeyColumn, KeyOrder, ScanOrder, chains, has_no_nulls, spread_chains,
    spread_first_rows,
};
use super::segments::Partitions;

impl SegmentScanExec {
    /// The same rows over `partitions` partitions, in the order of this scan.
    pub(super) fn spread(mut self, partitions: usize) -> Self {
        match self.order.clone() {
            ScanOrder::Key(order) => {
                // A part of what was not merged is not merged in as many partitions either.
                let partitions = if order.merges { partitions } else { self.partitions.len() };
                return self.spread_by_key(order.columns, order.merges, partitions);
            }
            ScanOrder::FirstRows { descending } => {
                let (segments, records) = (&self.segments, &self.records);
                self.partitions = match self.key_column() {
                    Some(key) => {
                        spread_first_rows(segments, records, key, descending, partitions).into()
                    }
                    None => Partitions::of_all(segments, partitions),
                };
            }
            ScanOrder::None => {
                self.partitions = Partitions::of_all(&self.segments, partitions);
            }
        }
        self.with_properties()
    }

    /// In the order of some columns. Segments that were taken away make no more chains.
    fn spread_by_key(mut self, columns: Vec<KeyColumn>, merges: bool, partitions: usize) -> Self {
        let found = self.key_column().and_then(|key| {
            chains(&self.records, key, columns.len() > 1, CHAINS_MAX * partitions.max(1))
        });
        // Without chains each segment is one, which is in order whatever the bounds are.
        let found =
            found.unwrap_or_else(|| (0..self.segments.len() as u32).map(|s| vec![s]).collect());
        let (units, chains) = spread_chains(&self.segments, &found, merges, partitions);
        self.partitions = units.into();
        self.order = ScanOrder::Key(KeyOrder { columns, chains, merges });
        self.with_properties()
    }

    /// This scan in the order of those columns of its order that it puts out: who does not see a column
    /// does not need it in order.
    pub(super) fn with_order_of_output(mut self) -> Self {
        let ScanOrder::Key(order) = &self.order else { return self.with_properties() };
        let is_out = |key: &&KeyColumn| self.projection.contains(&key.index);
        let columns: Vec<_> = order.columns.iter().take_while(is_out).copied().collect();
        if columns.len() == order.columns.len() {
            return self.with_properties();
        }
        let (partitions, merges) = (self.partitions.len(), order.merges);
        if columns.is_empty() {
            self.order = ScanOrder::None;
            return self.spread(partitions);
        }
        self.spread_by_key(columns, merges, partitions)
    }

    /// The first column of the sort key, when it is read.
    fn key_column(&self) -> Option<ColumnId> {
        self.table.columns.get(*self.key.first()?).copied()
    }

    /// This scan in an order that is asked for, if the sort key gives it; or with the first rows first, if the
    /// order begins with the key's first column.
    pub(super) fn try_order(
        &self,
        order: &[PhysicalSortExpr],
    ) -> SortOrderPushdownResult<Arc<dyn ExecutionPlan>> {
        let partitions = self.partitions.len();
        let is_known = self.records.len() == self.segments.len();
        let Some(key) = self.key_column().filter(|_| is_known && self.limit.is_none()) else {
            return SortOrderPushdownResult::Unsupported;
        };
        if let Some(columns) = self.order_columns(order)
            && chains(&self.records, key, columns.len() > 1, CHAINS_MAX * partitions).is_some()
        {
            let inner = Arc::new(self.clone().spread_by_key(columns, true, partitions));
            return SortOrderPushdownResult::Exact { inner };
        }
        match order.first() {
            Some(first) if self.read_column(first) == self.key.first().copied() => {
                let inner = Arc::new(self.beginning_with(first.options.descending));
                SortOrderPushdownResult::Inexact { inner }
            }
            _ => SortOrderPushdownResult::Unsupported,
        }
    }

    /// This scan with the rows first that have the least values of the key, or the greatest.
    fn beginning_with(&self, descending: bool) -> Self {
        let mut scan = self.clone();
        scan.order = ScanOrder::FirstRows { descending };
        scan.spread(self.partitions.len())
    }

    /// A scan in an order, without it but with its first rows first.
    pub(crate) fn first_rows_first(&self) -> Option<Self> {
        self.merged_chains().map(|_| self.beginning_with(false))
    }

    /// The columns of an order, if rows that are sorted by the key are in it.
    fn order_columns(&self, order: &[PhysicalSortExpr]) -> Option<Vec<KeyColumn>> {
        if order.len() > self.key.len() {
            return None;
        }
        let column = |(wanted, key): (&PhysicalSortExpr, &usize)| {
            let nulls_first = wanted.options.nulls_first;
            let is_key = self.read_column(wanted)? == *key && !wanted.options.descending;
            let fits = !nulls_first || has_no_nulls(&self.records, self.table.columns[*key]);
            (is_key && fits).then_some(KeyColumn { index: *key, nulls_first })
        };
        order.iter().zip(self.key.iter()).map(column).collect()
    }

    /// The read column that is sorted by, when it is one.
    fn read_column(&self, order: &PhysicalSortExpr) -> Option<usize> {
        let column = order.expr.downcast_ref::<Column>()?;
        self.projection.get(column.index()).copied()
    }

    /// The most chains that a partition merges; `None` when it is in no order.
    pub(crate) fn merged_chains(&self) -> Option<usize> {
        let ScanOrder::Key(order) = &self.order else { return None };
        order.chains.iter().map(Vec::len).max()
    }

    /// A scan in an order, with so many partitions that none has to merge chains; `None` when that would be
    /// more than `most`.
    pub(crate) fn unmerged(&self, most: usize) -> Option<Self> {
        let ScanOrder::Key(order) = &self.order else { return None };
        let key = self.key_column()?;
        let chains = chains(&self.records, key, order.columns.len() > 1, most)?;
        let partitions = chains.len().max(self.partitions.len());
        Some(self.clone().spread_by_key(order.columns.clone(), false, partitions))
    }

    pub(super) fn fmt_order(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.order {
            ScanOrder::None => Ok(()),
            ScanOrder::FirstRows { descending: false } => f.write_str(", least_first"),
            ScanOrder::FirstRows { descending: true } => f.write_str(", greatest_first"),
            ScanOrder::Key(order) => {
                let schema = &self.table.schema;
                let names: Vec<_> = order
                    .columns
                    .iter()
                    .map(|key| schema.field(key.index).name().as_str())
                    .collect();
                let chains: usize = order.chains.iter().map(Vec::len).sum();
                write!(f, ", sorted_by=[{}], chains={chains}", names.join(", "))
            }
        }
    }
}
