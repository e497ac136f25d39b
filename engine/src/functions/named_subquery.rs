//! `named_subquery(x IN (SELECT ...), 'x IN (SELECT ...)')`: the value that it is given, under the name that
//! follows it.
//!
//! DataFusion's own name of `x IN (SELECT ...)` is `IN`, whatever it looks for and where. The dialect puts this
//! around subqueries where two expressions of a SELECT would have one name (`dialect::named_subqueries`).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Its name.
pub(crate) const NAMED_SUBQUERY: &str = "named_subquery";

/// The function as plans have it.
pub(crate) fn named_subquery() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(NamedSubquery::default())));
    Arc::clone(&FUNCTION)
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NamedSubquery {
    signature: Signature,
}

impl Default for NamedSubquery {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

/// The value of a value and its name.
fn value<T: Clone>(arguments: &[T]) -> Result<T> {
    match arguments {
        [value, _] => Ok(value.clone()),
        other => plan_err!("{NAMED_SUBQUERY} needs 2 arguments, not {}", other.len()),
    }
}

impl ScalarUDFImpl for NamedSubquery {
    fn name(&self) -> &str {
        NAMED_SUBQUERY
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        value(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        value(args.arg_fields)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [_, Expr::Literal(ScalarValue::Utf8(Some(name)), _)] => Ok(name.clone()),
            // Nobody but the dialect gives it a name.
            _ => Ok(NAMED_SUBQUERY.to_owned()),
        }
    }

    /// The name is of no use once the plan has its columns.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        value(&args).map(ExprSimplifyResult::Simplified)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        value(&args.args)
    }
}
