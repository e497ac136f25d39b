//! What the planner may believe about a scan: partitioning, order, statistics.
//!
//! Statistics are semantics where they are exact: DataFusion answers `count(*)`, `min` and `max`
//! from them (STORAGE.md T5). So they are exact only when nothing filters the scan and the bounds
//! are real values.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use basalt_storage::ids::ColumnId;
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::zone_map::{ZoneMap, ZoneValue, zone_array};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::error::Result;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::PlanProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};

use super::order::ScanOrder;
use super::row_ids::ROW_ID_COLUMN;
use super::{ScanTable, SegmentScanExec};
use crate::segment_list::SegmentList;

/// Properties of a scan: never hash partitioned, whatever the table's distribution (DESIGN.md).
pub(super) fn plan_properties(
    schema: &SchemaRef,
    projection: &[usize],
    partitions: usize,
    order: &ScanOrder,
) -> Arc<PlanProperties> {
    let fields: Vec<_> =
        projection.iter().map(|index| Arc::clone(&schema.fields()[*index])).collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let order = order.of_output(&schema, projection);
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new_with_orderings(schema, order),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// Statistics of the read columns over some segments, from the catalog.
pub(crate) fn table_statistics(table: &ScanTable, segments: &[Arc<SegmentRecord>]) -> Statistics {
    statistics_by(table, segments, |column, data_type, rows| {
        column_statistics(column, data_type, segments, rows)
    })
}

/// The same over all segments of a table, which are computed once for a snapshot.
pub(crate) fn listed_statistics(table: &ScanTable, segments: &SegmentList) -> Statistics {
    statistics_by(table, segments, |column, data_type, rows| {
        segments.column_statistics(column, data_type, || {
            column_statistics(column, data_type, segments, rows)
        })
    })
}

fn statistics_by(
    table: &ScanTable,
    segments: &[Arc<SegmentRecord>],
    of_column: impl Fn(ColumnId, &DataType, u64) -> ColumnStatistics,
) -> Statistics {
    let rows: u64 = segments.iter().map(|segment| segment.live_rows()).sum();
    let columns: Vec<_> = table
        .columns
        .iter()
        .zip(table.schema.fields())
        .map(|(column, field)| match *column {
            ROW_ID_COLUMN => ColumnStatistics::new_unknown(),
            column => of_column(column, field.data_type(), rows),
        })
        .collect();
    let mut statistics = Statistics {
        num_rows: exact(rows),
        total_byte_size: Precision::Absent,
        column_statistics: columns,
    };
    statistics.calculate_total_byte_size(&table.schema);
    if segments.iter().any(|segment| segment.deleted.is_some()) {
        // Zone maps are of all rows, deleted ones included.
        statistics = statistics.to_inexact();
        statistics.num_rows = exact(rows);
    }
    statistics
}

fn column_statistics(
    column: ColumnId,
    data_type: &DataType,
    segments: &[Arc<SegmentRecord>],
    rows: u64,
) -> ColumnStatistics {
    let zones: Option<Vec<&ZoneMap>> = segments
        .iter()
        .filter(|segment| segment.rows > 0)
        .map(|segment| segment.columns.get(&column).map(|record| &record.zone))
        .collect();
    let Some(zones) = zones else { return ColumnStatistics::new_unknown() };
    let nulls: u64 = zones.iter().map(|zone| zone.null_count).sum();
    // A segment whose values are all NULL has no bounds and hides none.
    let valued = segments
        .iter()
        .filter(|segment| segment.rows > 0)
        .zip(&zones)
        .filter(|(segment, zone)| zone.null_count < segment.rows)
        .map(|(_, zone)| *zone);
    let bounds = |pick: fn(&ZoneMap) -> Option<&ZoneValue>, largest: bool| {
        bound(data_type, valued.clone().map(pick).collect(), largest)
    };
    let min_value = bounds(|zone| zone.min.as_ref(), false);
    let max_value = bounds(|zone| zone.max.as_ref(), true);
    let byte_size = data_type.primitive_width().map_or_else(
        || {
            let stored: u64 = segments
                .iter()
                .filter_map(|segment| segment.columns.get(&column))
                .map(|record| record.bytes)
                .sum();
            Precision::Inexact(usize::try_from(stored).unwrap_or(usize::MAX))
        },
        |width| exact(rows.saturating_mul(width as u64)),
    );
    ColumnStatistics {
        null_count: exact(nulls),
        min_value,
        max_value,
        byte_size,
        ..ColumnStatistics::new_unknown()
    }
}

/// The smallest or largest of some bounds; absent unless every part has one.
fn bound(
    data_type: &DataType,
    values: Vec<Option<&ZoneValue>>,
    largest: bool,
) -> Precision<ScalarValue> {
    let exact = values.iter().all(|value| match value {
        Some(ZoneValue::Bytes { exact, .. }) => *exact,
        // Zone maps widen a zero to the zero of the other sign.
        Some(ZoneValue::Float(value)) => *value != 0.0,
        Some(_) => true,
        None => false,
    });
    if values.is_empty() || values.iter().any(Option::is_none) {
        return Precision::Absent;
    }
    let Ok(array) = zone_array(data_type, values.into_iter()) else { return Precision::Absent };
    let scalars: Result<Vec<_>> =
        (0..array.len()).map(|row| ScalarValue::try_from_array(&array, row)).collect();
    let best = scalars.ok().and_then(|scalars| {
        scalars.into_iter().reduce(|best, next| match next.partial_cmp(&best) {
            Some(std::cmp::Ordering::Greater) if largest => next,
            Some(std::cmp::Ordering::Less) if !largest => next,
            _ => best,
        })
    });
    match best {
        Some(value) if exact => Precision::Exact(value),
        Some(value) => Precision::Inexact(value),
        None => Precision::Absent,
    }
}

fn exact(value: u64) -> Precision<usize> {
    usize::try_from(value).map_or(Precision::Absent, Precision::Exact)
}

/// What a scan says of its output: exact only without predicate and limit, and for all partitions.
pub(super) fn scan_statistics(
    scan: &SegmentScanExec,
    read: &Arc<Statistics>,
    partition: Option<usize>,
) -> Result<Arc<Statistics>> {
    if partition.is_some() {
        let schema = datafusion::physical_plan::ExecutionPlan::schema(scan);
        return Ok(Arc::new(Statistics::new_unknown(&schema)));
    }
    let statistics = read.as_ref().clone().project(Some(&scan.projection));
    let statistics = match scan.predicate {
        Some(_) => statistics.to_inexact(),
        None => statistics,
    };
    match scan.limit {
        Some(limit) => {
            let partitions = scan.partitions.len();
            Ok(Arc::new(statistics.with_fetch(Some(limit), 0, partitions)?))
        }
        None => Ok(Arc::new(statistics)),
    }
}
