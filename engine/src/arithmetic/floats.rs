//! One NaN: the positive one.
//!
//! A NaN has a sign, and x86 gives its own NaN a negative one (`Infinity - Infinity`, `0.0 / 0.0`).
//! Arrow compares in the total order of IEEE 754-2008 (section 5.10), where that is less than every
//! number and not equal to the other NaN: a group of its own, sorted first, and on ARM it would be
//! the other way round (`sql-tests/upstream/sign-of-nan.md`). In SQL, as PostgreSQL and DuckDB have it,
//! all NaN are equal and greater than every number. So what can make a NaN gives the positive one:
//!
//! - operators, casts of text and functions of floats: a function around the outermost of them
//! - aggregates: `float_aggregates`
//! - rows that are stored, and those of files: [`one_nan`], [`rows_of_one_nan`]
//!
//! Invariant: no float of a table, and none that an expression gives, is a negative NaN. Not covered:
//! floats inside of lists and structs.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::float_aggregates::FLOAT_AGGREGATES;
use super::rewrite::{is_checked, operand_type};

/// A float of 16 bits.
type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// Values in which every NaN is the positive one.
pub fn one_nan(values: ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float16 => typed::<Float16Type>(values, |v| v.is_nan(), Half::NAN),
        DataType::Float32 => typed::<Float32Type>(values, |v| v.is_nan(), f32::NAN),
        DataType::Float64 => typed::<Float64Type>(values, |v| v.is_nan(), f64::NAN),
        _ => values,
    }
}

/// Rows in which every NaN is the positive one.
///
/// # Errors
/// None that the rows did not have before.
pub fn rows_of_one_nan(rows: RecordBatch) -> Result<RecordBatch> {
    if !rows.columns().iter().any(|values| is_float(values.data_type())) {
        return Ok(rows);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let (schema, columns, _) = rows.into_parts();
    let columns = columns.into_iter().map(one_nan).collect();
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

fn typed<T: ArrowPrimitiveType>(
    values: ArrayRef,
    is_nan: impl Fn(T::Native) -> bool,
    nan: T::Native,
) -> ArrayRef {
    let floats = values.as_primitive::<T>();
    // Most have none, and looking is faster than copying.
    if !floats.values().iter().fold(false, |any, value| any | is_nan(*value)) {
        return values;
    }
    let one = |value| if is_nan(value) { nan } else { value };
    Arc::new(floats.unary::<_, T>(one)) as ArrayRef
}

/// A value, of which NaN is the positive one.
pub(super) fn scalar_one_nan(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float16(Some(v)) if v.is_nan() => ScalarValue::Float16(Some(Half::NAN)),
        ScalarValue::Float32(Some(v)) if v.is_nan() => ScalarValue::Float32(Some(f32::NAN)),
        ScalarValue::Float64(Some(v)) if v.is_nan() => ScalarValue::Float64(Some(f64::NAN)),
        other => other,
    }
}

/// Functions that hand on one of their arguments, or a part of one, and make no NaN.
const HAND_ON: [&str; 11] = [
    NAME,
    "abs",
    "array_element",
    "coalesce",
    "get_field",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    "random",
];

/// The name of [`OneNan`].
const NAME: &str = "one_nan";

/// Puts the function around what can make a NaN, after types are coerced.
#[derive(Debug)]
pub(super) struct OneNanRule;

impl AnalyzerRule for OneNanRule {
    fn name(&self) -> &'static str {
        "one_nan"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(with_one_nan).data()
    }
}

fn with_one_nan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !may_have_nan(&plan)? {
        return Ok(Transformed::no(plan));
    }
    // Only types are looked up in it, so the order of its columns does not matter.
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        let source = scan.source.schema();
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &source)?);
    }
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let wrapped = expr.transform_up(|expr| wrap(expr, &schema))?;
        Ok(wrapped.update_data(|expr| name.restore(expr)))
    })
}

/// Whether a node has anything to look at: most have not.
fn may_have_nan(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|expr| {
            Ok(match expr {
                Expr::BinaryExpr(binary) => is_arithmetic(binary.op),
                Expr::Literal(value, _) => is_float(&value.data_type()),
                Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
                    is_float(field.data_type())
                }
                Expr::Negative(_) | Expr::ScalarFunction(_) => true,
                _ => false,
            })
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// An expression with the function around it, if it can make a NaN. Its operands need none then.
fn wrap(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let makes_float = match &expr {
        Expr::Literal(value, metadata) if is_float(&value.data_type()) => {
            let one = scalar_one_nan(value.clone());
            return Ok(Transformed::yes(Expr::Literal(one, metadata.clone())));
        }
        Expr::AggregateFunction(call) if FLOAT_AGGREGATES.contains(&call.func.name()) => {
            return Ok(Transformed::yes(Expr::AggregateFunction(of_plain(call.clone()))));
        }
        // Coercion leaves two floats; a long chain leans to the left, where its type is found last.
        Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => gives_float(&binary.right, schema)?,
        Expr::Negative(operand) => gives_float(operand, schema)?,
        Expr::Cast(Cast { field, expr }) | Expr::TryCast(TryCast { field, expr }) => {
            is_float(field.data_type()) && !expr.get_type(schema)?.is_numeric()
        }
        Expr::ScalarFunction(call) => {
            let hands_on = HAND_ON.contains(&call.name()) || is_checked(&expr);
            !hands_on && is_float(&expr.get_type(schema)?)
        }
        _ => false,
    };
    if !makes_float {
        return Ok(Transformed::no(expr));
    }
    let plain = expr.map_children(|operand| Ok(Transformed::yes(unwrapped(operand))))?.data;
    let call = ScalarFunction::new_udf(Arc::clone(&FUNCTION), vec![plain]);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

fn gives_float(operand: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(is_one_nan(operand) || is_float(&operand_type(operand, schema)?))
}

fn is_one_nan(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<OneNan>())
}

/// An aggregate that gives one NaN itself: DataFusion's rewrites of its argument know operators only.
fn of_plain(mut call: AggregateFunction) -> AggregateFunction {
    call.params.args = call.params.args.into_iter().map(unwrapped).collect();
    call
}

/// What the function stands around.
fn unwrapped(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(mut call) if call.func.inner().is::<OneNan>() => {
            call.args.pop().unwrap_or_default()
        }
        other => other,
    }
}

fn is_arithmetic(operator: Operator) -> bool {
    use Operator as O;
    matches!(operator, O::Plus | O::Minus | O::Multiply | O::Divide | O::Modulo)
}

fn is_float(data_type: &DataType) -> bool {
    data_type.is_floating()
}

/// The function as plans have it.
static FUNCTION: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(OneNan::default())));

/// The function.
pub(super) fn one_nan_function() -> Arc<ScalarUDF> {
    Arc::clone(&FUNCTION)
}

/// `one_nan(x)`: x, with the positive NaN for every NaN. It is named like its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OneNan {
    signature: Signature,
}

impl Default for OneNan {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OneNan {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            other => internal_err!("one_nan of {} arguments", other.len()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(Arc::clone(field)),
            other => internal_err!("one_nan of {} arguments", other.len()),
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [argument] => Ok(argument.schema_name().to_string()),
            other => internal_err!("one_nan of {} arguments", other.len()),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match <[_; 1]>::try_from(args.args) {
            Ok([ColumnarValue::Array(values)]) => Ok(ColumnarValue::Array(one_nan(values))),
            Ok([ColumnarValue::Scalar(value)]) => Ok(ColumnarValue::Scalar(scalar_one_nan(value))),
            Err(other) => internal_err!("one_nan of {} arguments", other.len()),
        }
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        match inputs {
            [interval] => Ok((*interval).clone()),
            other => internal_err!("one_nan of {} arguments", other.len()),
        }
    }

    /// A NaN goes to another place.
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let is_constant =
            |input: &ExprProperties| input.sort_properties == SortProperties::Singleton;
        Ok(match inputs.iter().all(is_constant) {
            true => SortProperties::Singleton,
            false => SortProperties::Unordered,
        })
    }
}
