//! Skipping segments, row groups and pages whose zone maps rule out every row: segments where a statement is
//! planned, from the catalog, before any worker hears of it; row groups and pages where they would be read.
//!
//! The predicate may change while the scan runs (dynamic filters of joins and top-k sorts), so
//! the pruning form is rebuilt when the predicate's generation changes. Anything the zone maps
//! cannot decide is kept: pruning never decides which rows are right, only which need no reading.
//!
//! Of a table that is distributed by a key, `key = 7` and `key IN (7, 8)` leave the segments of the slices
//! that these values hash to, and so a look-up asks one worker.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use basalt_storage::ids::ColumnId;
use basalt_storage::layout::PAGE_ROWS;
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::slice_hash::slices_of;
use basalt_storage::zone_map::{ZoneMap, ZoneValue, zone_array};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, NotExpr, TryCastExpr};
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use datafusion::physical_expr_common::physical_expr::snapshot_generation;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};

use super::ScanTable;
use super::columns::RowGroup;
use super::exec::DistributionKey;

/// A predicate in the form that zone maps can answer.
pub(super) struct ZonePruner {
    predicate: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    /// The generation that `pruning` was built from.
    generation: Option<u64>,
    /// `None` when the predicate says nothing that zone maps can decide.
    pruning: Option<PruningPredicate>,
    /// Which row groups of a segment may match, by its place in the scan: to ask about several takes hardly longer
    /// than to ask about one.
    verdicts: HashMap<usize, Vec<bool>>,
}

impl ZonePruner {
    /// A pruner for a predicate over the read columns.
    pub(super) fn new(predicate: Arc<dyn PhysicalExpr>, schema: SchemaRef) -> Self {
        Self { predicate, schema, generation: None, pruning: None, verdicts: HashMap::new() }
    }

    /// Whether the predicate may change while the scan runs.
    pub(super) fn is_dynamic(&self) -> bool {
        // 0 is that of what never changes.
        snapshot_generation(&self.predicate) != 0
    }

    /// Whether a row group may hold a row for which the predicate is true; `meta` is that of its segment.
    pub(super) fn may_match(
        &mut self,
        table: &ScanTable,
        meta: &SegmentMeta,
        RowGroup { segment, index }: RowGroup,
    ) -> Result<bool> {
        let generation = snapshot_generation(&self.predicate);
        if self.generation != Some(generation) {
            self.pruning = pruning_form(&self.predicate, &self.schema)?;
            self.generation = Some(generation);
            self.verdicts.clear();
        }
        let Some(pruning) = &self.pruning else { return Ok(true) };
        let of_segment = || kept(pruning, &Zones { table, of: &RowGroupZones { meta } });
        let verdict = self.verdicts.entry(segment).or_insert_with(of_segment);
        Ok(verdict.get(index).copied().unwrap_or(true))
    }

    /// Which pages of a row group that may match may hold such a row, by what is known since then; `None`
    /// when nothing is known of pages, or all may.
    pub(super) fn pages(
        &self,
        table: &ScanTable,
        meta: &SegmentMeta,
        row_group: usize,
    ) -> Option<Vec<bool>> {
        let pruning = self.pruning.as_ref()?;
        let pages = PageZones::new(table, meta, row_group)?;
        let kept = kept(pruning, &Zones { table, of: &pages });
        kept.contains(&false).then_some(kept)
    }
}

/// Which segments may hold a row for which a predicate over the read columns is true, by what the
/// catalog says of them.
pub(super) fn segments_that_may_match(
    predicate: &Arc<dyn PhysicalExpr>,
    table: &ScanTable,
    segments: &[Arc<SegmentRecord>],
    key: Option<DistributionKey>,
) -> Result<Vec<bool>> {
    let slices = key.and_then(|key| slices_of_key(predicate, table, key));
    let mut kept: Vec<_> = match &slices {
        Some(slices) => segments.iter().map(|s| slices.contains(&s.slice.0)).collect(),
        None => vec![true; segments.len()],
    };
    let left = || segments.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(s, _)| Arc::clone(s));
    let left: Vec<_> = left().collect();
    if let Some(pruning) = pruning_form(predicate, &table.schema)?
        && !left.is_empty()
    {
        let may = self::kept(&pruning, &Zones { table, of: left.as_slice() });
        let in_slices = kept.iter_mut().filter(|kept| **kept);
        in_slices.zip(may).for_each(|(kept, may)| *kept = may);
    }
    Ok(kept)
}

/// The slices of the values that the distribution key must have where a predicate is true; `None` when it
/// says nothing of them.
fn slices_of_key(
    predicate: &Arc<dyn PhysicalExpr>,
    table: &ScanTable,
    key: DistributionKey,
) -> Option<BTreeSet<u16>> {
    let field = table.schema.field(key.read);
    // Of floats, values are in a set that `=` does not tell apart.
    if field.data_type().is_floating() {
        return None;
    }
    let is_of_key = |guarantee: &LiteralGuarantee| {
        let is_known = |value: &ScalarValue| value.data_type() == *field.data_type();
        guarantee.guarantee == Guarantee::In
            && guarantee.column.name() == field.name()
            && !guarantee.literals.is_empty()
            && guarantee.literals.iter().all(is_known)
    };
    let values = LiteralGuarantee::analyze(predicate).into_iter().find(is_of_key)?.literals;
    let values = ScalarValue::iter_to_array(values).ok()?;
    Some(slices_of(&values, key.slices).ok()?.into_iter().collect())
}

/// A predicate in the form that zone maps can answer; `None` when it says nothing that they decide.
fn pruning_form(
    predicate: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Result<Option<PruningPredicate>> {
    if !keeps_order(predicate)? {
        return Ok(None);
    }
    let form = PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(schema))
        .try_build(Arc::clone(predicate));
    Ok(form.ok().filter(|pruning| !pruning.always_true()))
}

/// Which containers must be kept.
fn kept(pruning: &PruningPredicate, zones: &impl PruningStatistics) -> Vec<bool> {
    pruning.prune(zones).unwrap_or_else(|error| {
        // DataFusion's form of the predicate may fail where the predicate does not; one that does says
        // so when it is evaluated for the rows.
        tracing::debug!(%error, "a predicate does not prune");
        vec![true; zones.num_containers()]
    })
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

/// Runs of rows that have zone maps.
trait Zoned {
    /// How many.
    fn count(&self) -> usize;
    /// A column's zone map in each; `None` where it is not known.
    fn zones(&self, column: ColumnId) -> impl Iterator<Item = Option<&ZoneMap>>;
    /// Rows of each.
    fn rows(&self) -> impl Iterator<Item = u64>;
}

/// The row groups of a segment.
struct RowGroupZones<'a> {
    meta: &'a SegmentMeta,
}

impl Zoned for RowGroupZones<'_> {
    fn count(&self) -> usize {
        self.meta.row_groups().len()
    }

    fn zones(&self, column: ColumnId) -> impl Iterator<Item = Option<&ZoneMap>> {
        let column = self.meta.column(column);
        (0..self.count()).map(move |row_group| column?.zone(row_group))
    }

    fn rows(&self) -> impl Iterator<Item = u64> {
        self.meta.row_groups().iter().map(|rows| u64::from(*rows))
    }
}

/// The pages of a row group.
struct PageZones<'a> {
    meta: &'a SegmentMeta,
    row_group: usize,
    rows: usize,
    count: usize,
}

impl<'a> PageZones<'a> {
    /// Those of a row group; `None` when nothing is known of any column's.
    fn new(table: &ScanTable, meta: &'a SegmentMeta, row_group: usize) -> Option<Self> {
        let columns = table.columns.iter().filter_map(|column| meta.column(*column));
        let count = columns.map(|column| column.page_zones(row_group).len()).max()?;
        let rows = *meta.row_groups().get(row_group)? as usize;
        (count > 0).then_some(Self { meta, row_group, rows, count })
    }
}

impl Zoned for PageZones<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn zones(&self, column: ColumnId) -> impl Iterator<Item = Option<&ZoneMap>> {
        let column = self.meta.column(column);
        let zones = column.map(|column| column.page_zones(self.row_group)).unwrap_or_default();
        (0..self.count).map(|page| zones.get(page))
    }

    fn rows(&self) -> impl Iterator<Item = u64> {
        let page = PAGE_ROWS as usize;
        (0..self.count).map(move |number| self.rows.saturating_sub(number * page).min(page) as u64)
    }
}

/// Segments as the catalog knows them.
impl Zoned for [Arc<SegmentRecord>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn zones(&self, column: ColumnId) -> impl Iterator<Item = Option<&ZoneMap>> {
        self.iter().map(move |segment| segment.columns.get(&column).map(|known| &known.zone))
    }

    fn rows(&self) -> impl Iterator<Item = u64> {
        // Deleted ones too: zone maps are of all.
        self.iter().map(|segment| segment.rows)
    }
}

/// Zone maps as DataFusion's pruning asks for them.
struct Zones<'a, Z: ?Sized> {
    table: &'a ScanTable,
    of: &'a Z,
}

impl<Z: Zoned + ?Sized> Zones<'_, Z> {
    fn column(&self, column: &Column) -> Option<(ColumnId, &DataType)> {
        let index = self.table.schema.index_of(&column.name).ok()?;
        Some((self.table.columns[index], self.table.schema.field(index).data_type()))
    }

    fn bound(&self, column: &Column, pick: fn(&ZoneMap) -> Option<&ZoneValue>) -> Option<ArrayRef> {
        let (column, data_type) = self.column(column)?;
        let bounds: Vec<_> = self.of.zones(column).map(|zone| pick(zone?)).collect();
        zone_array(data_type, bounds.into_iter()).ok()
    }
}

impl<Z: Zoned + ?Sized> PruningStatistics for Zones<'_, Z> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |zone| zone.min.as_ref())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |zone| zone.max.as_ref())
    }

    fn num_containers(&self) -> usize {
        self.of.count()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (column, _) = self.column(column)?;
        let counts = self.of.zones(column).map(|zone| zone.map(|zone| zone.null_count));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.of.rows().map(Some).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::Int64Array;
    use arrow::datatypes::{Field, Schema};
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{ColumnVersion, Epoch, SegmentId, SliceId, TableId, TxnId};
    use basalt_storage::manifest::{ColumnRecord, Layout};
    use datafusion::common::ToDFSchema;
    use datafusion::logical_expr::{Expr, col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Rows of each segment: segment `n` has the values from `100 * n`.
    const ROWS: i64 = 100;
    const SEGMENTS: i64 = 100;

    fn table() -> ScanTable {
        let fields = ["a", "added later"].map(|name| Field::new(name, DataType::Int64, true));
        ScanTable {
            epoch: Epoch(1),
            table: TableId(1),
            name: "public.t".to_owned(),
            columns: vec![ColumnId(1), ColumnId(2)],
            schema: Arc::new(Schema::new(fields.to_vec())),
            endpoints: BTreeMap::new(),
        }
    }

    fn segment(number: i64) -> Arc<SegmentRecord> {
        segment_in(SliceId(0), number * ROWS, ROWS)
    }

    /// A segment of rows with these values.
    fn segment_in(slice: SliceId, first: i64, rows: i64) -> Arc<SegmentRecord> {
        let zone = ZoneMap {
            null_count: 0,
            min: Some(ZoneValue::Int(first)),
            max: Some(ZoneValue::Int(first + rows - 1)),
        };
        let column = ColumnRecord { version: ColumnVersion(1), bytes: 1, encoding: None, zone };
        Arc::new(SegmentRecord {
            table: TableId(1),
            slice,
            segment: SegmentId::generate(),
            txn: TxnId::generate(),
            layout: Layout::Packed,
            rows: rows as u64,
            row_groups: vec![rows as u32],
            columns: BTreeMap::from([(ColumnId(1), column)]),
            meta_digest: Digest::of(b""),
            bytes: 1,
            holders: vec![],
            deleted: None,
            routed_by: None,
        })
    }

    /// The segments of a hundred that may match.
    fn kept(predicate: &Expr) -> Vec<usize> {
        kept_of(&(0..SEGMENTS).map(segment).collect::<Vec<_>>(), predicate, None)
    }

    fn kept_of(
        segments: &[Arc<SegmentRecord>],
        predicate: &Expr,
        key: Option<DistributionKey>,
    ) -> Vec<usize> {
        let table = table();
        let schema = Arc::clone(&table.schema).to_dfschema().unwrap();
        let session = SessionContext::new();
        let predicate = session.create_physical_expr(predicate.clone(), &schema).unwrap();
        let kept = segments_that_may_match(&predicate, &table, segments, key).unwrap();
        (0..).zip(kept).filter(|(_, kept)| *kept).map(|(number, _)| number).collect()
    }

    /// The slices that are left of a table by its key, whose bounds say nothing.
    fn slices_left(predicate: &Expr) -> Vec<usize> {
        let segments: Vec<_> = (0..8).map(|slice| segment_in(SliceId(slice), 0, 1_000)).collect();
        kept_of(&segments, predicate, Some(DistributionKey { read: 0, slices: 8 }))
    }

    fn slice_of(value: i64) -> usize {
        slices_of(&(Arc::new(Int64Array::from(vec![value])) as ArrayRef), 8).unwrap()[0].into()
    }

    #[test]
    fn a_value_of_the_distribution_key_leaves_the_slice_that_it_hashes_to() {
        for value in 0..100 {
            assert_eq!(slices_left(&col("a").eq(lit(value))), [slice_of(value)]);
        }
        let listed = col("a").in_list(vec![lit(7_i64), lit(8_i64), lit(9_i64)], false);
        let slices: BTreeSet<_> = [7, 8, 9].map(slice_of).into();
        assert_eq!(slices_left(&listed), slices.into_iter().collect::<Vec<_>>());
        let narrowed = col("a").eq(lit(7_i64)).and(col("a").lt(lit(900_i64)));
        assert_eq!(slices_left(&narrowed), [slice_of(7)]);
    }

    #[test]
    fn what_says_nothing_of_the_value_of_the_distribution_key_leaves_all_slices() {
        let all = (0..8).collect::<Vec<_>>();
        let (key, other) = (col("a"), Expr::Column("\"added later\"".into()));
        assert_eq!(slices_left(&key.clone().gt(lit(7_i64))), all);
        assert_eq!(slices_left(&key.clone().not_eq(lit(7_i64))), all);
        assert_eq!(slices_left(&key.clone().in_list(vec![lit(7_i64)], true)), all);
        assert_eq!(slices_left(&key.clone().eq(lit(7_i64)).or(other.clone().gt(lit(1_i64)))), all);
        assert_eq!(slices_left(&other.eq(lit(7_i64))), all);
        assert_eq!(slices_left(&(key + lit(1_i64)).eq(lit(7_i64))), all);
    }

    #[test]
    fn a_range_keeps_the_segments_that_have_it_and_no_other() {
        assert_eq!(kept(&col("a").between(lit(250_i64), lit(410_i64))), [2, 3, 4]);
        assert_eq!(kept(&col("a").eq(lit(9_999_i64))), [99]);
        assert_eq!(kept(&col("a").lt(lit(0_i64))), [0; 0]);
        assert_eq!(kept(&col("a").is_null()), [0; 0]);
    }

    #[test]
    fn what_bounds_cannot_decide_keeps_all() {
        let all = usize::try_from(SEGMENTS).unwrap();
        let added = Expr::Column("\"added later\"".into());
        assert_eq!(kept(&added.clone().gt(lit(5_i64))).len(), all, "no bounds are known");
        assert_eq!(kept(&added.is_null()).len(), all);
        assert_eq!(kept(&(col("a") % lit(7_i64)).eq(lit(3_i64))).len(), all);
    }
}
