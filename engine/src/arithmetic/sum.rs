//! `sum` over integers and decimals: exact on the way, an error when the result does not fit.
//!
//! It takes the place of DataFusion's `sum`, under the same name and with the same result types,
//! and hands floats (see `float_aggregates`), durations and intervals on to it.
//!
//! ```text
//! argument            sum             state between partial and final aggregation
//! BIGINT and narrower BIGINT          DECIMAL(38, 0)
//! BIGINT UNSIGNED     ~ UNSIGNED      DECIMAL(38, 0)
//! DECIMAL(p, s)       DECIMAL(p+10,s) DECIMAL(38, s), as Decimal256 when p > 28
//! any, DISTINCT       as above        a list of the values
//! ```
//!
//! `wide_sum` is the same with the result DECIMAL(38, 0) for integers: the optimizer uses it where a
//! sum is not the result yet.
//!
//! - `accumulator`: one sum, also over sliding windows
//! - `distinct`: one sum of distinct values
//! - `groups`: a sum per group

mod accumulator;
mod distinct;
mod groups;

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type,
    Decimal128Type, Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::common::{ScalarValue, not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::count::count;
use datafusion::functions_aggregate::sum::{Sum, sum_udaf};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, GroupsAccumulator, Operator,
    ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs, Volatility, lit,
};

use accumulator::SumAccumulator;
pub(super) use accumulator::count_valid;
pub(super) use distinct::DistinctSum;
pub(super) use groups::GroupedSums;

use super::exact::{ExactSum, limits};
use super::float_aggregates::{
    gives_float, normalized_accumulator, normalized_groups, sliding_accumulator,
};
use super::integer_arguments::cast_argument;
use super::out_of_range::sum_out_of_range;

/// Digits of an argument from which on a partial sum may be wider than 128 bits: below, that takes
/// more than 10^10 of the largest values in one partial sum, which is an error then.
pub(crate) const WIDE_STATE_DIGITS: u8 = 28;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CheckedSum {
    datafusion: Sum,
    signature: Signature,
    /// Whether sums of integers are decimals.
    is_wide: bool,
}

impl Default for CheckedSum {
    fn default() -> Self {
        Self::new()
    }
}

impl CheckedSum {
    /// `sum`.
    pub fn new() -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { datafusion: Sum::default(), signature, is_wide: false }
    }

    /// `wide_sum`.
    pub(super) fn wide() -> Self {
        Self { is_wide: true, ..Self::new() }
    }
}

/// What one use of the function sums.
#[derive(Debug, Clone)]
pub(super) struct SumOf {
    /// As the user reads it.
    name: String,
    pub(super) argument: DataType,
    result: DataType,
}

impl SumOf {
    pub(super) fn new(args: &AccumulatorArgs<'_>) -> Result<Self> {
        let Some(argument) = args.expr_fields.first() else { return plan_err!("sum of nothing") };
        Ok(Self {
            name: args.name.to_owned(),
            argument: argument.data_type().clone(),
            result: args.return_field.data_type().clone(),
        })
    }

    /// The type of a partial sum.
    fn state(&self) -> DataType {
        state_type(&self.argument)
    }

    /// Bytes on the heap.
    pub(super) fn name_bytes(&self) -> usize {
        self.name.capacity()
    }

    /// A partial sum, NULL if it is of nothing.
    pub(super) fn state_scalar(&self, sum: ExactSum, is_empty: bool) -> Result<ScalarValue> {
        Ok(match self.state() {
            DataType::Decimal256(precision, scale) => {
                let sum = (!is_empty).then(|| sum.to_i256());
                ScalarValue::Decimal256(sum, precision, scale)
            }
            DataType::Decimal128(precision, scale) => {
                let sum = if is_empty { None } else { Some(self.partial(sum.value())?) };
                ScalarValue::Decimal128(sum, precision, scale)
            }
            other => return not_impl_err!("a partial sum as {other}"),
        })
    }

    /// A partial sum that must fit 128 bits.
    fn partial(&self, sum: Option<i128>) -> Result<i128> {
        sum.ok_or_else(|| sum_out_of_range(&self.name, sum, &self.result))
    }

    /// The result.
    fn scalar(&self, sum: ExactSum) -> Result<ScalarValue> {
        let value = self.checked(sum.value())?;
        // Checked: what is cut off here is the sign only.
        Ok(match &self.result {
            DataType::Int64 => ScalarValue::Int64(Some(value as i64)),
            DataType::UInt64 => ScalarValue::UInt64(Some(value as u64)),
            DataType::Decimal128(precision, scale) => {
                ScalarValue::Decimal128(Some(value), *precision, *scale)
            }
            other => return not_impl_err!("an exact sum as {other}"),
        })
    }

    /// The sum, if the result's type holds it.
    fn checked(&self, sum: Option<i128>) -> Result<i128> {
        let (min, max) = limits(&self.result);
        match sum {
            Some(value) if (min..=max).contains(&value) => Ok(value),
            other => Err(sum_out_of_range(&self.name, other, &self.result)),
        }
    }
}

/// The type of a partial sum of an argument.
pub(super) fn state_type(argument: &DataType) -> DataType {
    match argument {
        DataType::Decimal128(precision, scale) if *precision > WIDE_STATE_DIGITS => {
            DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)
        }
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
        _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    }
}

/// Whether sums of a type are ours.
fn is_exact(argument: &DataType) -> bool {
    use DataType as T;
    matches!(
        argument,
        T::Int64 | T::UInt64 | T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..)
    )
}

/// Evaluates an expression with `$type` as the Arrow type of an argument.
macro_rules! with_summand {
    ($argument:expr, $type:ident => $result:expr) => {
        match $argument {
            DataType::Int64 => {
                type $type = Int64Type;
                $result
            }
            DataType::UInt64 => {
                type $type = UInt64Type;
                $result
            }
            DataType::Decimal32(..) => {
                type $type = Decimal32Type;
                $result
            }
            DataType::Decimal64(..) => {
                type $type = Decimal64Type;
                $result
            }
            DataType::Decimal128(..) => {
                type $type = Decimal128Type;
                $result
            }
            other => not_impl_err!("an exact sum of {other}"),
        }
    };
}

fn argument_is_exact(fields: &[FieldRef]) -> bool {
    fields.first().is_some_and(|field| is_exact(field.data_type()))
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        if self.is_wide { "wide_sum" } else { self.datafusion.name() }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        cast_argument(types, &sum_udaf())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            // Narrow decimals are for storage; DataFusion would keep their width.
            [DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale)] => {
                let precision = DECIMAL128_MAX_PRECISION.min(precision + 10);
                Ok(DataType::Decimal128(precision, *scale))
            }
            [DataType::Int64 | DataType::UInt64] if self.is_wide => {
                Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
            }
            [_] => self.datafusion.return_type(types),
            _ => plan_err!("sum needs one argument"),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if gives_float(&args) {
            return Ok(normalized_accumulator(self.datafusion.accumulator(args)?));
        }
        if !argument_is_exact(args.expr_fields) {
            return self.datafusion.accumulator(args);
        }
        let sum = SumOf::new(&args)?;
        with_summand!(&sum.argument.clone(), T => Ok(match args.is_distinct {
            true => Box::new(DistinctSum::<T>::new(sum)) as Box<dyn Accumulator>,
            false => Box::new(SumAccumulator::<T>::new(sum)),
        }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        if gives_float(&args) && !args.is_distinct {
            return sliding_accumulator(&sum_udaf(), &args);
        }
        // Both of ours take values back, too.
        match argument_is_exact(args.expr_fields) {
            true => self.accumulator(args),
            false => self.datafusion.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(argument) = args.input_fields.first().map(|field| field.data_type()) else {
            return plan_err!("sum of nothing");
        };
        if !is_exact(argument) {
            return self.datafusion.state_fields(args);
        }
        let field = if args.is_distinct {
            let item = Field::new_list_field(argument.clone(), true);
            Field::new_list(format_state_name(args.name, "sum distinct"), item, false)
        } else {
            Field::new(format_state_name(args.name, "sum"), state_type(argument), true)
        };
        Ok(vec![Arc::new(field)])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        if gives_float(&args) {
            return Ok(normalized_groups(self.datafusion.create_groups_accumulator(args)?));
        }
        if !argument_is_exact(args.expr_fields) {
            return self.datafusion.create_groups_accumulator(args);
        }
        let sum = SumOf::new(&args)?;
        with_summand!(&sum.argument.clone(), T => Ok(Box::new(GroupedSums::<T>::new(sum))))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.datafusion.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.datafusion.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.datafusion.set_monotonicity(data_type)
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.datafusion.value_from_stats(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.datafusion.documentation()
    }

    /// `sum(x + 1)` as `sum(x) + 1 * count(x)`: DataFusion asks when several sums share their `x`.
    ///
    /// In decimals, because `sum(x)` may not fit where `sum(x + 1)` does.
    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        argument: &Expr,
        operator: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        let Some(value) = literal.as_literal() else { return Ok(None) };
        let result = value.data_type();
        match result {
            DataType::Int64 | DataType::UInt64 => {}
            // DataFusion would cast the count to the type of the literal, which is too small.
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => {
                return Ok(None);
            }
            _ => {
                let datafusion = &self.datafusion;
                return datafusion.simplify_expr_op_literal(
                    function,
                    argument,
                    operator,
                    literal,
                    argument_is_left,
                );
            }
        }
        if operator != Operator::Plus || value.is_null() || self.is_wide {
            return Ok(None);
        }
        let wide = DataType::Decimal128(DIGITS_OF_64_BITS, 0);
        let mut sum = function.clone();
        sum.func = Arc::new(AggregateUDF::new_from_impl(Self::wide()));
        sum.params.args = vec![argument.clone()];
        let rows = cast(count(argument.clone()), wide.clone());
        let added = lit(value.cast_to(&wide)?) * rows;
        Ok(Some(cast(Expr::AggregateFunction(sum) + added, result)))
    }
}

/// Digits of the largest integer of 64 bits.
pub(super) const DIGITS_OF_64_BITS: u8 = 20;

#[cfg(test)]
mod tests;
