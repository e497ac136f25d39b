//! `named_cast(CAST(x AS INT))`: the value that it is given, under a name that says how it was cast.
//!
//! DataFusion's own name of a cast is that of its operand. The dialect puts this around casts where two
//! expressions of a statement would have one name (`dialect::casts`). It also keeps a cast from rules
//! that would take it away (`lossy_casts`).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Its name.
pub(crate) const NAMED_CAST: &str = "named_cast";

/// The function as plans have it.
pub(crate) fn named_cast() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(NamedCast::default())));
    Arc::clone(&FUNCTION)
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NamedCast {
    signature: Signature,
}

impl Default for NamedCast {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

/// The only one of what must be one.
fn only<T: Clone>(values: &[T]) -> Result<T> {
    match values {
        [value] => Ok(value.clone()),
        other => plan_err!("{NAMED_CAST} needs 1 argument, not {}", other.len()),
    }
}

impl ScalarUDFImpl for NamedCast {
    fn name(&self) -> &str {
        NAMED_CAST
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        only(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        only(args.arg_fields)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        // All casts of it: two that end alike are two columns.
        only(args).map(|argument| argument.to_string())
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        only(&args.args)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(only(inputs)?.sort_properties)
    }
}
