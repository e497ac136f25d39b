//! Patterns of LIKE and of regular expressions, with a bound on their length.
//!
//! The regex crate bounds what a pattern becomes when it is compiled, and not what it takes to read
//! it: some two hundred bytes for each of the pattern's. `'x' ~ repeat('a', 200000000)` would take
//! 40 GB that no memory pool hears of. So a pattern that is written out is measured when it is
//! planned, and one that is computed passes a function that gives it back or fails.
//!
//! Invariant: no pattern of more than [`BYTES_MAX`] bytes is read by the regex crate.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::error::{ErrorCode, SqlError};

/// The longest pattern: 50 MB for its reader, and far longer than any that means something.
const BYTES_MAX: usize = 256 << 10;

/// Functions whose second argument is a pattern.
const PATTERN_SECOND: [&str; 5] =
    ["regexp_like", "regexp_match", "regexp_replace", "regexp_count", "regexp_instr"];

fn check(bytes: usize) -> Result<()> {
    if bytes <= BYTES_MAX {
        return Ok(());
    }
    let message = format!("a pattern has {bytes} bytes: at most {BYTES_MAX} are allowed");
    Err(SqlError::new(ErrorCode::ResourcesExhausted, message)
        .with_hint("use a shorter pattern, or =, strpos and starts_with for long texts")
        .into())
}

/// The function that computed patterns pass. SQL has no need of it, and plans carry its name.
pub(super) fn bounded_pattern() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(BoundedPattern::default())));
    Arc::clone(&FUNCTION)
}

/// Measures every pattern of a plan before anything folds constants.
#[derive(Debug)]
pub(super) struct BoundPatterns;

impl FunctionRewrite for BoundPatterns {
    fn name(&self) -> &str {
        "bound_patterns"
    }

    fn rewrite(
        &self,
        mut expr: Expr,
        _: &DFSchema,
        _: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let changed = match pattern_of(&mut expr) {
            Some(pattern) => bound(pattern)?,
            None => false,
        };
        Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
    }
}

/// The pattern of an expression that matches one.
fn pattern_of(expr: &mut Expr) -> Option<&mut Expr> {
    use Operator as O;
    match expr {
        Expr::Like(like) | Expr::SimilarTo(like) => Some(&mut like.pattern),
        Expr::BinaryExpr(BinaryExpr {
            op:
                O::RegexMatch
                | O::RegexIMatch
                | O::RegexNotMatch
                | O::RegexNotIMatch
                | O::LikeMatch
                | O::ILikeMatch
                | O::NotLikeMatch
                | O::NotILikeMatch,
            right,
            ..
        }) => Some(right),
        Expr::ScalarFunction(call) if PATTERN_SECOND.contains(&call.name()) => call.args.get_mut(1),
        _ => None,
    }
}

/// Measures a pattern now, or has it measured when it is known. Returns whether it changed.
fn bound(pattern: &mut Expr) -> Result<bool> {
    match pattern {
        Expr::Literal(value, _) => {
            check(value.try_as_str().flatten().map_or(0, str::len))?;
            Ok(false)
        }
        Expr::ScalarFunction(call) if call.func.inner().is::<BoundedPattern>() => Ok(false),
        computed => {
            let plain = std::mem::take(computed);
            *computed =
                Expr::ScalarFunction(ScalarFunction::new_udf(bounded_pattern(), vec![plain]));
            Ok(true)
        }
    }
}

/// Gives its argument back, or fails when that is too long for a pattern.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundedPattern {
    signature: Signature,
}

impl Default for BoundedPattern {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for BoundedPattern {
    fn name(&self) -> &str {
        "basalt_bounded_pattern"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(pattern) = args.args.into_iter().next() else {
            return Ok(ColumnarValue::Scalar(ScalarValue::Null));
        };
        match &pattern {
            ColumnarValue::Scalar(value) => {
                check(value.try_as_str().flatten().map_or(0, str::len))?
            }
            ColumnarValue::Array(values) => check(longest(values.as_ref()))?,
        }
        Ok(pattern)
    }
}

/// Bytes of the longest text.
fn longest(values: &dyn Array) -> usize {
    fn of<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> usize {
        texts.flatten().map(str::len).max().unwrap_or(0)
    }
    match values.data_type() {
        DataType::Utf8 => of(values.as_string::<i32>().iter()),
        DataType::LargeUtf8 => of(values.as_string::<i64>().iter()),
        DataType::Utf8View => of(values.as_string_view().iter()),
        _ => 0,
    }
}
