//! How many rows plans have that are made of several others: joins and unions.

use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, JoinType, Statistics};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Union};

use super::CONDITION_SHARE;
use super::cluster::Cluster;
use super::estimates::{distinct_of, distinct_values, estimate_within, row_bytes, rows_of};
use super::graph::{Condition, EqualKeys, Graph, Key, Relation, times_of_several_keys};

/// Sizes of inner joins that lie next to each other. Where rows lie is not looked at: `Ordering::graph` adds it.
pub(super) struct Sizes {
    pub(super) graph: Graph,
    /// What is known of each relation.
    pub(super) known: Vec<Statistics>,
}

impl Sizes {
    /// `None` if the size of a relation is not known, which may have `joins` levels of joins in it.
    pub(super) fn of(cluster: &Cluster, state: &SessionState, joins: usize) -> Option<Self> {
        let known = cluster.relations.iter().map(|plan| estimate_within(plan, state, joins));
        let known: Vec<_> = known.collect::<Option<_>>()?;
        let relations = cluster.relations.iter().zip(&known).map(|(plan, rows)| {
            let row_bytes = row_bytes(plan, rows);
            Some(Relation { rows: rows_of(rows)?, row_bytes, everywhere: false })
        });
        let relations = relations.collect::<Option<_>>()?;
        let key = |(relation, key): &(usize, Expr)| Key {
            relation: *relation,
            distinct: distinct_values(key, &cluster.relations[*relation], &known[*relation]),
            by_slice: false,
        };
        let equal = cluster.equal.iter();
        let equal = equal.map(|class| EqualKeys(class.iter().map(key).collect())).collect();
        let conditions = cluster.conditions.iter();
        let conditions = conditions
            .map(|(relations, _)| Condition { relations: *relations, share: CONDITION_SHARE })
            .collect();
        Some(Self { graph: Graph::new(relations, equal, conditions), known })
    }
}

/// The rows of inner joins.
pub(super) fn inner_joins(
    plan: &LogicalPlan,
    state: &SessionState,
    joins: usize,
) -> Option<Statistics> {
    let cluster = Cluster::of_at_least(2, plan).ok()??;
    let Sizes { graph, known } = Sizes::of(&cluster, state, joins)?;
    let rows = graph.rows(graph.all());
    let column = |column| {
        let found = cluster.relations.iter().zip(&known).find_map(|(relation, known)| {
            let place = relation.schema().maybe_index_of_column(column)?;
            Some(joined(known.column_statistics.get(place)?, rows_of(known)?, rows, 0.0))
        });
        found.unwrap_or_else(ColumnStatistics::new_unknown)
    };
    Some(estimated(rows, plan.schema().columns().iter().map(column).collect()))
}

/// The rows of an outer join.
pub(super) fn outer_join(join: &Join, state: &SessionState, joins: usize) -> Option<Statistics> {
    if !matches!(join.join_type, JoinType::Left | JoinType::Right | JoinType::Full) {
        return None;
    }
    let left = estimate_within(&join.left, state, joins)?;
    let right = estimate_within(&join.right, state, joins)?;
    let distinct = |(l, r): &(Expr, Expr)| {
        let distinct = |key, plan, rows| distinct_values(key, plan, rows).max(1.0);
        (distinct(l, &join.left, &left), distinct(r, &join.right, &right))
    };
    let keys: Vec<_> = join.on.iter().map(distinct).collect();
    let (left_rows, right_rows) = (rows_of(&left)?, rows_of(&right)?);
    let share: f64 = keys.iter().map(|(left, right)| 1.0 / left.max(*right)).product();
    let share = share * times_of_several_keys(&keys, left_rows, right_rows).unwrap_or(1.0);
    let conditions = if join.filter.is_some() { CONDITION_SHARE } else { 1.0 };
    outer(join.join_type, &left, &right, left_rows * right_rows * share * conditions)
}

/// The rows of an outer join of which `found` are those of the inner one: no fewer than the sides have that it keeps,
/// and the others with NULLs in the place of the other side's columns.
fn outer(
    join_type: JoinType,
    left: &Statistics,
    right: &Statistics,
    found: f64,
) -> Option<Statistics> {
    let (left_rows, right_rows) = (rows_of(left)?, rows_of(right)?);
    let keeps = |one: JoinType| join_type == one || join_type == JoinType::Full;
    let alone = |rows: f64, is_kept| if is_kept { (rows - found).max(0.0) } else { 0.0 };
    let left_alone = alone(left_rows, keeps(JoinType::Left));
    let right_alone = alone(right_rows, keeps(JoinType::Right));
    let rows = found + left_alone + right_alone;
    let columns_of_left = left.column_statistics.iter();
    let columns_of_left =
        columns_of_left.map(|column| joined(column, left_rows, rows, right_alone));
    let columns_of_right = right.column_statistics.iter();
    let columns_of_right =
        columns_of_right.map(|column| joined(column, right_rows, rows, left_alone));
    Some(estimated(rows, columns_of_left.chain(columns_of_right).collect()))
}

/// A column of a side of `side_rows` rows, in `rows` rows of a join, of which `alone` have no row of that side.
fn joined(column: &ColumnStatistics, side_rows: f64, rows: f64, alone: f64) -> ColumnStatistics {
    let mut column = column.clone().to_inexact();
    column.distinct_count = column.distinct_count.min(&Precision::Inexact(rows.ceil() as usize));
    column.null_count = match column.null_count.get_value() {
        Some(nulls) => {
            let share = (*nulls as f64 / side_rows.max(1.0)).min(1.0);
            Precision::Inexact(((rows - alone) * share + alone).round() as usize)
        }
        None => Precision::Absent,
    };
    column
}

/// About so many rows.
fn estimated(rows: f64, column_statistics: Vec<ColumnStatistics>) -> Statistics {
    let num_rows = Precision::Inexact(rows.ceil() as usize);
    Statistics { num_rows, total_byte_size: Precision::Absent, column_statistics }
}

/// The rows of all branches.
pub(super) fn union(union: &Union, state: &SessionState, joins: usize) -> Option<Statistics> {
    let branches = union.inputs.iter().map(|input| estimate_within(input, state, joins));
    let branches: Vec<_> = branches.collect::<Option<_>>()?;
    all_of(&branches, union.schema.fields().len())
}

/// Rows of several branches with so many columns. They are of the same things more often than not, so that a column has
/// as many different values as in the branch where it has most.
fn all_of(branches: &[Statistics], columns: usize) -> Option<Statistics> {
    let rows = branches.iter().map(rows_of).sum::<Option<f64>>()?;
    let column = |place: usize| {
        let distinct = |branch: &Statistics| {
            Some(distinct_of(branch.column_statistics.get(place)?)?.min(rows_of(branch)?))
        };
        let most =
            branches.iter().map(distinct).try_fold(0.0, |most, of| Some(f64::max(most, of?)));
        let distinct_count = match most {
            Some(most) => Precision::Inexact(most as usize),
            None => Precision::Absent,
        };
        ColumnStatistics { distinct_count, ..ColumnStatistics::new_unknown() }
    };
    Some(estimated(rows, (0..columns).map(column).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many rows of one column, with so many different values and NULLs.
    fn side(rows: usize, distinct: usize, nulls: usize) -> Statistics {
        let column = ColumnStatistics {
            distinct_count: Precision::Exact(distinct),
            null_count: Precision::Exact(nulls),
            ..ColumnStatistics::new_unknown()
        };
        estimated(rows as f64, vec![column])
    }

    fn nulls(rows: &Statistics) -> Vec<usize> {
        let nulls = |column: &ColumnStatistics| *column.null_count.get_value().unwrap();
        rows.column_statistics.iter().map(nulls).collect()
    }

    #[test]
    fn an_outer_join_keeps_the_rows_of_its_sides_with_nulls_beside_them() {
        let (left, right) = (side(1_000, 1_000, 0), side(100, 100, 50));
        let of = |join_type| {
            let rows = outer(join_type, &left, &right, 100.0).unwrap();
            (rows_of(&rows).unwrap(), nulls(&rows))
        };
        assert_eq!(of(JoinType::Left), (1_000.0, vec![0, 950]));
        assert_eq!(of(JoinType::Right), (100.0, vec![0, 50]));
        assert_eq!(of(JoinType::Full), (1_000.0, vec![0, 950]));
        let rows = outer(JoinType::Full, &left, &right, 0.0).unwrap();
        assert_eq!((rows_of(&rows).unwrap(), nulls(&rows)), (1_100.0, vec![100, 1_050]));
    }

    #[test]
    fn rows_that_are_joined_have_no_more_values_than_they_are_and_as_large_a_share_of_nulls() {
        let column = &side(1_000, 700, 500).column_statistics[0];
        let joined = joined(column, 1_000.0, 10.0, 0.0);
        assert_eq!(joined.distinct_count, Precision::Inexact(10));
        assert_eq!(joined.null_count, Precision::Inexact(5));
    }

    #[test]
    fn a_union_has_the_values_of_the_branch_with_most() {
        let spread = ColumnStatistics {
            min_value: Precision::Exact(0_i64.into()),
            max_value: Precision::Exact(999_999_i64.into()),
            ..ColumnStatistics::new_unknown()
        };
        let few = estimated(10.0, vec![spread]);
        let all = all_of(&[few.clone(), side(1_000, 5, 0)], 1).unwrap();
        assert_eq!(rows_of(&all), Some(1_010.0));
        assert_eq!(all.column_statistics[0].distinct_count, Precision::Inexact(10));
        let unknown = estimated(10.0, vec![ColumnStatistics::new_unknown()]);
        let all = all_of(&[few, unknown], 1).unwrap();
        assert_eq!(all.column_statistics[0].distinct_count, Precision::Absent);
    }
}
