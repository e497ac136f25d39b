//! The scalar functions that stand for `+`, `-`, `*` and unary minus of integers.
//!
//! They take operands of one integer type, which is what type coercion leaves, and give that type
//! back. A column that one computes is named as the operator would name it.

use std::fmt::{Display, Write};
use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    Volatility,
};

use super::kernels::{Operand, compute};

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Negate,
}

impl Operation {
    pub(super) const ALL: [Self; 4] = [Self::Add, Self::Subtract, Self::Multiply, Self::Negate];

    /// The operation of a binary operator that can overflow and is not checked by Arrow.
    pub(super) fn of(operator: Operator) -> Option<Self> {
        match operator {
            Operator::Plus => Some(Self::Add),
            Operator::Minus => Some(Self::Subtract),
            Operator::Multiply => Some(Self::Multiply),
            _ => None,
        }
    }

    /// The function's name, in EXPLAIN and on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "checked_add",
            Self::Subtract => "checked_subtract",
            Self::Multiply => "checked_multiply",
            Self::Negate => "checked_negate",
        }
    }

    fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract | Self::Negate => '-',
            Self::Multiply => '*',
        }
    }

    /// The computation as SQL.
    pub(super) fn show(self, left: &dyn Display, right: &dyn Display) -> String {
        match self {
            Self::Negate => format!("-({right})"),
            _ => format!("{left} {} {right}", self.symbol()),
        }
    }

    fn operands(self) -> usize {
        if self == Self::Negate { 1 } else { 2 }
    }
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckedArithmetic {
    operation: Operation,
    signature: Signature,
}

impl CheckedArithmetic {
    pub(super) fn new(operation: Operation) -> Self {
        Self { operation, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// The operand that is the result, when the other changes nothing (`x + 0`, `x * 1`).
    fn neutral(&self, args: &[Expr]) -> Option<usize> {
        let is = |index: usize, wanted: i64| {
            let literal = args.get(index).and_then(Expr::as_literal);
            literal.and_then(|value| value.cast_to(&DataType::Int64).ok())
                == Some(ScalarValue::Int64(Some(wanted)))
        };
        match self.operation {
            Operation::Add if is(0, 0) => Some(1),
            Operation::Add | Operation::Subtract if is(1, 0) => Some(0),
            Operation::Multiply if is(0, 1) => Some(1),
            Operation::Multiply if is(1, 1) => Some(0),
            _ => None,
        }
    }
}

impl CheckedArithmetic {
    /// `a + b - c`. A chain leans to the left and is as long as a statement may be: its name is
    /// made without a call for each operator, which would need more stack than a thread has.
    fn chain_name(&self, left: &Expr, right: &Expr) -> String {
        let mut operands = vec![(self.operation.symbol(), right)];
        let mut first = left;
        while let Expr::ScalarFunction(call) = first
            && let Some(inner) = call.func.inner().downcast_ref::<Self>()
            && let [left, right] = call.args.as_slice()
        {
            operands.push((inner.operation.symbol(), right));
            first = left;
        }
        let mut name = first.schema_name().to_string();
        for (symbol, operand) in operands.into_iter().rev() {
            // Writing to a String cannot fail.
            let _ = write!(name, " {symbol} {}", operand.schema_name());
        }
        name
    }
}

impl ScalarUDFImpl for CheckedArithmetic {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let same_integers = match types {
            [first, rest @ ..] => first.is_integer() && rest.iter().all(|other| other == first),
            [] => false,
        };
        if same_integers && types.len() == self.operation.operands() {
            return Ok(types.to_vec());
        }
        plan_err!("{} needs {} integers of one type", self.name(), self.operation.operands())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(data_type) => Ok(data_type.clone()),
            None => plan_err!("{} needs an operand", self.name()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [operand] => Ok(format!("(- {})", operand.schema_name())),
            [left, right] => Ok(self.chain_name(left, right)),
            _ => plan_err!("{} has {} operands", self.name(), args.len()),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let data_type = args.return_field.data_type();
        let operand = |value: &ColumnarValue| -> Result<Operand> {
            let (values, is_scalar) = match value {
                ColumnarValue::Array(array) => (Arc::clone(array), false),
                ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
            };
            // A NULL without a type is the one thing that coercion may leave.
            let values =
                if values.data_type() == data_type { values } else { cast(&values, data_type)? };
            Ok(Operand { values, is_scalar })
        };
        let (left, right) = match args.args.as_slice() {
            [value] => {
                let zero = ScalarValue::new_zero(data_type)?.to_array()?;
                (Operand { values: zero, is_scalar: true }, operand(value)?)
            }
            [left, right] => (operand(left)?, operand(right)?),
            other => return exec_err!("{} of {} operands", self.name(), other.len()),
        };
        let result = compute(self.operation, &left, &right)?;
        if all_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }

    fn simplify(&self, mut args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.neutral(&args) {
            Some(index) => ExprSimplifyResult::Simplified(args.swap_remove(index)),
            None => ExprSimplifyResult::Original(args),
        })
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        let bounds = match (self.operation, inputs) {
            (Operation::Negate, [operand]) => operand.arithmetic_negate(),
            (Operation::Add, [left, right]) => left.add(*right),
            (Operation::Subtract, [left, right]) => left.sub(*right),
            (Operation::Multiply, [left, right]) => left.mul(*right),
            _ => return exec_err!("{} of {} operands", self.name(), inputs.len()),
        };
        match (bounds, inputs.first()) {
            (Err(_), Some(input)) => Interval::make_unbounded(&input.data_type()),
            (bounds, _) => bounds,
        }
    }

    /// What wraps loses the order of its operand; this does not wrap.
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(match (self.operation, inputs) {
            (Operation::Negate, [operand]) => -operand.sort_properties,
            (Operation::Add, [left, right]) => left.sort_properties.add(&right.sort_properties),
            (Operation::Subtract, [left, right]) => {
                left.sort_properties.sub(&right.sort_properties)
            }
            (_, inputs) if inputs.iter().all(is_constant) => SortProperties::Singleton,
            _ => SortProperties::Unordered,
        })
    }
}

fn is_constant(input: &ExprProperties) -> bool {
    input.sort_properties == SortProperties::Singleton
}
