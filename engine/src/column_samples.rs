//! What a condition keeps of the rows that ANALYZE drew.
//!
//! Bounds and distinct counts say nothing of how values are spread between them: of a column of dates most of
//! whose rows are of the last week, a range over that week is not a tenth. Of columns whose spread matters, those of
//! the sort key and the distribution key, ANALYZE keeps a thousand rows, and with them their histogram
//! (`basalt_storage::sketch`). A condition of one such column is evaluated on them, whatever it says of it: a range, a
//! pattern, a function. Of long texts only the beginnings are kept: columns of such are estimated without.
//!
//! Invariant: a hint. A condition that fails on them is estimated as if there were none, and so is one that very few
//! fulfil, but as no more than those.

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Datum, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;
use basalt_storage::sketch::RowSample;
use basalt_storage::zone_map::{ZoneValue, zone_array};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;

/// So many rows of a sample must fulfil a condition for their number to say something of all rows.
const HITS_MIN: usize = 4;

/// Samples of the columns of some rows, by their places. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnSamples(Arc<[Option<Drawn>]>);

/// The sample of a column, and its values as an array once they are asked for.
#[derive(Debug)]
struct Drawn {
    sample: RowSample,
    values: OnceLock<Option<ArrayRef>>,
}

/// What the rows that were drawn say of a condition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Share {
    /// It keeps about this share of all rows.
    About(f64),
    /// It keeps so few that all that is known is that there are no more.
    AtMost(f64),
}

impl ColumnSamples {
    /// Those of columns in this order; one without rows is none, and so is one of texts that were cut: whatever
    /// looks at their ends would be told wrongly.
    pub(crate) fn new(samples: impl Iterator<Item = Option<RowSample>>) -> Self {
        let is_whole = |value: &ZoneValue| !matches!(value, ZoneValue::Bytes { exact: false, .. });
        let is_of_use = |sample: &RowSample| sample.rows() > 0 && sample.values().all(is_whole);
        let drawn = |sample| Drawn { sample, values: OnceLock::new() };
        Self(samples.map(|sample| sample.filter(is_of_use).map(drawn)).collect())
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
    ) -> Option<Share> {
        let drawn = self.0.get(column)?.as_ref()?;
        let data_type = schema.field(column).data_type();
        let values = drawn.values(data_type)?;
        let within = within(&values, known)?;
        let rows = within.iter().filter(|within| **within).count();
        let mut kept = kept(&values, column, conditions, schema)?;
        let null_is_kept = kept.pop()?;
        let hits = kept.into_iter().zip(within).filter(|(kept, within)| *kept && *within).count();
        let of_nulls = if null_is_kept { nulls } else { 0.0 };
        let share = |hits: usize| hits as f64 / rows as f64 * (1.0 - nulls) + of_nulls;
        match hits {
            HITS_MIN.. => Some(Share::About(share(hits))),
            _ if rows >= HITS_MIN => Some(Share::AtMost(share(HITS_MIN))),
            _ => None,
        }
    }
}

impl Drawn {
    fn values(&self, data_type: &DataType) -> Option<ArrayRef> {
        let array = || zone_array(data_type, self.sample.values().map(Some)).ok();
        let values = self.values.get_or_init(array).clone();
        values.filter(|values| values.data_type() == data_type)
    }
}

/// Which values of a column all conditions keep; the last is what they say of NULL.
fn kept(
    values: &ArrayRef,
    column: usize,
    conditions: &[&Arc<dyn PhysicalExpr>],
    schema: &Schema,
) -> Option<Vec<bool>> {
    let null = new_null_array(values.data_type(), 1);
    let values = concat(&[values, &null]).ok()?;
    let of_field = |(place, field): (usize, &FieldRef)| match place == column {
        true => Arc::clone(&values),
        false => new_null_array(field.data_type(), values.len()),
    };
    let columns = schema.fields().iter().enumerate().map(of_field).collect();
    let nullable = schema.fields().iter().map(|of| of.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let rows = RecordBatch::try_new(schema, columns).ok()?;
    let mut kept = vec![true; values.len()];
    for condition in conditions {
        let found = condition.evaluate(&rows).ok()?.into_array(rows.num_rows()).ok()?;
        for (kept, found) in kept.iter_mut().zip(found.as_boolean_opt()?) {
            *kept &= found == Some(true);
        }
    }
    Some(kept)
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
    use arrow::datatypes::Field;
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
    fn check(conditions: &[Arc<dyn PhysicalExpr>], nulls: f64, expected: Share) {
        let samples = samples();
        let column = samples.column_of(&conditions[0]).unwrap();
        let conditions: Vec<_> = conditions.iter().collect();
        let known = ColumnStatistics::new_unknown();
        let share = samples.share(column, &conditions, &schema(), &known, nulls);
        let (Some(Share::About(share)), Share::About(expected)) = (share, expected) else {
            return assert_eq!(share, Some(expected));
        };
        assert!((share - expected).abs() < 1e-9, "{share} for {expected}");
    }

    #[test]
    fn a_range_is_as_large_as_the_rows_in_it() {
        check(&[days(Operator::GtEq, 100)], 0.0, Share::About(0.9));
        check(&[days(Operator::Lt, 50)], 0.0, Share::About(0.05));
        check(&[days(Operator::GtEq, 10), days(Operator::Lt, 20)], 0.0, Share::About(0.01));
        check(&[days(Operator::Eq, 100)], 0.0, Share::About(0.9));
    }

    #[test]
    fn patterns_are_tried() {
        let name = col("name", &schema()).unwrap();
        let of = |pattern: &str| {
            let pattern = lit(ScalarValue::Utf8View(Some(pattern.to_owned())));
            like(false, false, Arc::clone(&name), pattern, &schema())
        };
        check(&[of("%mm%").unwrap()], 0.0, Share::About(0.99));
        check(&[of("r_re").unwrap()], 0.0, Share::About(0.01));
    }

    #[test]
    fn nulls_are_not_drawn_and_count_all_the_same() {
        check(&[days(Operator::GtEq, 100)], 0.5, Share::About(0.45));
        let is_null = is_null(col("day", &schema()).unwrap()).unwrap();
        let or_null = binary(days(Operator::Lt, 50), Operator::Or, is_null, &schema()).unwrap();
        check(&[or_null], 0.5, Share::About(0.525));
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
        assert_eq!(share, Some(Share::About(0.2)), "10 of 50 days");
    }

    #[test]
    fn too_few_rows_say_that_there_are_no_more() {
        check(&[days(Operator::Eq, 7)], 0.0, Share::AtMost(0.004));
        check(&[days(Operator::Gt, 1_000)], 0.0, Share::AtMost(0.004));
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
