//! Where the rows of a logical plan lie, as far as that is known before there are stages.

use basalt_storage::ids::ColumnId;
use datafusion::common::JoinType;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::auto_distribution::auto_choice;
use crate::snapshot::Distribution;
use crate::table::SegmentTable;

/// Whether a key is what rows were given to slices by.
pub(super) fn is_distribution_key(key: &Expr, of: &LogicalPlan) -> bool {
    let Expr::Column(column) = key else { return false };
    let place = of.schema().maybe_index_of_column(column);
    place.is_some() && place == distribution_column(of)
}

/// The column whose slice hash says which worker a row is on, by its place in the plan's schema.
fn distribution_column(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let table = provider.downcast_ref::<SegmentTable>()?;
            let key = table.snapshot().key_of_rows()?;
            let is_key = |column: &ColumnId| *column == key;
            let columns = &table.snapshot().schema.columns;
            let place = columns.iter().position(|column| is_key(&column.id))?;
            match &scan.projection {
                Some(projection) => projection.iter().position(|read| *read == place),
                None => Some(place),
            }
        }
        LogicalPlan::Filter(filter) => distribution_column(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => distribution_column(&alias.input),
        LogicalPlan::Projection(projection) => {
            let key = distribution_column(&projection.input)?;
            let key = projection.input.schema().columns().into_iter().nth(key)?;
            projection.expr.iter().position(|expr| is_column(expr, &key))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let key = distribution_column(&aggregate.input)?;
            let key = aggregate.input.schema().columns().into_iter().nth(key)?;
            aggregate.group_expr.iter().position(|expr| is_column(expr, &key))
        }
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => distribution_column(&join.left),
            JoinType::RightSemi | JoinType::RightAnti => distribution_column(&join.right),
            _ => None,
        },
        _ => None,
    }
}

fn is_column(expr: &Expr, wanted: &datafusion::common::Column) -> bool {
    matches!(expr.clone().unalias(), Expr::Column(column) if column == *wanted)
}

/// Whether every worker has all rows, of a cluster with so many members.
pub(super) fn is_everywhere(plan: &LogicalPlan, members: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => source_as_provider(&scan.source).is_ok_and(|provider| {
            provider.downcast_ref::<SegmentTable>().is_some_and(|table| {
                let table = table.snapshot();
                let chosen = || auto_choice(table, members).is_some_and(|choice| choice.everywhere);
                table.distribution == Distribution::All || chosen()
            })
        }),
        LogicalPlan::Filter(filter) => is_everywhere(&filter.input, members),
        LogicalPlan::SubqueryAlias(alias) => is_everywhere(&alias.input, members),
        LogicalPlan::Projection(projection) => is_everywhere(&projection.input, members),
        _ => false,
    }
}
