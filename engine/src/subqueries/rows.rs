//! Rows of several values, compared to the rows of a subquery.
//!
//! The dialect writes `(a, b) IN (SELECT x, y ...)` as `compare_rows('= ANY', a, b, EXISTS (SELECT x, y ...))`
//! (`dialect::rows`). Here names are known, and it becomes
//!
//! ```text
//! CASE WHEN EXISTS (SELECT ... WHERE (a = x AND b = y) IS TRUE) THEN true
//!      WHEN EXISTS (SELECT ... WHERE (a = x AND b = y) IS NULL) THEN NULL
//!      ELSE false END
//! ```
//! A condition, for which NULL is as good as false, is one `EXISTS` or `NOT EXISTS`. `compare_rows('=', ...)`
//! is the scalar subquery `SELECT a = x AND b = y ...`.
//!
//! Invariant: types are not coerced yet, so that each pair of values has its own.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, Spans, internal_err, not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, ScalarFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility, binary_expr, exists, lit,
    not_exists, when,
};
use datafusion::optimizer::AnalyzerRule;

use crate::node_expressions::{Sets, any_part, columns_below, map_parts};
use crate::plan_size::check_plan_size;

/// The name of the function that stands for such a comparison until it is written out.
pub(crate) const COMPARE_ROWS: &str = "compare_rows";

/// Behind the operator where it may be of any row.
pub(crate) const ANY: &str = " ANY";

/// How the columns of a subquery begin that are compared.
const COLUMN_PREFIX: &str = "__basalt_row_";

/// The function. It is never computed.
pub(crate) fn compare_rows() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(CompareRows::default())));
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CompareRows {
    signature: Signature,
}

impl Default for CompareRows {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for CompareRows {
    fn name(&self) -> &str {
        COMPARE_ROWS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [Expr::Literal(how, _), values @ .., Expr::Exists(_)] = args else {
            return plan_err!("{COMPARE_ROWS} is not meant to be called");
        };
        let values: Vec<_> = values.iter().map(|v| v.schema_name().to_string()).collect();
        let how = how.try_as_str().flatten().unwrap_or_default();
        Ok(format!("({}) {how} (<subquery>)", values.join(", ")))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{COMPARE_ROWS} is left in a plan")
    }
}

/// Writes these comparisons out.
#[derive(Debug, Default)]
pub(crate) struct RowComparisons;

impl AnalyzerRule for RowComparisons {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(written_out).data()
    }

    fn name(&self) -> &'static str {
        "row_comparisons"
    }
}

/// A row, an operator, and the subquery whose rows it is compared to.
struct Comparison {
    op: Operator,
    /// Whether it may be of any row. There must be only one otherwise.
    is_any: bool,
    values: Vec<Expr>,
    rows: Arc<LogicalPlan>,
}

fn is_comparison(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.name() == COMPARE_ROWS)
}

fn written_out(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !any_part(&node, is_comparison)? {
        return Ok(Transformed::no(node));
    }
    let schema = columns_below(&node)?;
    let node = match node {
        LogicalPlan::Filter(filter) => {
            let conditions = split_conjunction_owned(filter.predicate).into_iter();
            let conditions = conditions.map(|condition| as_condition(condition, &schema));
            match conjunction(conditions.collect::<Result<Vec<_>>>()?) {
                Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, filter.input)?),
                None => return internal_err!("a filter has no condition"),
            }
        }
        other => other,
    };
    let node = map_parts(node, Sets::Change, |part| match is_comparison(&part) {
        true => Comparison::of(part)?.value(&schema).map(Transformed::yes),
        false => Ok(Transformed::no(part)),
    })?;
    let node = node.data.recompute_schema()?;
    // Each of them may have its subquery twice, and be in that of another.
    check_plan_size(&node)?;
    Ok(Transformed::yes(node))
}

/// A condition in which NULL is as good as false.
fn as_condition(condition: Expr, schema: &DFSchema) -> Result<Expr> {
    let (comparison, negated) = match condition {
        Expr::Not(inner) if is_comparison(&inner) => (Comparison::of(*inner)?, true),
        other if is_comparison(&other) => (Comparison::of(other)?, false),
        other => return Ok(other),
    };
    if !comparison.is_any {
        let value = comparison.value(schema)?;
        return Ok(if negated { !value } else { value });
    }
    match negated {
        true => Ok(not_exists(comparison.rows_where(schema, Expr::is_not_false)?)),
        false => Ok(exists(comparison.rows_where(schema, |compared| compared)?)),
    }
}

impl Comparison {
    fn of(expr: Expr) -> Result<Self> {
        let Expr::ScalarFunction(ScalarFunction { mut args, .. }) = expr else {
            return internal_err!("{} is no comparison of rows", expr.variant_name());
        };
        let (how, rows) = match (args.first(), args.last()) {
            (
                Some(Expr::Literal(how, _)),
                Some(Expr::Exists(Exists { subquery, negated: false })),
            ) => (how.try_as_str().flatten().unwrap_or_default(), Arc::clone(&subquery.subquery)),
            _ => return plan_err!("{COMPARE_ROWS} is not meant to be called"),
        };
        let (op, is_any) = match how.strip_suffix(ANY) {
            Some(op) => (op, true),
            None => (how, false),
        };
        let op = match op {
            "=" => Operator::Eq,
            "<>" => Operator::NotEq,
            "<" => Operator::Lt,
            "<=" => Operator::LtEq,
            ">" => Operator::Gt,
            ">=" => Operator::GtEq,
            _ => return plan_err!("{COMPARE_ROWS} is not meant to be called"),
        };
        args.pop();
        let values = args.split_off(1);
        let columns = rows.schema().fields().len();
        if columns != values.len() {
            return plan_err!(
                "a row of {} values is compared to a subquery of {columns} columns",
                values.len()
            );
        }
        if values.iter().any(Expr::is_volatile) {
            return not_impl_err!(
                "a comparison of rows with random values is not supported: compute them in a \
                 subquery, and compare its columns"
            );
        }
        Ok(Self { op, is_any, values, rows })
    }

    /// The value of the comparison, true, false or NULL.
    fn value(self, schema: &DFSchema) -> Result<Expr> {
        if !self.is_any {
            let (rows, compared) = self.named_rows(schema)?;
            let compared = compared.alias(COLUMN_PREFIX);
            let rows = LogicalPlanBuilder::from(rows).project([compared])?.build()?;
            return Ok(Expr::ScalarSubquery(Subquery {
                outer_ref_columns: rows.all_out_ref_exprs(),
                subquery: Arc::new(rows),
                spans: Spans::new(),
            }));
        }
        let is_true = exists(self.rows_where(schema, |compared| compared)?);
        let is_unknown = exists(self.rows_where(schema, Expr::is_null)?);
        when(is_true, lit(true))
            .when(is_unknown, Expr::Literal(ScalarValue::Boolean(None), None))
            .otherwise(lit(false))
    }

    /// The rows of the subquery for which a comparison is as said.
    fn rows_where(
        &self,
        schema: &DFSchema,
        is_so: impl FnOnce(Expr) -> Expr,
    ) -> Result<Arc<LogicalPlan>> {
        let (rows, compared) = self.named_rows(schema)?;
        Ok(Arc::new(LogicalPlanBuilder::from(rows).filter(is_so(compared))?.build()?))
    }

    /// The rows of the subquery, with names that the query around it does not have, and what is compared.
    fn named_rows(&self, schema: &DFSchema) -> Result<(LogicalPlan, Expr)> {
        let columns = self.rows.schema().columns().into_iter().enumerate();
        let named =
            columns.map(|(n, column)| Expr::Column(column).alias(format!("{COLUMN_PREFIX}{n}")));
        let rows = LogicalPlanBuilder::from(self.rows.as_ref().clone()).project(named)?.build()?;
        let right = rows.schema().columns().into_iter().map(Expr::Column);
        let left = self.values.iter().map(|value| outer(value.clone(), schema));
        let left = left.collect::<Result<Vec<_>>>()?;
        Ok((rows, compared(self.op, left.into_iter().zip(right))?))
    }
}

/// An expression of the query around as the subquery sees it.
fn outer(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform(|part| match part {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(&column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// Two rows, compared: by the first values that differ.
fn compared(op: Operator, pairs: impl DoubleEndedIterator<Item = (Expr, Expr)>) -> Result<Expr> {
    let strict = match op {
        Operator::LtEq => Operator::Lt,
        Operator::GtEq => Operator::Gt,
        other => other,
    };
    let compared = pairs.rev().fold(None, |rest, (left, right)| {
        let Some(rest) = rest else { return Some(binary_expr(left, op, right)) };
        Some(match op {
            Operator::Eq => left.eq(right).and(rest),
            Operator::NotEq => left.not_eq(right).or(rest),
            _ => {
                let is_sure = binary_expr(left.clone(), strict, right.clone());
                is_sure.or(left.eq(right).and(rest))
            }
        })
    });
    match compared {
        Some(compared) => Ok(compared),
        None => plan_err!("a row has no values"),
    }
}
