//! What a condition keeps of the rows that ANALYZE drew.
//!
//! Bounds and distinct counts say nothing of how values are spread between them: of a column of dates most of
//! whose rows are of the last week, a range over that week is not a tenth. Of columns whose spread matters, those of
//! the sort key and the distribution key, ANALYZE keeps a thousand rows, and with them their histogram
//! (`basalt_storage::sketch`). A condition of one such column is evaluated on them, whatever it says of it: a range, a
//! pattern, a function.
//!
//! Invariant: a hint. A condition that fails on them, or of which too few rows say anything, is estimated as if there
//! were none.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Datum, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use basalt_storage::sketch::RowSample;
use basalt_storage::zone_map::zone_array;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;

/// So many rows of a sample must fulfil a condition for their number to say something of all rows.
const HITS_MIN: usize = 4;

/// Samples of the columns of some rows, by their places.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColumnSamples(Arc<[Option<RowSample>]>);

impl ColumnSamples {
    /// Those of columns in this order; what has no rows is none.
    pub(crate) fn new(samples: impl Iterator<Item = Option<RowSample>>) -> Self {
        Self(samples.map(|sample| sample.filter(|sample| sample.rows() > 0)).collect())
    }

    /// The only column of a condition, if it has a sample.
    pub(crate) fn column_of(&self, condition: &Arc<dyn PhysicalExpr>) -> Option<usize> {
        if self.0.iter().all(Option::is_none) {
            return None;
        }
        let columns = collect_columns(condition);
        let mut columns = columns.iter();
        let (Some(only), None) = (columns.next(), columns.next()) else { return None };
        self.0.get(only.index())?.as_ref().map(|_| only.index())
    }

    /// The share of rows that conditions of one column keep together, of those between the bounds that are `known` of
    /// it: where segments were ruled out, these are narrower than the sample. Of the rows `nulls` are NULL.
    pub(crate) fn share(
        &self,
        column: usize,
        conditions: &[&Arc<dyn PhysicalExpr>],
        schema: &Schema,
        known: &ColumnStatistics,
        nulls: f64,
    ) -> Option<f64> {
        let sample = self.0.get(column)?.as_ref()?;
        let data_type = schema.field(column).data_type();
        let values = zone_array(data_type, sample.values().map(Some)).ok()?;
        let within = within(&values, known)?;
        let drawn = within.iter().filter(|within| **within).count();
        // The last row tells what becomes of NULL.
        let values = concat(&[&values, &new_null_array(data_type, 1)]).ok()?;
        let other = |(place, field): (usize, &Arc<arrow::datatypes::Field>)| -> ArrayRef {
            match place == column {
                true => Arc::clone(&values),
                false => new_null_array(field.data_type(), values.len()),
            }
        };
        let columns = schema.fields().iter().enumerate().map(other).collect();
        let nullable = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema, columns).ok()?;
        let mut kept = vec![true; values.len()];
        for condition in conditions {
            let found = condition.evaluate(&rows).ok()?.into_array(rows.num_rows()).ok()?;
            let found = found.as_boolean_opt()?;
            for (kept, found) in kept.iter_mut().zip(found) {
                *kept &= found == Some(true);
            }
        }
        let null_is_kept = kept.pop()?;
        let hits = kept.into_iter().zip(within).filter(|(kept, within)| *kept && *within).count();
        let of_nulls = if null_is_kept { nulls } else { 0.0 };
        let share = hits as f64 / drawn as f64 * (1.0 - nulls) + of_nulls;
        (hits >= HITS_MIN).then_some(share)
    }
}

/// Which values are between the bounds that are known of a column, if any are.
fn within(values: &ArrayRef, known: &ColumnStatistics) -> Option<Vec<bool>> {
    let mut within = vec![true; values.len()];
    let bounds: [(&Precision<ScalarValue>, Compare); 2] =
        [(&known.min_value, gt_eq), (&known.max_value, lt_eq)];
    for (bound, compare) in bounds {
        let Some(bound) = bound.get_value().filter(|bound| !bound.is_null()) else { continue };
        let found = compare(values, &bound.to_scalar().ok()?).ok()?;
        for (within, found) in within.iter_mut().zip(&found) {
            *within &= found == Some(true);
        }
    }
    Some(within)
}

type Compare = fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError>;

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray, UInt64Array};
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, is_null, like, lit};

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("other", DataType::Utf8View, false),
            Field::new("day", DataType::Int64, true),
            Field::new("name", DataType::Utf8View, true),
        ])
    }

    /// 900 rows of day 100 and one of each day before; names of two kinds, one in a hundred of the second.
    fn samples() -> ColumnSamples {
        let days: ArrayRef =
            Arc::new(Int64Array::from_iter_values((0..1000).map(|row: i64| row.min(100))));
        let names = (0..1000).map(|row| if row % 100 == 0 { "rare" } else { "common" });
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(names));
        let ids = UInt64Array::from_iter_values(0..1000);
        let sampled = |values: &ArrayRef| {
            let mut sample = RowSample::default();
            sample.add(values, &ids).unwrap();
            Some(sample)
        };
        ColumnSamples::new([None, sampled(&days), sampled(&names)].into_iter())
    }

    fn days(operator: Operator, day: i64) -> Arc<dyn PhysicalExpr> {
        binary(col("day", &schema()).unwrap(), operator, lit(day), &schema()).unwrap()
    }

    #[track_caller]
    fn check(conditions: &[Arc<dyn PhysicalExpr>], nulls: f64, expected: Option<f64>) {
        let samples = samples();
        let column = samples.column_of(&conditions[0]).unwrap();
        let conditions: Vec<_> = conditions.iter().collect();
        let known = ColumnStatistics::new_unknown();
        let share = samples.share(column, &conditions, &schema(), &known, nulls);
        let is_near = |share: f64, expected: f64| (share - expected).abs() < 1e-9;
        assert!(
            match (share, expected) {
                (Some(share), Some(expected)) => is_near(share, expected),
                (share, expected) => share == expected,
            },
            "{share:?} for {expected:?}"
        );
    }

    #[test]
    fn a_range_is_as_large_as_the_rows_in_it() {
        check(&[days(Operator::GtEq, 100)], 0.0, Some(0.9));
        check(&[days(Operator::Lt, 50)], 0.0, Some(0.05));
        check(&[days(Operator::GtEq, 10), days(Operator::Lt, 20)], 0.0, Some(0.01));
        check(&[days(Operator::Eq, 100)], 0.0, Some(0.9));
    }

    #[test]
    fn patterns_are_tried() {
        let name = col("name", &schema()).unwrap();
        let of = |pattern: &str| {
            let pattern = lit(ScalarValue::Utf8View(Some(pattern.to_owned())));
            like(false, false, Arc::clone(&name), pattern, &schema())
        };
        check(&[of("%mm%").unwrap()], 0.0, Some(0.99));
        check(&[of("r_re").unwrap()], 0.0, Some(0.01));
    }

    #[test]
    fn nulls_are_not_drawn_and_count_all_the_same() {
        check(&[days(Operator::GtEq, 100)], 0.5, Some(0.45));
        let is_null = is_null(col("day", &schema()).unwrap()).unwrap();
        let or_null = binary(days(Operator::Lt, 50), Operator::Or, is_null, &schema()).unwrap();
        check(&[or_null], 0.5, Some(0.525));
    }

    #[test]
    fn of_rows_between_bounds_others_are_not_drawn() {
        let known = ColumnStatistics {
            min_value: Precision::Exact(ScalarValue::Int64(Some(50))),
            max_value: Precision::Inexact(ScalarValue::Int64(Some(99))),
            ..ColumnStatistics::new_unknown()
        };
        let condition = days(Operator::Lt, 60);
        let share = samples().share(1, &[&condition], &schema(), &known, 0.0);
        assert_eq!(share, Some(0.2), "10 of 50 days");
    }

    #[test]
    fn too_few_rows_say_nothing() {
        check(&[days(Operator::Eq, 7)], 0.0, None);
        check(&[days(Operator::Gt, 1_000)], 0.0, None);
    }

    #[test]
    fn conditions_of_several_columns_and_of_none_that_was_drawn_are_not_tried() {
        let samples = samples();
        let both = binary(
            days(Operator::Lt, 50),
            Operator::And,
            binary(col("name", &schema()).unwrap(), Operator::Eq, lit("rare"), &schema()).unwrap(),
            &schema(),
        );
        assert_eq!(samples.column_of(&both.unwrap()), None);
        let other = binary(col("other", &schema()).unwrap(), Operator::Eq, lit("x"), &schema());
        assert_eq!(samples.column_of(&other.unwrap()), None);
    }
}
