//! How much of a table is out of the order of its sort key, as Redshift's `svv_table_info.unsorted`.

use basalt_engine::snapshot::TableSnapshot;

use crate::key_ranges::{ranges_by_slice, rows_of, rows_out_of_order};

/// The share of a table's rows in segments that begin before another segment of their slice ends;
/// `None` without a sort key.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more precision")]
pub(super) fn unsorted_share(table: &TableSnapshot) -> Option<f64> {
    let key = *table.sort_key.first()?;
    let slices = ranges_by_slice(&table.segments, key);
    let rows: u64 = slices.values().map(|ranges| rows_of(ranges)).sum();
    let unsorted: u64 = slices.into_values().map(rows_out_of_order).sum();
    Some(if rows == 0 { 0.0 } else { unsorted as f64 / rows as f64 })
}
