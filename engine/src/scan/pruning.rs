//! Skipping row groups whose zone maps rule out every row.
//!
//! The predicate may change while the scan runs (dynamic filters of joins and top-k sorts), so
//! the pruning form is rebuilt when the predicate's generation changes. Anything the zone maps
//! cannot decide is kept: pruning never decides which rows are right, only which need no reading.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::zone_map::{ZoneMap, ZoneValue, zone_array};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, NotExpr, TryCastExpr};
use datafusion::physical_expr_common::physical_expr::snapshot_generation;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};

use super::ScanTable;

/// A predicate in the form that zone maps can answer.
pub(super) struct ZonePruner {
    predicate: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    /// The generation that `pruning` was built from.
    generation: Option<u64>,
    /// `None` when the predicate says nothing that zone maps can decide.
    pruning: Option<PruningPredicate>,
}

impl ZonePruner {
    /// A pruner for a predicate over the read columns.
    pub(super) fn new(predicate: Arc<dyn PhysicalExpr>, schema: SchemaRef) -> Self {
        Self { predicate, schema, generation: None, pruning: None }
    }

    /// Whether a row group may hold a row for which the predicate is true.
    pub(super) fn may_match(
        &mut self,
        table: &ScanTable,
        meta: &SegmentMeta,
        row_group: usize,
    ) -> Result<bool> {
        let generation = snapshot_generation(&self.predicate);
        if self.generation != Some(generation) {
            self.pruning = match keeps_order(&self.predicate)? {
                false => None,
                true => PruningPredicateBuilder::new()
                    .with_file_schema(Arc::clone(&self.schema))
                    .try_build(Arc::clone(&self.predicate))
                    .ok()
                    .filter(|pruning| !pruning.always_true()),
            };
            self.generation = Some(generation);
        }
        let Some(pruning) = &self.pruning else { return Ok(true) };
        let statistics = RowGroupStatistics { table, meta, row_group };
        match pruning.prune(&statistics) {
            Ok(kept) => Ok(kept.into_iter().any(|keep| keep)),
            // DataFusion's form of the predicate may fail where the predicate does not; one that
            // does says so when it is evaluated for the rows.
            Err(error) => {
                tracing::debug!(%error, predicate = %self.predicate, "a predicate does not prune");
                Ok(true)
            }
        }
    }
}

/// Whether bounds may be looked at through the casts of a predicate. DataFusion does so through every
/// cast between times, but the time of day of the latest moment need not be the latest time of day;
/// and through a cast of a NOT, where what it makes of the bounds has wrong types
/// (`sql-tests/upstream/pruning-of-casts-of-not.md`).
fn keeps_order(predicate: &Arc<dyn PhysicalExpr>) -> Result<bool> {
    let loses_order = |node: &Arc<dyn PhysicalExpr>| {
        let cast = node.downcast_ref::<CastExpr>().map(|cast| (cast.expr(), cast.cast_type()));
        let cast = cast.or_else(|| {
            node.downcast_ref::<TryCastExpr>().map(|cast| (cast.expr(), cast.cast_type()))
        });
        Ok(cast.is_some_and(|(from, to)| {
            matches!(to, DataType::Time32(_) | DataType::Time64(_)) || from.is::<NotExpr>()
        }))
    };
    Ok(!predicate.exists(loses_order)?)
}

/// The zone maps of one row group, as DataFusion's pruning asks for them.
struct RowGroupStatistics<'a> {
    table: &'a ScanTable,
    meta: &'a SegmentMeta,
    row_group: usize,
}

impl RowGroupStatistics<'_> {
    fn zone(&self, column: &Column) -> Option<&ZoneMap> {
        let index = self.table.schema.index_of(&column.name).ok()?;
        self.meta.column(self.table.columns[index])?.zone(self.row_group)
    }

    fn bound(&self, column: &Column, pick: fn(&ZoneMap) -> Option<&ZoneValue>) -> Option<ArrayRef> {
        let field = self.table.schema.field_with_name(&column.name).ok()?;
        let value = pick(self.zone(column)?);
        zone_array(field.data_type(), std::iter::once(value)).ok()
    }
}

impl PruningStatistics for RowGroupStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |zone| zone.min.as_ref())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |zone| zone.max.as_ref())
    }

    fn num_containers(&self) -> usize {
        1
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from(vec![self.zone(column)?.null_count])))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = self.meta.row_groups().get(self.row_group)?;
        Some(Arc::new(UInt64Array::from(vec![u64::from(*rows)])))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
