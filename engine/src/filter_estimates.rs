//! How much a filter keeps, by how many different values its columns have.
//!
//! DataFusion estimates filters by the ranges of numbers, and of any other takes a fifth to be kept: of `p_brand =
//! 'Brand#23' AND p_container = 'MED BOX'` 40,000 parts of 200,000, where there are 200. What is joined to them is
//! then the smaller side. With the distinct counts of ANALYZE the estimates are System R's (Selinger et al., SIGMOD
//! 1979):
//!
//! ```text
//! x = value              1 / distinct(x)       a AND b     a * b
//! x IN (n values)        n / distinct(x)       a OR b      a + b - a * b
//! x IS NULL              nulls(x) / rows       NOT a       1 - a
//! x LIKE 'a pattern'     a twentieth
//! a range of numbers     as DataFusion's       all else    a fifth
//! ```
//!
//! A condition of one column of which ANALYZE drew rows is tried on those (`column_samples`).
//!
//! A filter of which DataFusion knows more, and one of which nothing is known here, is left as it is: so nothing
//! changes where there are no statistics (`SET statistics = off`). DataFusion takes whole per cents only.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::intervals::utils::check_support;
use datafusion::physical_expr::{AnalysisContext, PhysicalExpr, analyze, conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use crate::column_samples::{ColumnSamples, Share};
use crate::unestimated::filtered_by;

/// The rule before which estimates are made.
pub(crate) const JOIN_SELECTION: &str = "join_selection";
/// What of rows a condition keeps of which nothing is known: DataFusion's.
const UNKNOWN_SHARE: f64 = 0.2;
/// What of rows a pattern keeps that has some letters, as of one word among twenty (System R has a tenth for
/// any equality, PostgreSQL a two hundredth for any pattern).
const PATTERN_SHARE: f64 = 0.05;
/// Letters of a pattern that keeps so few.
const PATTERN_LETTERS: usize = 2;

/// Gives filters their estimates.
#[derive(Debug)]
pub(crate) struct FilterEstimates;

impl PhysicalOptimizerRule for FilterEstimates {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match node.downcast_ref::<FilterExec>() {
            Some(filter) => Ok(match estimated(filter) {
                Some(estimated) => Transformed::yes(Arc::new(estimated)),
                None => Transformed::no(node),
            }),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "filter_estimates"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A filter with its estimate, if there is one that DataFusion would not make itself.
///
/// Statistics are hints: where they cannot be had, the statement does without.
fn estimated(filter: &FilterExec) -> Option<FilterExec> {
    let (predicate, input) = (filter.predicate(), filter.input());
    if check_support(predicate, &input.schema()) {
        return None;
    }
    let statistics =
        StatisticsContext::new().compute(input.as_ref(), &StatisticsArgs::new()).ok()?;
    let samples = ColumnSamples::default();
    let rows = Rows { schema: &input.schema(), statistics: &statistics, samples: &samples };
    let share = rows.known_share(predicate)?;
    let per_cent = (share * 100.0).round().clamp(1.0, 100.0) as u8;
    FilterExecBuilder::from(filter).with_default_selectivity(per_cent).build().ok()
}

/// The share of rows with these statistics, of which some were drawn, that a condition keeps.
pub(crate) fn share_of(
    condition: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
    statistics: &Statistics,
    samples: &ColumnSamples,
) -> f64 {
    let rows = Rows { schema, statistics, samples };
    rows.known_share(condition).unwrap_or_else(|| rows.unknown_share(condition))
}

/// The rows that a filter reads.
#[derive(Clone, Copy)]
struct Rows<'a> {
    schema: &'a Schema,
    statistics: &'a Statistics,
    samples: &'a ColumnSamples,
}

impl Rows<'_> {
    /// The share of rows that a condition keeps, if distinct counts say something of it.
    ///
    /// Each part of it is looked at once, or twice where rows of its column were drawn: machines write conditions of
    /// hundreds of parts.
    fn known_share(&self, condition: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        let condition = filtered_by(condition);
        if let Some(column) = self.samples.column_of(condition)
            && let Some(share) = self.share_of_sample(column, &[condition])
        {
            return Some(share);
        }
        if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
            return match binary.op() {
                Operator::And => self.share_of_all(&parts(condition, Operator::And)),
                Operator::Or => self.share_of_any(&parts(condition, Operator::Or)),
                Operator::Eq | Operator::IsNotDistinctFrom => {
                    self.share_of_equal(binary.left(), binary.right())
                }
                Operator::NotEq | Operator::IsDistinctFrom => {
                    self.share_of_equal(binary.left(), binary.right()).map(|share| 1.0 - share)
                }
                _ => None,
            };
        }
        if let Some(list) = condition.downcast_ref::<InListExpr>() {
            let of_one = self.share_of_one_value(list.expr())?;
            let found = (of_one * list.list().len() as f64).min(1.0);
            return Some(if list.negated() { 1.0 - found } else { found });
        }
        if let Some(like) = condition.downcast_ref::<LikeExpr>() {
            let found = self.share_of_pattern(like)?;
            return Some(if like.negated() { 1.0 - found } else { found });
        }
        if let Some(not) = condition.downcast_ref::<NotExpr>() {
            return self.known_share(not.arg()).map(|share| 1.0 - share);
        }
        if let Some(is_null) = condition.downcast_ref::<IsNullExpr>() {
            return self.share_of_nulls(is_null.arg());
        }
        let is_not_null = condition.downcast_ref::<IsNotNullExpr>()?;
        self.share_of_nulls(is_not_null.arg()).map(|share| 1.0 - share)
    }

    /// Of conditions that must all hold. Those of which nothing is known are taken together.
    fn share_of_all(&self, conditions: &[&Arc<dyn PhysicalExpr>]) -> Option<f64> {
        let mut unknown = Vec::new();
        let mut share = None;
        // Ends of a range are of one column: they are tried together.
        let mut by_column: BTreeMap<Option<usize>, Vec<&Arc<dyn PhysicalExpr>>> = BTreeMap::new();
        for condition in conditions {
            let condition = filtered_by(condition);
            by_column.entry(self.samples.column_of(condition)).or_default().push(condition);
        }
        let mut rest = by_column.remove(&None).unwrap_or_default();
        for (column, conditions) in by_column {
            let of_column = column.and_then(|column| self.share_of_sample(column, &conditions));
            match of_column {
                Some(of_column) => share = Some(share.unwrap_or(1.0) * of_column),
                None => rest.extend(conditions),
            }
        }
        for condition in rest {
            match self.known_share(condition) {
                Some(of_one) => share = Some(share.unwrap_or(1.0) * of_one),
                None => unknown.push(Arc::clone(condition)),
            }
        }
        Some(match unknown.is_empty() {
            true => share?,
            false => share? * self.unknown_share(&conjunction(unknown)),
        })
    }

    /// Of conditions of one column, by the rows of it that were drawn.
    fn share_of_sample(&self, column: usize, conditions: &[&Arc<dyn PhysicalExpr>]) -> Option<f64> {
        let known = self.statistics.column_statistics.get(column)?;
        let nulls = known.null_count.get_value().zip(self.statistics.num_rows.get_value());
        let nulls = nulls.map_or(0.0, |(nulls, rows)| *nulls as f64 / (*rows).max(1) as f64);
        match self.samples.share(column, conditions, self.schema, known, nulls.min(1.0))? {
            Share::About(share) => Some(share),
            Share::AtMost(most) => {
                let rows = Rows { samples: &ColumnSamples::default(), ..*self };
                let together = conjunction(conditions.iter().map(|one| Arc::clone(one)));
                let without = rows.known_share(&together);
                Some(without.unwrap_or_else(|| rows.unknown_share(&together)).min(most))
            }
        }
    }

    /// Of conditions of which one must hold.
    fn share_of_any(&self, conditions: &[&Arc<dyn PhysicalExpr>]) -> Option<f64> {
        let shares: Vec<_> = conditions.iter().map(|one| (one, self.known_share(one))).collect();
        if shares.iter().all(|(_, share)| share.is_none()) {
            return None;
        }
        let left_out = shares
            .into_iter()
            .map(|(condition, share)| 1.0 - share.unwrap_or_else(|| self.unknown_share(condition)));
        Some(1.0 - left_out.product::<f64>())
    }

    /// Of a condition of which distinct counts say nothing.
    fn unknown_share(&self, condition: &Arc<dyn PhysicalExpr>) -> f64 {
        self.share_of_range(condition).unwrap_or(UNKNOWN_SHARE)
    }

    fn share_of_equal(
        &self,
        left: &Arc<dyn PhysicalExpr>,
        right: &Arc<dyn PhysicalExpr>,
    ) -> Option<f64> {
        match (is_value(left), is_value(right)) {
            (false, true) => self.share_of_one_value(left),
            (true, false) => self.share_of_one_value(right),
            _ => None,
        }
    }

    /// Of a column, all of whose values are as frequent.
    fn share_of_one_value(&self, column: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        let column = self.column(column)?;
        let distinct = *column.distinct_count.get_value()?;
        (distinct > 0).then(|| 1.0 / distinct as f64)
    }

    /// Of a pattern that says something, and never fewer than have one value.
    fn share_of_pattern(&self, like: &LikeExpr) -> Option<f64> {
        let of_one = self.share_of_one_value(like.expr())?;
        let pattern = like.pattern().downcast_ref::<Literal>()?.value().try_as_str()??;
        let letters = pattern.chars().filter(|letter| !matches!(letter, '%' | '_')).count();
        (letters >= PATTERN_LETTERS).then(|| PATTERN_SHARE.max(of_one))
    }

    fn share_of_nulls(&self, column: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        let column = self.column(column)?;
        let nulls = *column.null_count.get_value()?;
        let rows = *self.statistics.num_rows.get_value()?;
        (rows > 0).then(|| (nulls as f64 / rows as f64).min(1.0))
    }

    fn column(&self, of: &Arc<dyn PhysicalExpr>) -> Option<&ColumnStatistics> {
        let column = of.downcast_ref::<Column>()?;
        self.statistics.column_statistics.get(column.index())
    }

    /// What DataFusion makes of a range of numbers.
    fn share_of_range(&self, condition: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        // DataFusion asks for the same by reference to what it may keep.
        let schema = Arc::new(self.schema.clone());
        if !check_support(condition, &schema) {
            return None;
        }
        let columns = &self.statistics.column_statistics;
        let context = AnalysisContext::try_from_statistics(&schema, columns).ok()?;
        let share = analyze(condition, context, &schema).ok()?.selectivity?;
        share.is_finite().then(|| share.clamp(0.0, 1.0))
    }
}

/// The parts that an operator combines.
fn parts(whole: &Arc<dyn PhysicalExpr>, operator: Operator) -> Vec<&Arc<dyn PhysicalExpr>> {
    let (mut parts, mut rest) = (Vec::new(), vec![whole]);
    while let Some(next) = rest.pop() {
        match next.downcast_ref::<BinaryExpr>().filter(|binary| *binary.op() == operator) {
            Some(binary) => rest.extend([binary.right(), binary.left()]),
            None => parts.push(next),
        }
    }
    parts
}

fn is_value(expression: &Arc<dyn PhysicalExpr>) -> bool {
    expression.downcast_ref::<Literal>().is_some()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, UInt64Array};
    use arrow::datatypes::{DataType, Field};
    use basalt_storage::sketch::RowSample;
    use datafusion::common::ScalarValue;
    use datafusion::common::stats::Precision;
    use datafusion::physical_expr::expressions::{binary, col, in_list, is_null, like, lit, not};
    use datafusion::physical_plan::test::exec::StatisticsExec;

    use super::*;

    const ROWS: usize = 1_000;

    fn schema() -> Schema {
        let text = |name| Field::new(name, DataType::Utf8View, true);
        let size = Field::new("size", DataType::Int32, true);
        Schema::new(vec![text("brand"), text("unknown"), size, text("few")])
    }

    /// A table of 1,000 rows: 25 brands, sizes from 1 to 50, a tenth of brands NULL, and four of a few.
    fn table() -> Arc<dyn ExecutionPlan> {
        let unknown = ColumnStatistics::new_unknown();
        let brand = ColumnStatistics {
            distinct_count: Precision::Inexact(25),
            null_count: Precision::Exact(ROWS / 10),
            ..unknown.clone()
        };
        let few = ColumnStatistics {
            distinct_count: Precision::Inexact(4),
            null_count: Precision::Exact(0),
            ..unknown.clone()
        };
        let size = ColumnStatistics {
            distinct_count: Precision::Inexact(50),
            null_count: Precision::Exact(0),
            min_value: Precision::Exact(ScalarValue::Int32(Some(1))),
            max_value: Precision::Exact(ScalarValue::Int32(Some(50))),
            ..unknown.clone()
        };
        let statistics = Statistics {
            num_rows: Precision::Exact(ROWS),
            total_byte_size: Precision::Absent,
            column_statistics: vec![brand, unknown, size, few],
        };
        Arc::new(StatisticsExec::new(statistics, schema()))
    }

    fn text(value: &str) -> Arc<dyn PhysicalExpr> {
        lit(ScalarValue::Utf8View(Some(value.to_owned())))
    }

    fn compare(
        column: &str,
        operator: Operator,
        value: Arc<dyn PhysicalExpr>,
    ) -> Arc<dyn PhysicalExpr> {
        binary(col(column, &schema()).unwrap(), operator, value, &schema()).unwrap()
    }

    fn both(
        left: &Arc<dyn PhysicalExpr>,
        operator: Operator,
        right: &Arc<dyn PhysicalExpr>,
    ) -> Arc<dyn PhysicalExpr> {
        binary(Arc::clone(left), operator, Arc::clone(right), &schema()).unwrap()
    }

    /// How many rows the rule lets the planner expect behind a filter.
    fn expected_rows(condition: Arc<dyn PhysicalExpr>) -> usize {
        let filter = Arc::new(FilterExec::try_new(condition, table()).unwrap());
        let plan = FilterEstimates.optimize(filter, &ConfigOptions::default()).unwrap();
        let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
        *statistics.unwrap().num_rows.get_value().unwrap()
    }

    #[test]
    fn one_of_25_brands_is_four_per_cent() {
        let one = compare("brand", Operator::Eq, text("a"));
        assert_eq!(expected_rows(Arc::clone(&one)), 40);
        assert_eq!(
            expected_rows(
                binary(text("a"), Operator::Eq, col("brand", &schema()).unwrap(), &schema())
                    .unwrap()
            ),
            40
        );
        assert_eq!(expected_rows(compare("brand", Operator::NotEq, text("a"))), 960);
        assert_eq!(expected_rows(not(Arc::clone(&one)).unwrap()), 960);
        let brand = col("brand", &schema()).unwrap();
        let three = in_list(brand, vec![text("a"), text("b"), text("c")], &false, &schema());
        assert_eq!(expected_rows(three.unwrap()), 120);
        assert_eq!(expected_rows(is_null(col("brand", &schema()).unwrap()).unwrap()), 100);
    }

    #[test]
    fn conditions_are_independent() {
        let brand = compare("brand", Operator::Eq, text("a"));
        let size = compare("size", Operator::LtEq, lit(25_i32));
        assert_eq!(expected_rows(both(&brand, Operator::And, &size)), 20);
        assert_eq!(expected_rows(both(&brand, Operator::Or, &size)), 520);
        let unknown = compare("unknown", Operator::Eq, text("a"));
        assert_eq!(expected_rows(both(&brand, Operator::And, &unknown)), 10, "0.8 % is 1 %");
    }

    #[test]
    fn hundreds_of_parts_take_no_longer_than_so_many() {
        let of_two = |(left, right): (Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)| {
            both(&left, Operator::And, &right)
        };
        let mut condition = compare("brand", Operator::Eq, text("a"));
        for number in 0..200 {
            let other = of_two((
                compare("brand", Operator::Eq, text("b")),
                compare("size", Operator::Lt, lit(number)),
            ));
            let operator = if number % 2 == 0 { Operator::Or } else { Operator::And };
            condition = both(&condition, operator, &other);
        }
        assert!(expected_rows(condition) > 0);
    }

    #[test]
    fn a_pattern_is_a_twentieth_and_no_less_than_one_value() {
        let pattern = |column, pattern, is_negated| {
            let column = col(column, &schema()).unwrap();
            like(is_negated, false, column, text(pattern), &schema()).unwrap()
        };
        assert_eq!(expected_rows(pattern("brand", "%ab%", false)), 50);
        assert_eq!(expected_rows(pattern("brand", "%ab%", true)), 950);
        assert_eq!(expected_rows(pattern("brand", "%a%", false)), 200, "that is in most");
        assert_eq!(expected_rows(pattern("few", "ab%", false)), 250, "one of four values");
        assert_eq!(expected_rows(pattern("unknown", "%ab%", false)), 200);
    }

    #[test]
    fn what_nothing_is_known_of_is_a_fifth_as_ever() {
        assert_eq!(expected_rows(compare("unknown", Operator::Eq, text("a"))), 200);
        let brand = col("brand", &schema()).unwrap();
        let pattern = like(false, false, brand, text("%a%"), &schema()).unwrap();
        assert_eq!(expected_rows(pattern), 200);
        assert_eq!(expected_rows(compare("brand", Operator::Lt, text("a"))), 200);
    }

    /// What is estimated of sizes of which 1,000 rows were drawn: 951 of size 50, and one of each other.
    fn share_of_drawn(condition: &Arc<dyn PhysicalExpr>) -> f64 {
        let sizes: ArrayRef =
            Arc::new(Int32Array::from_iter_values((0..1000).map(|row: i32| (row + 1).min(50))));
        let mut sample = RowSample::default();
        sample.add(&sizes, &UInt64Array::from_iter_values(0..1000)).unwrap();
        let samples = ColumnSamples::new([None, None, Some(sample), None].into_iter());
        let statistics = StatisticsContext::new().compute(table().as_ref(), &StatisticsArgs::new());
        share_of(condition, &schema(), &statistics.unwrap(), &samples)
    }

    #[test]
    fn a_column_of_which_rows_were_drawn_is_estimated_by_them() {
        let is_near = |condition: &Arc<dyn PhysicalExpr>, expected: f64| {
            let share = share_of_drawn(condition);
            assert!((share - expected).abs() < 1e-6, "{share} for {expected}: {condition}");
        };
        is_near(&compare("size", Operator::LtEq, lit(25_i32)), 0.025);
        is_near(&compare("size", Operator::Eq, lit(50_i32)), 0.951);
        let brand = compare("brand", Operator::Eq, text("a"));
        let large = compare("size", Operator::Eq, lit(50_i32));
        is_near(&both(&brand, Operator::And, &large), 0.951 / 25.0);
        // Two rows of a thousand are too few to be counted: the ends of the range are not taken one by one.
        let from = compare("size", Operator::GtEq, lit(10_i32));
        let narrow = both(&from, Operator::And, &compare("size", Operator::Lt, lit(12_i32)));
        is_near(&narrow, 0.004);
        is_near(&compare("size", Operator::Eq, lit(10_i32)), 0.004);
    }

    #[test]
    fn ranges_of_numbers_are_left_to_datafusion() {
        assert_eq!(expected_rows(compare("size", Operator::LtEq, lit(25_i32))), 500);
    }
}
