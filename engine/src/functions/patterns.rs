//! Patterns of LIKE and of regular expressions, with a bound on their length.
//!
//! The regex crate bounds what a pattern becomes when it is compiled, and not what it takes to read
//! it: some two hundred bytes for each of the pattern's. `'x' ~ repeat('a', 200000000)` would take
//! 40 GB that no memory pool hears of. So a pattern that is written out is measured when it is
//! planned, and one that is computed passes a function that gives it back or fails.
//!
//! A pattern of a column is another one in each row, and Arrow keeps those of a batch, compiled:
//! eight thousand of ten megabytes. So where they are many, all of them have to fit a budget.
//!
//! Invariant: no pattern of more than [`BYTES_MAX`] bytes is read by the regex crate, and those that
//! one call compiles take at most [`COMPILED_BYTES_MAX`] together.

use std::collections::HashSet;
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

/// What the regular expressions of one call may take when they are compiled.
const COMPILED_BYTES_MAX: usize = 256 << 20;

/// So many of them take less in any case: the regex crate compiles none to more than 10 MiB.
const FEW: usize = COMPILED_BYTES_MAX / (10 << 20);

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

/// The functions that computed patterns pass. SQL has no need of them, and plans carry their names.
pub(super) fn pattern_functions() -> [Arc<ScalarUDF>; 2] {
    [Language::Like, Language::Regex].map(bounded_pattern)
}

fn bounded_pattern(language: Language) -> Arc<ScalarUDF> {
    static LIKE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Language::Like));
    static REGEX: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Language::Regex));
    fn function(language: Language) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(BoundedPattern::new(language)))
    }
    Arc::clone(match language {
        Language::Like => &LIKE,
        Language::Regex => &REGEX,
    })
}

/// What a pattern is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Language {
    /// LIKE, of which Arrow keeps no more than one compiled.
    Like,
    /// Regular expressions, of which it keeps all of a batch.
    Regex,
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
            Some((pattern, language)) => bound(pattern, language)?,
            None => false,
        };
        Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
    }
}

/// The pattern of an expression that matches one.
fn pattern_of(expr: &mut Expr) -> Option<(&mut Expr, Language)> {
    use Operator as O;
    match expr {
        Expr::Like(like) => Some((&mut like.pattern, Language::Like)),
        Expr::SimilarTo(like) => Some((&mut like.pattern, Language::Regex)),
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) => match op {
            O::RegexMatch | O::RegexIMatch | O::RegexNotMatch | O::RegexNotIMatch => {
                Some((right, Language::Regex))
            }
            O::LikeMatch | O::ILikeMatch | O::NotLikeMatch | O::NotILikeMatch => {
                Some((right, Language::Like))
            }
            _ => None,
        },
        Expr::ScalarFunction(call) if PATTERN_SECOND.contains(&call.name()) => {
            Some((call.args.get_mut(1)?, Language::Regex))
        }
        _ => None,
    }
}

/// Measures a pattern now, or has it measured when it is known. Returns whether it changed.
fn bound(pattern: &mut Expr, language: Language) -> Result<bool> {
    match pattern {
        Expr::Literal(value, _) => {
            check(value.try_as_str().flatten().map_or(0, str::len))?;
            Ok(false)
        }
        Expr::ScalarFunction(call) if call.func.inner().is::<BoundedPattern>() => Ok(false),
        computed => {
            let plain = std::mem::take(computed);
            *computed = Expr::ScalarFunction(ScalarFunction::new_udf(
                bounded_pattern(language),
                vec![plain],
            ));
            Ok(true)
        }
    }
}

/// Gives its argument back, or fails when that is too much for patterns.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundedPattern {
    language: Language,
    signature: Signature,
}

impl BoundedPattern {
    fn new(language: Language) -> Self {
        Self { language, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for BoundedPattern {
    fn name(&self) -> &str {
        match self.language {
            Language::Like => "basalt_bounded_like",
            Language::Regex => "basalt_bounded_regex",
        }
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
            ColumnarValue::Array(values) => {
                let texts = distinct_texts(values.as_ref());
                check(texts.iter().map(|text| text.len()).max().unwrap_or(0))?;
                if self.language == Language::Regex {
                    check_compiled(&texts)?;
                }
            }
        }
        Ok(pattern)
    }
}

/// The different texts of an array.
fn distinct_texts(values: &dyn Array) -> HashSet<&str> {
    match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().iter().flatten().collect(),
        DataType::LargeUtf8 => values.as_string::<i64>().iter().flatten().collect(),
        DataType::Utf8View => values.as_string_view().iter().flatten().collect(),
        _ => HashSet::new(),
    }
}

/// Refuses patterns that are too much together: each may take its part of the budget.
fn check_compiled(patterns: &HashSet<&str>) -> Result<()> {
    if patterns.len() <= FEW {
        return Ok(());
    }
    let part = COMPILED_BYTES_MAX / patterns.len();
    for pattern in patterns {
        let compiled = regex::RegexBuilder::new(pattern).size_limit(part).build();
        // What is none at all is for whoever matches with it to say.
        if let Err(regex::Error::CompiledTooBig(_)) = compiled {
            let message = format!(
                "one of {} regular expressions of one call takes more than {part} bytes when it is compiled",
                patterns.len()
            );
            return Err(SqlError::new(ErrorCode::ResourcesExhausted, message)
                .with_hint("use simpler ones; SET batch_rows = 100 makes calls of fewer rows")
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(count: usize, pattern: &str) -> Vec<String> {
        (0..count).map(|number| format!("{pattern}{number}")).collect()
    }

    #[track_caller]
    fn check_many(count: usize, pattern: &str, fits: bool) {
        let texts = patterns(count, pattern);
        let result = check_compiled(&texts.iter().map(String::as_str).collect());
        assert_eq!(result.is_ok(), fits, "{count} of {pattern}: {result:?}");
    }

    #[test]
    fn many_patterns_share_a_budget() {
        check_many(FEW, r"\w{200}", true);
        check_many(200, r"\w{200}", false);
        check_many(200, r"\w\d", true);
        check_many(8_192, "abc.*def", true);
        check_many(8_192, r"\w{20}", false);
        check_many(200, "(", true);
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        assert!(check(BYTES_MAX).is_ok());
        assert!(check(BYTES_MAX + 1).is_err());
    }
}
