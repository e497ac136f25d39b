//! The distinct values of the columns that a subquery takes from the query around it.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::outer::{outer_columns, resolves};
use super::repeatable::unrepeatable;
use crate::plan_size::{check_plan_size, too_large};

/// How columns begin that stand for those of a subquery; no statement's own columns do.
const COLUMN_PREFIX: &str = "__basalt_unnested_";

/// Subqueries of one statement that are joined: each makes the plan taller by some joins, and planning
/// *n* of them takes time in the order of *n* cubed, some seconds for these.
const JOINED_MAX: usize = 100;

/// Names that no column of a plan has.
pub(super) struct Names {
    next: u64,
    /// Subqueries joined so far.
    joined: usize,
}

impl Names {
    /// Names after those of a plan in which subqueries are unnested already.
    pub(super) fn after(plan: &LogicalPlan) -> Result<Self> {
        let mut next = 0;
        plan.apply_with_subqueries(|node| {
            for name in node.schema().fields().iter().map(|field| field.name()) {
                let number = name.strip_prefix(COLUMN_PREFIX).and_then(|n| n.parse::<u64>().ok());
                next = number.map_or(next, |number| next.max(number + 1));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(Self { next, joined: 0 })
    }

    /// Counts a subquery that is joined.
    ///
    /// # Errors
    /// When there are more than can be planned in time.
    pub(super) fn count_joined(&mut self) -> Result<()> {
        self.joined += 1;
        match self.joined > JOINED_MAX {
            true => Err(too_large(format!(
                "the query has more than {JOINED_MAX} subqueries that are joined one by one"
            ))),
            false => Ok(()),
        }
    }

    /// One more.
    pub(super) fn fresh(&mut self) -> String {
        let name = format!("{COLUMN_PREFIX}{}", self.next);
        self.next += 1;
        name
    }
}

/// The domain of one subquery.
#[derive(Debug, Clone)]
pub(super) struct Domain {
    /// Its rows: one without columns, if the subquery takes nothing from the query around it.
    rows: Arc<LogicalPlan>,
    /// A column from outside, and the domain's column of its values.
    columns: Vec<(Column, Column)>,
}

impl Domain {
    /// The domain of a subquery in a node with this input.
    ///
    /// # Errors
    /// When the input may have other rows when it is read again.
    pub(super) fn of(
        subquery: &LogicalPlan,
        outside: &LogicalPlan,
        names: &mut Names,
    ) -> Result<Self> {
        let columns = outer_columns(subquery)?.into_iter().map(|outer| outer.column);
        let columns = columns.filter(|column| resolves(outside.schema(), column));
        let columns: Vec<_> =
            columns.map(|column| (column, Column::new_unqualified(names.fresh()))).collect();
        if columns.is_empty() {
            return Ok(Self { rows: Arc::new(LogicalPlanBuilder::empty(true).build()?), columns });
        }
        check_plan_size(outside)?;
        let values =
            columns.iter().map(|(outer, own)| Expr::Column(outer.clone()).alias(own.name.as_str()));
        let rows =
            LogicalPlanBuilder::from(outside.clone()).project(values)?.distinct()?.build()?;
        if let Some(why) = unrepeatable(&rows)? {
            return not_impl_err!(
                "this subquery is not supported: it takes columns from rows that may be others when \
                 they are read again, because of {why}; store them with CREATE TABLE ... AS SELECT"
            );
        }
        Ok(Self { rows: Arc::new(rows), columns })
    }

    /// Whether there is anything to carry.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The domain's own columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = Column> {
        self.columns.iter().map(|(_, own)| own.clone())
    }

    /// The domain's column for one from outside.
    pub(super) fn column_of(&self, outer: &Column) -> Option<Column> {
        self.columns.iter().find(|(known, _)| known == outer).map(|(_, own)| own.clone())
    }

    /// Columns from outside and those of the domain, to be joined.
    pub(super) fn keys(&self) -> Vec<(Expr, Expr)> {
        let keys = self.columns.iter().cloned();
        keys.map(|(outer, own)| (Expr::Column(outer), Expr::Column(own))).collect()
    }

    /// The rows.
    pub(super) fn rows(&self) -> Arc<LogicalPlan> {
        Arc::clone(&self.rows)
    }

    /// The same columns from outside with other names here, for rows that are made elsewhere.
    pub(super) fn copied(&self, names: &mut Names) -> Self {
        let columns = self.columns.iter();
        let columns = columns
            .map(|(outer, _)| (outer.clone(), Column::new_unqualified(names.fresh())))
            .collect();
        Self { rows: self.rows(), columns }
    }

    /// The same rows with other names.
    pub(super) fn renamed(&self, names: &mut Names) -> Result<Self> {
        let copy = self.copied(names);
        let pairs = self.columns().zip(copy.columns());
        let values = pairs.map(|(own, new)| Expr::Column(own).alias(new.name));
        let rows = LogicalPlanBuilder::from(self.rows()).project(values)?.build()?;
        Ok(Self { rows: Arc::new(rows), ..copy })
    }
}
