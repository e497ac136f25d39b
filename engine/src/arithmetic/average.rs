//! `avg` over integers: the exact sum by the number of values, whatever the order of rows.
//!
//! DataFusion adds up DOUBLEs, so that what is left where large integers cancel each other out depends on
//! the order. This takes the place of its `avg`, under the same name and with the same result types, and
//! hands what is not an integer on to it (see `float_aggregates`).
//!
//! ```text
//! argument              avg     state between partial and final aggregation
//! BIGINT and narrower   DOUBLE  the number of values, their sum as DECIMAL(38, 0)
//! any UNSIGNED          DOUBLE  the same
//! an integer, DISTINCT  DOUBLE  a list of the values
//! ```
//!
//! The result is the DOUBLE nearest to the quotient.
//!
//! - `accumulator`: one average, also over sliding windows and of distinct values
//! - `groups`: an average per group
//! - `quotient`: the division

mod accumulator;
mod groups;
mod quotient;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, Volatility,
};

use accumulator::{AverageAccumulator, DistinctAverage};
use groups::GroupedAverages;
pub(super) use quotient::quotient;

use super::float_aggregates::float_average;
use super::integer_arguments::cast_argument;
use super::sum::{DistinctSum, GroupedSums, SumOf, state_type};

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExactAverage {
    /// Of what is not an integer.
    other: Arc<AggregateUDF>,
    signature: Signature,
}

impl ExactAverage {
    pub(super) fn new() -> Self {
        let other = float_average();
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { other, signature }
    }
}

/// Whether averages of an argument are ours.
fn of_integers(fields: &[FieldRef]) -> bool {
    matches!(fields, [field] if matches!(field.data_type(), DataType::Int64 | DataType::UInt64))
}

/// Evaluates an expression with `$type` as the Arrow type of an integer.
macro_rules! with_integer {
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
            other => not_impl_err!("an exact average of {other}"),
        }
    };
}

impl AggregateUDFImpl for ExactAverage {
    fn name(&self) -> &str {
        self.other.name()
    }

    fn aliases(&self) -> &[String] {
        self.other.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        cast_argument(types, &self.other)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.other.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if !of_integers(args.expr_fields) {
            return self.other.accumulator(args);
        }
        let sum = SumOf::new(&args)?;
        with_integer!(&sum.argument.clone(), T => Ok(match args.is_distinct {
            true => {
                Box::new(DistinctAverage::new(DistinctSum::<T>::new(sum))) as Box<dyn Accumulator>
            }
            false => Box::new(AverageAccumulator::<T>::new(sum)),
        }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        // Ours take values back.
        match of_integers(args.expr_fields) {
            true => self.accumulator(args),
            false => self.other.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let [argument] = args.input_fields else { return plan_err!("avg needs one argument") };
        if !of_integers(args.input_fields) {
            return self.other.state_fields(args);
        }
        let name = |part| format_state_name(args.name, part);
        let argument = argument.data_type();
        let fields = if args.is_distinct {
            let item = Field::new_list_field(argument.clone(), true);
            vec![Field::new_list(name("avg distinct"), item, false)]
        } else {
            vec![
                Field::new(name("count"), DataType::UInt64, true),
                Field::new(name("sum"), state_type(argument), true),
            ]
        };
        Ok(fields.into_iter().map(Arc::new).collect())
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match of_integers(args.expr_fields) {
            true => !args.is_distinct,
            false => self.other.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        if !of_integers(args.expr_fields) {
            return self.other.create_groups_accumulator(args);
        }
        let sum = SumOf::new(&args)?;
        with_integer!(&sum.argument.clone(), T => {
            Ok(Box::new(GroupedAverages::new(GroupedSums::<T>::new(sum))))
        })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.other.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.other.reverse_udf()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.other.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.other.documentation()
    }
}
