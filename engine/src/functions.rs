//! DataFusion's functions, with a bound on what one call of them may make.
//!
//! `repeat('x', 2000000000)` is 29 characters and two gigabytes, and no memory pool hears of it:
//! functions allocate on their own. So those that make much out of little are wrapped: what a call
//! would make is estimated before it runs, a batch that is too much for one call is cut into runs
//! of rows, and one that is too much altogether is an error.
//!
//! Invariant: a wrapped function gives what the plain one gives, or [`ErrorCode::ResourcesExhausted`].
//!
//! Not here: aggregates, whose state the memory pool knows.
//!
//! - `cost`: what a row of each function makes, from its arguments
//! - `coalesce`, `named_cast`, `named_subquery`: not bounded, but of bytes too, and casts and subqueries
//!   by their names
//! - `date_trunc`, `round`, `string_agg`: before 1970, of one type, and in several orders
//! - `patterns`: how long a pattern may be, and how many

mod coalesce;
mod cost;
mod date_trunc;
mod named_cast;
mod named_subquery;
mod patterns;
mod round;
mod string_agg;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use crate::distribute::slice_route;
use crate::error::{ErrorCode, SqlError};
use crate::intervals::interval_functions;
pub(crate) use coalesce::coalesce_functions;
use cost::{COSTS, Cost};
use date_trunc::date_trunc;
pub(crate) use named_cast::{NAMED_CAST, named_cast};
pub(crate) use named_subquery::{NAMED_SUBQUERY, named_subquery};
use patterns::{BoundPatterns, pattern_functions};
pub(crate) use round::round;
pub(crate) use string_agg::string_agg;

/// Bytes that one call may make for one batch of rows: four times the largest row that a client
/// can be sent, and little enough for every thread of a small machine to do it at once.
const CALL_BYTES_MAX: u64 = 256 << 20;

/// Puts the bounded functions in the place of DataFusion's. Planning and running sessions both
/// need it: a plan carries functions by name.
pub(crate) fn bound(state: &mut SessionState) -> Result<()> {
    for (name, cost) in COSTS {
        // A build without the function has nothing to bound.
        if let Ok(plain) = state.udf(name) {
            let bounded = Bounded { inner: Arc::clone(plain.inner()), name, cost: *cost };
            state.register_udf(Arc::new(ScalarUDF::new_from_impl(bounded)))?;
        }
    }
    let others = [date_trunc(), named_cast(), named_subquery(), round(), slice_route()];
    let ours = pattern_functions().into_iter().chain(coalesce_functions()).chain(others);
    for function in ours.chain(interval_functions()) {
        state.register_udf(function)?;
    }
    state.register_udaf(string_agg())?;
    // Its name in PostgreSQL, DuckDB and Redshift.
    if let Ok(signum) = state.udf("signum") {
        let sign = signum.as_ref().clone().with_aliases(["sign"]);
        state.register_udf(Arc::new(sign))?;
    }
    state.register_function_rewrite(Arc::new(BoundPatterns))
}

/// A function of DataFusion's below a bound.
#[derive(Debug)]
struct Bounded {
    inner: Arc<dyn ScalarUDFImpl>,
    name: &'static str,
    cost: Cost,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Bounded {
    /// Runs the function on runs of rows whose estimates stay below the bound.
    fn in_runs(&self, args: ScalarFunctionArgs, costs: &[u64]) -> Result<ColumnarValue> {
        let mut made: Vec<ArrayRef> = Vec::new();
        let mut bytes = 0_u64;
        let mut start = 0;
        while start < costs.len() {
            let mut estimate = 0_u64;
            let fitting = costs.iter().skip(start).take_while(|cost| {
                estimate = estimate.saturating_add(**cost);
                estimate <= CALL_BYTES_MAX
            });
            let rows = fitting.count();
            if rows == 0 {
                let cost = costs.get(start).copied().unwrap_or(u64::MAX);
                return Err(self.too_much(cost).into());
            }
            let part = self.inner.invoke_with_args(rows_of(&args, start, rows))?;
            let part = part.into_array(rows)?;
            bytes = bytes.saturating_add(part.get_array_memory_size() as u64);
            if bytes > CALL_BYTES_MAX {
                return Err(self.too_much(bytes).into());
            }
            made.push(part);
            start += rows;
        }
        let parts: Vec<&dyn Array> = made.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(match parts.is_empty() {
            true => new_empty_array(args.return_field.data_type()),
            false => concat(&parts)?,
        }))
    }

    fn too_much(&self, bytes: u64) -> SqlError {
        let name = self.name;
        let message = match self.cost {
            Cost::Work(_) => format!(
                "function \"{name}\" would take {bytes} steps in one call: at most {CALL_BYTES_MAX} are allowed"
            ),
            Cost::Bytes(_) | Cost::Sum => format!(
                "function \"{name}\" would make {bytes} bytes in one call: at most {CALL_BYTES_MAX} are allowed"
            ),
        };
        SqlError::new(ErrorCode::ResourcesExhausted, message)
            .with_hint("give it smaller values; SET batch_rows = 100 makes calls of fewer rows")
    }
}

/// The arguments of a run of rows.
fn rows_of(args: &ScalarFunctionArgs, start: usize, rows: usize) -> ScalarFunctionArgs {
    let part = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, rows)),
        scalar => scalar.clone(),
    };
    ScalarFunctionArgs {
        args: args.args.iter().map(part).collect(),
        arg_fields: args.arg_fields.clone(),
        number_rows: rows,
        return_field: Arc::clone(&args.return_field),
        config_options: Arc::clone(&args.config_options),
    }
}

impl ScalarUDFImpl for Bounded {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        if self.cost.is_surely_below(&args.args, rows, CALL_BYTES_MAX) {
            return self.inner.invoke_with_args(args);
        }
        let costs = self.cost.of_rows(&args.args, rows);
        let total = costs.iter().fold(0_u64, |sum, cost| sum.saturating_add(*cost));
        if total <= CALL_BYTES_MAX {
            return self.inner.invoke_with_args(args);
        }
        match scalars {
            true => Err(self.too_much(total).into()),
            false => self.in_runs(args, &costs),
        }
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    /// Not handed on where it would put a plain function in the place of this one.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match self.inner.simplify(args.clone(), info)? {
            ExprSimplifyResult::Simplified(Expr::ScalarFunction(function))
                if COSTS.iter().any(|(name, _)| *name == function.name()) =>
            {
                Ok(ExprSimplifyResult::Original(args))
            }
            other => Ok(other),
        }
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
