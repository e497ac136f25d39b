//! What the places that read a part need of it.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, disjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::SharedTable;
use super::find::FoundPart;

/// Places whose filters are told to a part; of more, it computes all rows.
const FILTERS_MAX: usize = 16;

/// One place that reads a part.
#[derive(Debug)]
pub(super) struct Use {
    columns: Vec<usize>,
    filter: Option<Expr>,
}

/// The places of an optimised plan that read a table.
pub(super) fn uses_of(plan: &LogicalPlan, table: &SharedTable) -> Result<Vec<Use>> {
    let mut uses = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && provider
                .downcast_ref::<SharedTable>()
                .is_some_and(|read| read.name() == table.name())
        {
            let all = || (0..scan.source.schema().fields().len()).collect();
            uses.push(Use {
                columns: scan.projection.clone().unwrap_or_else(all),
                filter: conjunction(scan.filters.iter().cloned()),
            });
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(uses)
}

/// What a part computes: the columns that any place needs, of the rows that any place does not filter out. The
/// table takes note of the columns. `None` where a place reads what the part has not.
pub(super) fn narrowed(part: &FoundPart, uses: &[Use]) -> Result<Option<LogicalPlan>> {
    let mut columns: Vec<_> = uses.iter().flat_map(|of| of.columns.iter().copied()).collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        // Only how many rows there are is asked for.
        columns.push(0);
    }
    let schema = part.plan.schema();
    if columns.iter().any(|column| *column >= schema.fields().len()) {
        return Ok(None);
    }
    let column = |index: usize| Column::from(schema.qualified_field(index));
    let filters: Option<Vec<Expr>> = uses.iter().map(|of| of.filter.clone()).collect();
    let mut plan = LogicalPlanBuilder::from(part.plan.clone());
    if let Some(filters) = filters.filter(|filters| filters.len() <= FILTERS_MAX) {
        let name = TableReference::bare(part.table.name());
        for any in any_of(&filters) {
            let any = any.transform(|expr| match &expr {
                Expr::Column(of)
                    if of.relation.as_ref().is_none_or(|relation| *relation == name) =>
                {
                    let index = part.table.full_schema().index_of(&of.name)?;
                    Ok(Transformed::yes(Expr::Column(column(index))))
                }
                _ => Ok(Transformed::no(expr)),
            });
            plan = plan.filter(any.data()?)?;
        }
    }
    let projected = columns.iter().map(|index| Expr::Column(column(*index)));
    let plan = plan.project(projected.collect::<Vec<_>>())?.build()?;
    part.table.set_columns(columns);
    Ok(Some(plan))
}

/// What each row that any of some filters keeps fulfils: one of the filters and, of each column that all of them have
/// conditions of, one of these. A condition of a key goes below an aggregate, where one of the key and a sum
/// does not.
fn any_of(filters: &[Expr]) -> Vec<Expr> {
    let parts: Vec<Vec<&Expr>> = filters.iter().map(split_conjunction).collect();
    let mut columns: Vec<&Column> = Vec::new();
    for of in parts.iter().flatten().filter_map(|part| only_column(part)) {
        if !columns.contains(&of) {
            columns.push(of);
        }
    }
    let any_of_column = |column: &&Column| {
        let own = |parts: &Vec<&Expr>| {
            let own = parts.iter().filter(|part| only_column(part) == Some(*column));
            conjunction(own.map(|part| (*part).clone()))
        };
        let each: Option<Vec<Expr>> = parts.iter().map(own).collect();
        disjunction(without_copies(each?))
    };
    let all = disjunction(without_copies(filters.to_vec()));
    all.into_iter().chain(columns.iter().filter_map(any_of_column)).collect()
}

/// The column of a condition that has no other.
fn only_column(part: &Expr) -> Option<&Column> {
    let columns = part.column_refs();
    let mut columns = columns.into_iter();
    columns.next().filter(|_| columns.next().is_none())
}

fn without_copies(conditions: Vec<Expr>) -> Vec<Expr> {
    let mut kept: Vec<Expr> = Vec::with_capacity(conditions.len());
    for condition in conditions {
        if !kept.contains(&condition) {
            kept.push(condition);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    #[track_caller]
    fn check(filters: &[Expr], expected: &[Expr]) {
        assert_eq!(any_of(filters), expected);
    }

    #[test]
    fn conditions_of_one_column_stand_by_themselves() {
        let first =
            || col("kind").eq(lit("s")).and(col("year").eq(lit(2001))).and(col("sum").gt(lit(0)));
        let second = || col("kind").eq(lit("s")).and(col("year").eq(lit(2002)));
        check(
            &[first(), second()],
            &[
                first().or(second()),
                col("kind").eq(lit("s")),
                col("year").eq(lit(2001)).or(col("year").eq(lit(2002))),
            ],
        );
    }

    #[test]
    fn a_column_that_one_filter_leaves_open_is_open() {
        let (year, sum) = (|| col("year").gt(lit(1)), || col("sum").gt(col("year")));
        check(&[year(), sum()], &[year().or(sum())]);
        check(&[year(), year()], &[year(), year()]);
    }
}
