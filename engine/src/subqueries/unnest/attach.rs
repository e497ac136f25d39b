//! The value of a subquery, as a column of the query around it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{
    Column, JoinConstraint, NullEquality, ScalarValue, internal_err, plan_err,
};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{
    Expr, ExprSchemable, FetchType, Join, JoinType, LogicalPlan, LogicalPlanBuilder, SkipType,
    binary_expr, lit, when,
};

use super::domain::{Domain, Names};
use super::outer::{outer_columns, resolves};
use super::push::push;
use crate::plan_size::check_nodes;
use crate::subqueries::single_row;

/// Nodes of a plan with what is joined to it. Parts of a statement are there twice or three times, and may be
/// of each other.
const UNNESTED_NODES_MAX: usize = 4_000;

/// An input of a node and what was joined to it.
pub(super) struct Attached {
    /// The input.
    pub(super) outside: LogicalPlan,
    /// The input with a column more for each subquery, or several.
    pub(super) plan: LogicalPlan,
}

impl Attached {
    /// Nothing yet.
    pub(super) fn new(outside: LogicalPlan) -> Self {
        Self { plan: outside.clone(), outside }
    }

    /// Joins a subquery, and says what its value is then. Where NULL is as good as false, `IN` may
    /// be false for NULL.
    pub(super) fn value_of(
        &mut self,
        subquery: Expr,
        null_is_false: bool,
        names: &mut Names,
    ) -> Result<Expr> {
        names.count_joined()?;
        match subquery {
            Expr::ScalarSubquery(subquery) => self.scalar(&subquery.subquery, names),
            Expr::Exists(Exists { subquery, negated }) => {
                let exists = self.exists(&subquery.subquery, names)?;
                Ok(if negated { exists.is_not_true() } else { exists.is_true() })
            }
            Expr::InSubquery(in_subquery) => self.is_in(in_subquery, null_is_false, names),
            Expr::SetComparison(comparison) => self.any_or_all(comparison, names),
            other => internal_err!("{} is no subquery", other.variant_name()),
        }
    }

    /// `x < ANY (...)` is true if it is of any row, else NULL if it is of any, else false. `x < ALL (...)`
    /// is the opposite of `NOT x < ...` of any.
    fn any_or_all(&mut self, comparison: SetComparison, names: &mut Names) -> Result<Expr> {
        let SetComparison { expr, subquery, op, quantifier } = comparison;
        let subquery = subquery.subquery.as_ref();
        let left = self.outer(*expr)?;
        let is_all = quantifier == SetQuantifier::All;
        let compared = binary_expr(left, op, only_column(subquery)?);
        let compared = if is_all { !compared } else { compared };
        let rows_where =
            |condition: Expr| LogicalPlanBuilder::from(subquery.clone()).filter(condition)?.build();
        let is_true = self.exists(&rows_where(compared.clone().is_true())?, names)?.is_true();
        let is_unknown = self.exists(&rows_where(compared.is_null())?, names)?.is_true();
        let any = when(is_true, lit(true))
            .when(is_unknown, Expr::Literal(ScalarValue::Boolean(None), None))
            .otherwise(lit(false))?;
        Ok(if is_all { !any } else { any })
    }

    /// What a subquery takes its columns from: the input, or that with what is joined to it already, if
    /// it is compared to the value of another subquery.
    fn around(&self, subquery: &LogicalPlan) -> Result<LogicalPlan> {
        let is_new = |column: &Column| {
            resolves(self.plan.schema(), column) && !resolves(self.outside.schema(), column)
        };
        let needs_new = outer_columns(subquery)?.iter().any(|outer| is_new(&outer.column));
        Ok(if needs_new { self.plan.clone() } else { self.outside.clone() })
    }

    /// An expression of the query around as the subquery sees it.
    fn outer(&self, expr: Expr) -> Result<Expr> {
        let schema = self.plan.schema();
        expr.transform(|part| match part {
            Expr::Column(column) => {
                let (_, field) = schema.qualified_field_from_column(&column)?;
                let outer = Expr::OuterReferenceColumn(Arc::clone(field), column);
                Ok(Transformed::yes(outer))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn scalar(&mut self, subquery: &LogicalPlan, names: &mut Names) -> Result<Expr> {
        let domain = Domain::of(subquery, &self.around(subquery)?, names)?;
        let value = only_column(subquery)?;
        let name = names.fresh();
        let pushed = LogicalPlanBuilder::from(push(subquery.clone(), &domain, names)?);
        let own = domain.columns().map(Expr::Column);
        // A correlated subquery with one row at most has one for each row of the domain.
        let values = match subquery.max_rows() {
            Some(0 | 1) => pushed.project(own.chain([value.alias(name.as_str())]))?,
            _ => {
                let value = single_row().call(vec![value]).alias(name.as_str());
                pushed.aggregate(own, vec![value])?
            }
        };
        self.join_values(&domain, values.build()?)?;
        Ok(Expr::Column(Column::new_unqualified(name)))
    }

    fn exists(&mut self, subquery: &LogicalPlan, names: &mut Names) -> Result<Expr> {
        let subquery = without_limit(subquery)?;
        let domain = Domain::of(subquery, &self.around(subquery)?, names)?;
        let name = names.fresh();
        let mut pushed = LogicalPlanBuilder::from(push(subquery.clone(), &domain, names)?);
        if domain.is_empty() {
            pushed = pushed.limit(0, Some(1))?;
        }
        let rows = count(lit(1)).alias(name.as_str());
        let counted = pushed.aggregate(domain.columns().map(Expr::Column), vec![rows])?.build()?;
        self.join_values(&domain, counted)?;
        Ok(Expr::Column(Column::new_unqualified(name)).gt(lit(0_i64)))
    }

    fn is_in(
        &mut self,
        in_subquery: InSubquery,
        null_is_false: bool,
        names: &mut Names,
    ) -> Result<Expr> {
        let InSubquery { expr, subquery, negated } = in_subquery;
        let subquery = subquery.subquery.as_ref();
        let domain = Domain::of(subquery, &self.around(subquery)?, names)?;
        let left = self.column(*expr, names)?;
        let value = only_column(subquery)?;
        let pushed = push(subquery.clone(), &domain, names)?;
        let own: Vec<_> = domain.columns().map(Expr::Column).collect();

        // The values that are not NULL, each once: at most one is equal.
        let key = names.fresh();
        let found = names.fresh();
        let groups = own.iter().cloned().chain([value.clone().alias(key.as_str())]);
        let values = LogicalPlanBuilder::from(pushed.clone())
            .filter(value.clone().is_not_null())?
            .aggregate(groups, vec![count(lit(1)).alias(found.as_str())])?
            .build()?;
        let key = Expr::Column(Column::new_unqualified(key));
        let mut keys = domain.keys();
        keys.push((left.clone(), key));
        self.join(values, keys, JoinType::Left)?;
        let is_found = Expr::Column(Column::new_unqualified(found)).is_not_null();

        let has_nulls = value.nullable(pushed.schema().as_ref())?;
        let is_nullable = left.nullable(self.plan.schema().as_ref())?;
        if null_is_false && !negated || !has_nulls && !is_nullable {
            return Ok(if negated { is_found.is_not_true() } else { is_found });
        }
        // Not found is not false where there is a NULL among the values, or for it.
        let (rows, known) = (names.fresh(), names.fresh());
        let counts = vec![count(lit(1)).alias(rows.as_str()), count(value).alias(known.as_str())];
        // The domain's columns are there already, beside the values.
        let domain = domain.copied(names);
        let own = own.into_iter().zip(domain.columns()).map(|(own, name)| own.alias(name.name));
        let counts = LogicalPlanBuilder::from(pushed).aggregate(own, counts)?.build()?;
        self.join_values(&domain, counts)?;
        let [rows, known] = [rows, known].map(|name| Expr::Column(Column::new_unqualified(name)));
        let is_unknown = rows.clone().gt(lit(0_i64)).and(left.is_null().or(known.lt(rows)));
        let value = when(is_found, lit(true))
            .when(is_unknown, Expr::Literal(ScalarValue::Boolean(None), None))
            .otherwise(lit(false))?;
        Ok(if negated { !value } else { value })
    }

    /// An expression as a column, computed once.
    fn column(&mut self, expr: Expr, names: &mut Names) -> Result<Expr> {
        if matches!(expr, Expr::Column(_)) {
            return Ok(expr);
        }
        let name = names.fresh();
        let columns = self.plan.schema().columns().into_iter().map(Expr::Column);
        let computed = expr.alias(name.as_str());
        self.plan = LogicalPlanBuilder::from(self.plan.clone())
            .project(columns.chain([computed]))?
            .build()?;
        Ok(Expr::Column(Column::new_unqualified(name)))
    }

    /// Joins values of which there is one row at most for each of the domain.
    fn join_values(&mut self, domain: &Domain, values: LogicalPlan) -> Result<()> {
        // An aggregate without groups has its row always.
        let join_type = match &values {
            LogicalPlan::Aggregate(_) if domain.is_empty() => JoinType::Inner,
            _ => JoinType::Left,
        };
        self.join(values, domain.keys(), join_type)
    }

    fn join(
        &mut self,
        values: LogicalPlan,
        keys: Vec<(Expr, Expr)>,
        join_type: JoinType,
    ) -> Result<()> {
        let condition = (keys.is_empty() && join_type != JoinType::Inner).then(|| lit(true));
        let null_equality = match keys.is_empty() {
            true => NullEquality::NullEqualsNothing,
            false => NullEquality::NullEqualsNull,
        };
        self.plan = LogicalPlan::Join(Join::try_new(
            Arc::new(self.plan.clone()),
            Arc::new(values),
            keys,
            condition,
            join_type,
            JoinConstraint::On,
            null_equality,
            false,
        )?);
        check_nodes(&self.plan, UNNESTED_NODES_MAX)
    }
}

/// A plan that has rows if this one has: a limit of one row or more takes none of that.
fn without_limit(plan: &LogicalPlan) -> Result<&LogicalPlan> {
    let LogicalPlan::Limit(limit) = plan else { return Ok(plan) };
    match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::Literal(0), FetchType::Literal(Some(1..))) => Ok(&limit.input),
        _ => Ok(plan),
    }
}

/// The one column of a subquery.
fn only_column(subquery: &LogicalPlan) -> Result<Expr> {
    match subquery.schema().columns().as_slice() {
        [column] => Ok(Expr::Column(column.clone())),
        columns => plan_err!("a subquery has {} columns in the place of a value", columns.len()),
    }
}
