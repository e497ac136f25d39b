//! Aggregates in two steps: what is kept of each early group, and what becomes of it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::expr_fn::when;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, ScalarUDF, lit};

use super::sound::cannot_fail;
use crate::arithmetic::DIGITS_OF_EXACT_SUMS;

/// The functions that second steps are made of.
pub(super) struct Functions {
    pub(super) sum: Arc<AggregateUDF>,
    pub(super) wide_sum: Arc<AggregateUDF>,
    pub(super) count: Arc<AggregateUDF>,
    pub(super) average_of_sum: Arc<ScalarUDF>,
    pub(super) bigint_of_sum: Arc<ScalarUDF>,
}

/// An aggregate that can be computed of parts of its rows.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// `min`, `max`, and `sum` of decimals: of its own results.
    Itself,
    /// `sum` of integers: of decimals, which may be more in between than in the end.
    SumOfIntegers,
    Count,
    /// `avg` of integers.
    AverageOfIntegers,
}

/// One aggregate of a statement.
pub(super) struct Steps {
    kind: Kind,
    function: AggregateFunction,
    /// As the user reads it.
    name: String,
}

/// The two steps of an aggregate.
pub(super) struct TwoSteps {
    /// Of the rows of an early group.
    pub(super) first: Vec<Expr>,
    /// Of early groups.
    pub(super) second: Vec<Expr>,
    /// The aggregate's value.
    pub(super) value: Expr,
}

impl Steps {
    /// An aggregate over the columns of `schema`; `None` of one that has no two steps, or may fail for a row.
    pub(super) fn of(expr: &Expr, schema: &DFSchema) -> Result<Option<Self>> {
        let name = expr.schema_name().to_string();
        let Expr::AggregateFunction(function) = expr.clone().unalias() else { return Ok(None) };
        let params = &function.params;
        let is_plain = !params.distinct
            && params.filter.is_none()
            && params.order_by.is_empty()
            && params.null_treatment.is_none();
        let [argument] = params.args.as_slice() else { return Ok(None) };
        if !is_plain || !cannot_fail(argument, schema)? {
            return Ok(None);
        }
        let argument = argument.get_type(schema)?;
        let kind = match (function.func.name(), &argument) {
            ("count", _) => Kind::Count,
            ("sum", DataType::Int64) => Kind::SumOfIntegers,
            ("avg", DataType::Int64) => Kind::AverageOfIntegers,
            // With more digits, a sum may be too large in between and not in the end.
            ("sum", DataType::Decimal128(digits, _)) if *digits <= DIGITS_OF_EXACT_SUMS => {
                Kind::Itself
            }
            ("min" | "max", of) if !of.is_nested() => Kind::Itself,
            _ => return Ok(None),
        };
        Ok(Some(Self { kind, function, name }))
    }

    /// Its argument.
    pub(super) fn arguments(&self) -> &[Expr] {
        &self.function.params.args
    }

    /// Its steps, of which those of the first are named `name` and a number.
    pub(super) fn in_two(&self, name: &str, functions: &Functions) -> Result<TwoSteps> {
        let of = |function: &Arc<AggregateUDF>, argument: Expr| {
            let mut aggregate = self.function.clone();
            aggregate.func = Arc::clone(function);
            aggregate.params.args = vec![argument];
            Expr::AggregateFunction(aggregate)
        };
        let named = |step: usize, part: usize| format!("{name}_{step}_{part}");
        let column = |step, part| Expr::Column(Column::new_unqualified(named(step, part)));
        let argument = self.function.params.args[0].clone();
        let own = &self.function.func;
        let Functions { sum, wide_sum, count, average_of_sum, bigint_of_sum } = functions;
        let call = |function: &Arc<ScalarUDF>, args: Vec<Expr>| {
            Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
        };
        let (first, second, value) = match self.kind {
            Kind::Itself => (vec![of(own, argument)], vec![of(own, column(1, 0))], column(2, 0)),
            Kind::SumOfIntegers => (
                vec![of(wide_sum, argument)],
                vec![of(sum, column(1, 0))],
                call(bigint_of_sum, vec![column(2, 0), lit(self.name.as_str())]),
            ),
            Kind::Count => (
                vec![of(count, argument)],
                vec![of(sum, column(1, 0))],
                // Of no rows there is no sum.
                when(column(2, 0).is_not_null(), column(2, 0)).otherwise(lit(0_i64))?,
            ),
            Kind::AverageOfIntegers => (
                vec![of(wide_sum, argument.clone()), of(count, argument)],
                vec![of(sum, column(1, 0)), of(sum, column(1, 1))],
                call(average_of_sum, vec![column(2, 0), column(2, 1)]),
            ),
        };
        let aliased = |step: usize, exprs: Vec<Expr>| {
            let parts = exprs.into_iter().enumerate();
            parts.map(|(part, expr)| expr.alias(named(step, part))).collect()
        };
        Ok(TwoSteps { first: aliased(1, first), second: aliased(2, second), value })
    }
}
