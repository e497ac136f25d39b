//! How many rows a plan probably has, and how many different values its columns.
//!
//! Estimates of logical plans, before DataFusion makes physical ones: the statistics of tables, less what
//! filters keep (`filter_estimates`). A plan of which nothing is known has none.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, JoinType, Statistics};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, Projection};

use super::sizes::{inner_joins, outer_join, union};
use crate::column_samples::ColumnSamples;
use crate::filter_estimates::share_of;
use crate::shared_subplans::SharedTable;
use crate::table::SegmentTable;

/// Rows that a semi or anti join keeps of which nothing is known.
const HALF: f64 = 0.5;
/// So many joins and unions below each other are estimated: errors grow with each, and every level of a plan asks about
/// all that is below it.
pub(super) const JOINS_DEEP: usize = 4;
/// What an anti join keeps at least: distinct counts do not say that keys are the same.
const LEAST_ANTI: f64 = 0.1;

/// What is known of the rows of a plan.
pub(super) fn estimate(plan: &LogicalPlan, state: &SessionState) -> Option<Statistics> {
    estimate_within(plan, state, JOINS_DEEP)
}

/// What is known of the rows of a plan, with at most so many joins and unions below each other; semi and anti joins
/// count for what they reduce by, not for what they keep.
pub(super) fn estimate_within(
    plan: &LogicalPlan,
    state: &SessionState,
    joins: usize,
) -> Option<Statistics> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            if let Some(shared) = provider.downcast_ref::<SharedTable>() {
                // Filters stand above it as well.
                return Some(shared.statistics()?.project(scan.projection.as_ref()));
            }
            let table = provider.downcast_ref::<SegmentTable>()?;
            let rows = table.planner_statistics(scan.projection.as_ref(), state.config());
            match conjunction(scan.filters.iter().cloned()) {
                Some(filter) => filtered(rows, plan, &filter, state),
                None => Some(rows),
            }
        }
        LogicalPlan::Filter(filter) => {
            let rows = estimate_within(&filter.input, state, joins)?;
            filtered(rows, &filter.input, &filter.predicate, state)
        }
        LogicalPlan::Projection(projection) => projected(projection, state, joins),
        LogicalPlan::SubqueryAlias(alias) => estimate_within(&alias.input, state, joins),
        LogicalPlan::Sort(sort) => estimate_within(&sort.input, state, joins),
        LogicalPlan::Aggregate(aggregate) => aggregated(aggregate, state, joins),
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => reduced(join, state, joins),
            JoinType::RightSemi | JoinType::RightAnti => {
                estimate_within(&join.right, state, joins).map(|rows| kept(&rows, HALF))
            }
            JoinType::Inner => inner_joins(plan, state, joins.checked_sub(1)?),
            _ => outer_join(join, state, joins.checked_sub(1)?),
        },
        LogicalPlan::Union(of) => union(of, state, joins.checked_sub(1)?),
        _ => None,
    }
}

/// The rows that a plan of filters and columns of one table reads; `None` of any other.
pub(super) fn rows_read(plan: &LogicalPlan, state: &SessionState) -> Option<f64> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let table = provider.downcast_ref::<SegmentTable>()?;
            rows_of(&table.planner_statistics(Some(&vec![]), state.config()))
        }
        LogicalPlan::Filter(filter) => rows_read(&filter.input, state),
        LogicalPlan::Projection(projection) => rows_read(&projection.input, state),
        LogicalPlan::SubqueryAlias(alias) => rows_read(&alias.input, state),
        _ => None,
    }
}

/// How many different values an expression has.
pub(super) fn distinct_values(expr: &Expr, of: &LogicalPlan, rows: &Statistics) -> f64 {
    let all = rows_of(rows).unwrap_or(f64::INFINITY);
    match expr {
        Expr::Column(column) => {
            let known = of.schema().maybe_index_of_column(column);
            let known = known.and_then(|index| rows.column_statistics.get(index));
            known.and_then(distinct_of).unwrap_or(all).clamp(1.0, all.max(1.0))
        }
        Expr::Cast(cast) => distinct_values(&cast.expr, of, rows),
        _ => all,
    }
}

/// Counted, or as many as there are integers between the least and the greatest.
pub(super) fn distinct_of(column: &ColumnStatistics) -> Option<f64> {
    if let Some(distinct) = column.distinct_count.get_value() {
        return Some(*distinct as f64);
    }
    let (least, greatest) = (column.min_value.get_value()?, column.max_value.get_value()?);
    if !least.data_type().is_integer() {
        return None;
    }
    greatest.distance(least).map(|distance| distance as f64 + 1.0)
}

pub(super) fn rows_of(statistics: &Statistics) -> Option<f64> {
    statistics.num_rows.get_value().map(|rows| *rows as f64)
}

/// Bytes of a row, of values that are as wide as is known.
pub(super) fn row_bytes(plan: &LogicalPlan, rows: &Statistics) -> f64 {
    const TEXT_BYTES: usize = 16;
    let known = rows.total_byte_size.get_value().zip(rows.num_rows.get_value());
    match known {
        Some((bytes, rows)) if *rows > 0 => *bytes as f64 / *rows as f64,
        _ => {
            let types = plan.schema().fields().iter().map(|field| field.data_type());
            types.map(|of| of.primitive_width().unwrap_or(TEXT_BYTES)).sum::<usize>() as f64
        }
    }
}

fn filtered(
    rows: Statistics,
    input: &LogicalPlan,
    filter: &Expr,
    state: &SessionState,
) -> Option<Statistics> {
    let schema = input.schema();
    let condition = state.create_physical_expr(filter.clone(), schema).ok()?;
    let samples = samples_of(input, state);
    Some(kept(&rows, share_of(&condition, schema.as_arrow(), &rows, &samples)))
}

/// The share of a column's values that the filters of a plan leave, of those that need no other column.
pub(super) fn share_of_column(plan: &LogicalPlan, column: &Column, state: &SessionState) -> f64 {
    let of = |filters: &[&Expr], rows: Option<Statistics>, input: &LogicalPlan| {
        let own = filters.iter().filter(|filter| {
            let columns = filter.column_refs();
            columns.len() == 1 && columns.contains(column)
        });
        let share = |filter: &Expr| {
            let (rows, schema) = (rows.as_ref()?, input.schema());
            let condition = state.create_physical_expr(filter.clone(), schema).ok()?;
            let samples = samples_of(input, state);
            Some(share_of(&condition, schema.as_arrow(), rows, &samples))
        };
        own.map(|filter| share(filter).unwrap_or(1.0)).product::<f64>()
    };
    match plan {
        LogicalPlan::TableScan(scan) if !scan.filters.is_empty() => {
            let filters = scan.filters.iter().flat_map(split_conjunction).collect::<Vec<_>>();
            let mut unfiltered = scan.clone();
            unfiltered.filters.clear();
            of(&filters, estimate(&LogicalPlan::TableScan(unfiltered), state), plan)
        }
        LogicalPlan::Filter(filter) => {
            let filters = split_conjunction(&filter.predicate);
            of(&filters, estimate(&filter.input, state), &filter.input)
                * share_of_column(&filter.input, column, state)
        }
        LogicalPlan::Projection(projection) => {
            let place = projection.schema.maybe_index_of_column(column);
            let below = place.and_then(|place| {
                projection.expr.get(place)?.clone().unalias().try_as_col().cloned()
            });
            below.map_or(1.0, |column| share_of_column(&projection.input, &column, state))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let place = alias.schema.maybe_index_of_column(column);
            let below =
                place.and_then(|place| alias.input.schema().columns().into_iter().nth(place));
            below.map_or(1.0, |column| share_of_column(&alias.input, &column, state))
        }
        _ => 1.0,
    }
}

/// Rows that ANALYZE drew of a table's columns, where a plan has these and no others.
fn samples_of(plan: &LogicalPlan, state: &SessionState) -> ColumnSamples {
    match plan {
        LogicalPlan::TableScan(scan) => source_as_provider(&scan.source)
            .ok()
            .and_then(|provider| {
                let table = provider.downcast_ref::<SegmentTable>()?;
                Some(table.samples(scan.projection.as_ref(), state.config()))
            })
            .unwrap_or_default(),
        LogicalPlan::SubqueryAlias(alias) => samples_of(&alias.input, state),
        LogicalPlan::Filter(filter) => samples_of(&filter.input, state),
        _ => ColumnSamples::default(),
    }
}

/// A share of rows.
fn kept(rows: &Statistics, share: f64) -> Statistics {
    let scaled = |of: &Precision<usize>| match of.get_value() {
        Some(of) => Precision::Inexact((*of as f64 * share).ceil() as usize),
        None => Precision::Absent,
    };
    let num_rows = scaled(&rows.num_rows);
    let mut kept = rows.clone().to_inexact();
    for column in &mut kept.column_statistics {
        if let (Some(distinct), Some(most)) =
            (column.distinct_count.get_value(), num_rows.get_value())
        {
            column.distinct_count = Precision::Inexact(*distinct.min(most));
        }
    }
    Statistics { num_rows, total_byte_size: scaled(&rows.total_byte_size), ..kept }
}

fn projected(projection: &Projection, state: &SessionState, joins: usize) -> Option<Statistics> {
    let rows = estimate_within(&projection.input, state, joins)?;
    let schema = projection.input.schema();
    let columns = projection.expr.iter().map(|expr| {
        let Expr::Column(column) = expr.clone().unalias() else {
            return ColumnStatistics::new_unknown();
        };
        let known = schema.maybe_index_of_column(&column);
        let known = known.and_then(|index| rows.column_statistics.get(index)).cloned();
        known.unwrap_or_else(ColumnStatistics::new_unknown)
    });
    let mut projected = Statistics {
        num_rows: rows.num_rows,
        total_byte_size: Precision::Absent,
        column_statistics: columns.collect(),
    };
    projected.calculate_total_byte_size(&Arc::new(projection.schema.as_arrow().clone()));
    Some(projected)
}

/// The rows of a semi or anti join: of as many different keys as the other side has.
fn reduced(join: &Join, state: &SessionState, joins: usize) -> Option<Statistics> {
    let rows = estimate_within(&join.left, state, joins)?;
    let other = joins.checked_sub(1).and_then(|joins| estimate_within(&join.right, state, joins));
    let share_of_key = |(left, right): &(Expr, Expr)| {
        let other = other.as_ref()?;
        let found = distinct_values(right, &join.right, other);
        Some((found / distinct_values(left, &join.left, &rows)).min(1.0))
    };
    let found = match join.on.as_slice() {
        [key] => share_of_key(key).unwrap_or(HALF),
        _ => HALF,
    };
    let share = match join.join_type {
        JoinType::LeftAnti => (1.0 - found).max(LEAST_ANTI),
        _ => found,
    };
    Some(kept(&rows, share))
}

/// As many rows as there are different keys.
fn aggregated(aggregate: &Aggregate, state: &SessionState, joins: usize) -> Option<Statistics> {
    let rows = estimate_within(&aggregate.input, state, joins)?;
    let all = rows_of(&rows)?;
    let distinct = |key: &Expr| distinct_values(key, &aggregate.input, &rows);
    let keys: f64 = aggregate.group_expr.iter().map(distinct).product();
    let groups = keys.min(all).max(1.0);
    let mut columns: Vec<_> = aggregate
        .group_expr
        .iter()
        .map(|key| ColumnStatistics {
            distinct_count: Precision::Inexact(distinct(key).min(groups) as usize),
            ..ColumnStatistics::new_unknown()
        })
        .collect();
    columns.resize_with(aggregate.schema.fields().len(), ColumnStatistics::new_unknown);
    Some(Statistics {
        num_rows: Precision::Inexact(groups as usize),
        total_byte_size: Precision::Absent,
        column_statistics: columns,
    })
}
