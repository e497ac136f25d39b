//! What is known of each column: exactly from its segments, and by estimate from ANALYZE.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, ListBuilder, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use basalt_engine::snapshot::{Snapshot, TableSnapshot};
use basalt_engine::statistics::AnalysedColumn;
use basalt_storage::schema::Column;
use basalt_storage::zone_map::{ZoneMap, ZoneValue, zone_array};
use datafusion::error::{DataFusionError, Result};

use super::{numbers_or_null, strings, strings_or_null};

/// Ranges of a histogram that hold equally many rows each.
const HISTOGRAM_BUCKETS: usize = 100;

/// One column of one table.
struct Known<'a> {
    table: &'a TableSnapshot,
    column: &'a Column,
    /// Rows that the snapshot sees.
    rows: u64,
    null_share: Option<f64>,
    min: Option<String>,
    max: Option<String>,
    /// What ANALYZE found out, if it ever did.
    analysed: Option<&'a AnalysedColumn>,
}

impl<'a> Known<'a> {
    fn new(table: &'a TableSnapshot, column: &'a Column, rows: u64) -> Result<Self> {
        let zones = table.segments.iter().filter_map(|segment| {
            segment.columns.get(&column.id).map(|record| (segment.rows, &record.zone))
        });
        let stored: u64 = zones.clone().map(|(rows, _)| rows).sum();
        let zone = ZoneMap::merge(zones);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more precision")]
        let null_share = (stored > 0).then(|| zone.null_count as f64 / stored as f64);
        let mut bounds = texts(&column.data_type, [zone.min.as_ref(), zone.max.as_ref()])?;
        let (max, min) = (bounds.pop().flatten(), bounds.pop().flatten());
        let analysed = table.statistics.as_ref().and_then(|known| known.column(column.id));
        Ok(Self { table, column, rows, null_share, min, max, analysed })
    }

    /// Bounds of ranges with equally many rows, of columns that are sampled.
    fn histogram(&self) -> Result<Option<Vec<Option<String>>>> {
        let sample = self.analysed.and_then(|known| known.sketch.sample.as_ref());
        let Some(sample) = sample else { return Ok(None) };
        let bounds = sample.histogram(HISTOGRAM_BUCKETS);
        texts(&self.column.data_type, bounds.into_iter().map(Some)).map(Some)
    }
}

/// Values as SQL would show them. Long texts were cut.
fn texts<'a>(
    data_type: &DataType,
    values: impl IntoIterator<Item = Option<&'a ZoneValue>>,
) -> Result<Vec<Option<String>>> {
    let array = zone_array(data_type, values.into_iter())
        .map_err(|error| DataFusionError::External(Box::new(error)))?;
    let text = |row| match array.is_null(row) {
        true => Ok(None),
        false => array_value_to_string(&array, row).map(Some),
    };
    Ok((0..array.len()).map(text).collect::<Result<_, _>>()?)
}

pub(super) fn column_statistics(snapshot: &Snapshot) -> Result<RecordBatch> {
    let mut columns = Vec::new();
    for table in snapshot.tables() {
        let rows = table.segments.iter().map(|segment| segment.live_rows()).sum();
        for column in &table.schema.columns {
            columns.push(Known::new(table, column, rows)?);
        }
    }
    let mut histograms = ListBuilder::new(StringBuilder::new());
    for column in &columns {
        histograms.append_option(column.histogram()?);
    }
    let each = |of: fn(&Known<'_>) -> String| strings(columns.iter().map(of));
    let analysed = |of: &dyn Fn(&Known<'_>, &AnalysedColumn) -> u64| {
        numbers_or_null(columns.iter().map(|known| Some(of(known, known.analysed?))))
    };
    let null_share: Float64Array = columns.iter().map(|known| known.null_share).collect();
    let time = columns.iter().map(|known| {
        let microseconds = known.analysed?.time_ms.saturating_mul(1_000);
        Some(i64::try_from(microseconds).unwrap_or(i64::MAX))
    });
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("schema_name", each(|known| known.table.schema_name.clone()), false),
        ("table_name", each(|known| known.table.name.clone()), false),
        ("column_name", each(|known| known.column.name.clone()), false),
        ("null_share", Arc::new(null_share) as ArrayRef, true),
        ("min", strings_or_null(columns.iter().map(|known| known.min.clone())), true),
        ("max", strings_or_null(columns.iter().map(|known| known.max.clone())), true),
        ("rows_analysed", analysed(&|_, found| found.rows), true),
        ("distinct_values", analysed(&|known, found| found.distinct_in(known.rows)), true),
        ("histogram", Arc::new(histograms.finish()) as ArrayRef, true),
        ("version", analysed(&|_, found| found.version), true),
        ("analysed", Arc::new(time.collect::<TimestampMicrosecondArray>()) as ArrayRef, true),
    ])?)
}
