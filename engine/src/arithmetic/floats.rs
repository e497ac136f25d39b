//! One NaN, the positive one, and one zero, the positive one.
//!
//! A NaN has a sign, and x86 gives its own NaN a negative one (`Infinity - Infinity`, `0.0 / 0.0`).
//! Arrow compares in the total order of IEEE 754-2008 (section 5.10), where that is less than every
//! number and not equal to the other NaN: a group of its own, sorted first, and on ARM it would be
//! the other way round (`sql-tests/upstream/sign-of-nan.md`). In SQL, as PostgreSQL and DuckDB have it,
//! all NaN are equal and greater than every number. In the same order `-0.0` is less than `0.0`, and
//! hashes tell the two apart, though they are equal (`sql-tests/upstream/sign-of-zero.md`).
//!
//! So floats are normalized where they come from:
//!
//! - operators, casts and functions of floats: a function around the outermost of them, and around
//!   what of their operands changes more than a sign by its own (a divisor, arguments of functions)
//! - aggregates: `float_aggregates`
//! - rows that are stored, and those of files: [`normalize_floats`], [`normalize_float_rows`]
//!
//! Invariant: no float of a table, and none that an expression gives, is a negative NaN or a negative
//! zero, nor is one inside of a list or a struct.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, RecordBatch,
    RecordBatchOptions, make_array,
};
use arrow::datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::float_aggregates::FLOAT_AGGREGATES;
use super::rewrite::{is_checked, operand_type};
use crate::node_expressions::{Sets, any_part, columns_below, map_parts};

/// Values in which every NaN is the positive one, and every zero.
pub fn normalize_floats(values: ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float16 => typed::<Float16Type>(values, half),
        DataType::Float32 => typed::<Float32Type>(values, single),
        DataType::Float64 => typed::<Float64Type>(values, double),
        nested if has_floats(nested) => inside(values),
        _ => values,
    }
}

/// Rows in which every NaN is the positive one, and every zero.
///
/// # Errors
/// None that the rows did not have before.
pub fn normalize_float_rows(rows: RecordBatch) -> Result<RecordBatch> {
    if !rows.columns().iter().any(|values| has_floats(values.data_type())) {
        return Ok(rows);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let (schema, columns, _) = rows.into_parts();
    let columns = columns.into_iter().map(normalize_floats).collect();
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

// `-0.0 + 0.0` is `0.0` (IEEE 754-2008, section 6.3), and every other number plus zero is itself.

fn half(value: Half) -> Half {
    if value.is_nan() { Half::NAN } else { value.add_wrapping(Half::ZERO) }
}

fn single(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value + 0.0 }
}

fn double(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn typed<T: ArrowPrimitiveType>(
    values: ArrayRef,
    normal: impl Fn(T::Native) -> T::Native,
) -> ArrayRef {
    let floats = values.as_primitive::<T>();
    // Most need nothing, and looking is faster than copying.
    let is_other = |value: T::Native| normal(value).is_ne(value);
    if !floats.values().iter().fold(false, |any, value| any | is_other(*value)) {
        return values;
    }
    Arc::new(floats.unary::<_, T>(normal)) as ArrayRef
}

/// Values of a nested type, with the floats inside of them normalized.
fn inside(values: ArrayRef) -> ArrayRef {
    let data = values.to_data();
    let children = data.child_data().iter();
    let children = children.map(|child| normalize_floats(make_array(child.clone())).to_data());
    let children = children.collect();
    // Other children of the same lengths: what was valid is.
    data.into_builder().child_data(children).build().map_or(values, make_array)
}

/// A value, of which NaN and zero are the positive ones.
pub(super) fn normalize_scalar(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float16(Some(v)) => ScalarValue::Float16(Some(half(v))),
        ScalarValue::Float32(Some(v)) => ScalarValue::Float32(Some(single(v))),
        ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(double(v))),
        nested if nested.data_type().is_nested() && has_floats(&nested.data_type()) => {
            let values = nested.to_array().map(normalize_floats);
            let normal = values.and_then(|values| ScalarValue::try_from_array(&values, 0));
            normal.unwrap_or(nested)
        }
        other => other,
    }
}

/// A float of 16 bits.
type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// Functions that hand on one of their arguments, or a part of one, and make no NaN and no zero.
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

/// The name of [`NormalizeFloats`].
const NAME: &str = "normalize_floats";

/// Puts the function around what can make a NaN or a negative zero, after types are coerced.
#[derive(Debug)]
pub(super) struct NormalizeFloatsRule;

impl AnalyzerRule for NormalizeFloatsRule {
    fn name(&self) -> &'static str {
        "normalize_floats"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(normalized_plan).data()
    }
}

fn normalized_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !needs_it(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let schema = columns_below(&plan)?;
    map_parts(plan, Sets::Change, |expr| wrap(expr, &schema))
}

/// Whether a node has anything to look at: most have not.
fn needs_it(plan: &LogicalPlan) -> Result<bool> {
    any_part(plan, |expr| match expr {
        Expr::BinaryExpr(binary) => is_arithmetic(binary.op),
        Expr::Literal(value, _) => has_floats(&value.data_type()),
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
            has_floats(field.data_type())
        }
        Expr::Negative(_) | Expr::ScalarFunction(_) => true,
        _ => false,
    })
}

/// An expression with the function around it, if it can make a NaN or a negative zero. Its operands
/// need none then, where their signs only change that of the result.
fn wrap(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let makes_float = match &expr {
        Expr::Literal(value, metadata) if has_floats(&value.data_type()) => {
            let one = normalize_scalar(value.clone());
            return Ok(Transformed::yes(Expr::Literal(one, metadata.clone())));
        }
        Expr::AggregateFunction(call) if FLOAT_AGGREGATES.contains(&call.func.name()) => {
            return Ok(match call.params.distinct {
                // Equal values are told apart before they are computed with.
                true => Transformed::no(expr),
                false => Transformed::yes(Expr::AggregateFunction(of_plain(call.clone()))),
            });
        }
        // Coercion leaves two floats; a long chain leans to the left, where its type is found last.
        Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => gives_float(&binary.right, schema)?,
        Expr::Negative(operand) => gives_float(operand, schema)?,
        Expr::Cast(Cast { field, expr }) | Expr::TryCast(TryCast { field, expr }) => {
            let to = field.data_type();
            has_floats(to) && !is_normal_cast(&expr.get_type(schema)?, to)
        }
        Expr::ScalarFunction(call) => {
            let hands_on = HAND_ON.contains(&call.name()) || is_checked(&expr);
            !hands_on && expr.get_type(schema)?.is_floating()
        }
        _ => false,
    };
    if !makes_float {
        return Ok(Transformed::no(expr));
    }
    let plain = match expr {
        // `1 / -0.0` is not `1 / 0.0`; what a function makes of its arguments, nobody knows.
        Expr::BinaryExpr(mut binary) if binary.op == Operator::Divide => {
            *binary.left = unwrapped(std::mem::take(&mut *binary.left));
            Expr::BinaryExpr(binary)
        }
        Expr::ScalarFunction(_) => expr,
        other => other.map_children(|operand| Ok(Transformed::yes(unwrapped(operand))))?.data,
    };
    let call = ScalarFunction::new_udf(Arc::clone(&FUNCTION), vec![plain]);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

/// Whether a cast of what is normal gives what is normal. A number that is too small for a narrower
/// float becomes a zero of its sign.
fn is_normal_cast(from: &DataType, to: &DataType) -> bool {
    let is_wider = || from.is_floating() && from.primitive_width() <= to.primitive_width();
    to.is_floating()
        && (from.is_integer() || is_wider() || from.is_decimal() && *to == DataType::Float64)
}

fn gives_float(operand: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(is_normalized(operand) || operand_type(operand, schema)?.is_floating())
}

fn is_normalized(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<NormalizeFloats>())
}

/// An aggregate that normalizes what it gives: DataFusion's rewrites of its argument know operators only.
fn of_plain(mut call: AggregateFunction) -> AggregateFunction {
    call.params.args = call.params.args.into_iter().map(unwrapped).collect();
    call
}

/// What the function stands around.
fn unwrapped(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(mut call) if call.func.inner().is::<NormalizeFloats>() => {
            call.args.pop().unwrap_or_default()
        }
        other => other,
    }
}

fn is_arithmetic(operator: Operator) -> bool {
    use Operator as O;
    matches!(operator, O::Plus | O::Minus | O::Multiply | O::Divide | O::Modulo)
}

/// Whether values of a type are floats, or have some inside.
fn has_floats(data_type: &DataType) -> bool {
    use DataType as T;
    match data_type {
        T::Float16 | T::Float32 | T::Float64 => true,
        T::List(item)
        | T::LargeList(item)
        | T::FixedSizeList(item, _)
        | T::ListView(item)
        | T::LargeListView(item)
        | T::Map(item, _) => has_floats(item.data_type()),
        T::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        T::Dictionary(_, values) => has_floats(values),
        _ => false,
    }
}

/// The function as plans have it.
static FUNCTION: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(NormalizeFloats::default())));

/// The function.
pub(super) fn normalize_function() -> Arc<ScalarUDF> {
    Arc::clone(&FUNCTION)
}

/// `normalize_floats(x)`: x, with the positive NaN for every NaN, and the positive zero for every zero. It
/// is named like its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NormalizeFloats {
    signature: Signature,
}

impl Default for NormalizeFloats {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for NormalizeFloats {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            other => internal_err!("normalize_floats of {} arguments", other.len()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(Arc::clone(field)),
            other => internal_err!("normalize_floats of {} arguments", other.len()),
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [argument] => Ok(argument.schema_name().to_string()),
            other => internal_err!("normalize_floats of {} arguments", other.len()),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match <[_; 1]>::try_from(args.args) {
            Ok([ColumnarValue::Array(values)]) => {
                Ok(ColumnarValue::Array(normalize_floats(values)))
            }
            Ok([ColumnarValue::Scalar(value)]) => {
                Ok(ColumnarValue::Scalar(normalize_scalar(value)))
            }
            Err(other) => internal_err!("normalize_floats of {} arguments", other.len()),
        }
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        match inputs {
            [interval] => Ok((*interval).clone()),
            other => internal_err!("normalize_floats of {} arguments", other.len()),
        }
    }

    /// A NaN goes to another place, and constants stay what they are.
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let is_constant =
            |input: &ExprProperties| input.sort_properties == SortProperties::Singleton;
        Ok(match inputs.iter().all(is_constant) {
            true => SortProperties::Singleton,
            false => SortProperties::Unordered,
        })
    }
}
