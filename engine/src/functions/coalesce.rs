//! `coalesce` and `nvl` of bytes too.
//!
//! DataFusion finds no common type for the bytes of a column and those of a literal: `coalesce(b, X'00')`
//! is refused there, though CASE knows it, and `nvl(b, X'00')` is text.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::functions::core::coalesce::CoalesceFunc;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

/// The functions, in the place of DataFusion's.
pub(crate) fn coalesce_functions() -> [Arc<ScalarUDF>; 2] {
    let function = |name, aliases: &[&str], arguments| {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        let inner = CoalesceFunc::new();
        Arc::new(ScalarUDF::new_from_impl(Coalesce { name, aliases, arguments, inner }))
    };
    [function("coalesce", &[], None), function("nvl", &["ifnull"], Some(2))]
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coalesce {
    name: &'static str,
    aliases: Vec<String>,
    /// How many, if it says.
    arguments: Option<usize>,
    inner: CoalesceFunc,
}

fn is_bytes(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(data_type, T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_))
}

impl ScalarUDFImpl for Coalesce {
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if let Some(arguments) = self.arguments.filter(|arguments| *arguments != types.len()) {
            return plan_err!("{} needs {arguments} arguments, not {}", self.name, types.len());
        }
        let are_bytes = types.iter().all(|t| is_bytes(t) || t.is_null());
        match are_bytes && types.iter().any(is_bytes) {
            true => Ok(vec![DataType::BinaryView; types.len()]),
            false if self.arguments.is_some() => {
                // As DataFusion's `nvl`: what has nothing in common is text.
                let common = self.inner.coerce_types(types);
                Ok(common.unwrap_or_else(|_| vec![DataType::Utf8View; types.len()]))
            }
            false => self.inner.coerce_types(types),
        }
    }

    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
