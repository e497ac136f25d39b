//! Aggregates of floats that give one NaN and one zero, and the same over frames that move.
//!
//! They are DataFusion's, but for what comes out of them (see `floats`) and for rows that leave a frame
//! (see `sliding`).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator,
    ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::floats::{normalize_floats, normalize_scalar};
use super::percentile::{
    PERCENTILE_CONT, PercentileArguments, percentile_accumulator, percentile_groups,
};
use super::sliding::{MakeAccumulator, Sliding};
use super::sliding_sum::{SlidingSum, Total};

/// The aggregates that compute with floats; `sum` and `avg` are in their own modules.
pub(super) const FLOAT_AGGREGATES: [&str; 23] = [
    "sum",
    "avg",
    "median",
    "percentile_cont",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
];

/// Those that take back what leaves a frame by subtraction.
const SUBTRACTING: [&str; 16] = [
    "avg",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "regr_avgx",
    "regr_avgy",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
];

/// The functions, in the place of DataFusion's.
pub(super) fn float_aggregates() -> impl Iterator<Item = Arc<AggregateUDF>> {
    let is_ours = |function: &Arc<AggregateUDF>| {
        !["sum", "avg"].contains(&function.name()) && FLOAT_AGGREGATES.contains(&function.name())
    };
    let plain = all_default_aggregate_functions().into_iter().filter(is_ours);
    plain.map(|inner| Arc::new(AggregateUDF::new_from_impl(FloatAggregate { inner })))
}

/// `sum` of DataFusion's, but for floats.
pub(super) fn float_sum() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(FloatAggregate { inner: sum_udaf() }))
}

/// `avg` of DataFusion's, of what is no integer.
pub(super) fn float_average() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(FloatAggregate { inner: avg_udaf() }))
}

/// An accumulator that gives one NaN and one zero.
pub(super) fn normalized_accumulator(inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
    Box::new(NormalizedAccumulator { inner })
}

/// A groups accumulator that gives one NaN and one zero.
pub(super) fn normalized_groups(inner: Box<dyn GroupsAccumulator>) -> Box<dyn GroupsAccumulator> {
    Box::new(NormalizedGroups { inner })
}

/// Bytes that an accumulator for frames that move keeps for each row, at most: two numbers and the row
/// itself, or six values and a copy of the arguments with all that Arrow puts around them.
pub(crate) fn state_bytes_of(function: &str) -> usize {
    match function {
        "sum" | "avg" => 48,
        _ => 1_024,
    }
}

/// An accumulator for frames that move.
pub(super) fn sliding_accumulator(
    function: &Arc<AggregateUDF>,
    arguments: &AccumulatorArgs<'_>,
) -> Result<Box<dyn Accumulator>> {
    let of_doubles = matches!(arguments.expr_fields, [f] if *f.data_type() == DataType::Float64);
    let sliding: Box<dyn Accumulator> = match function.name() {
        "sum" if of_doubles => Box::new(SlidingSum::new(Total::Sum)),
        "avg" if of_doubles => Box::new(SlidingSum::new(Total::Average)),
        _ => Box::new(Sliding::new(OwnedUse::new(function, arguments))?),
    };
    Ok(normalized_accumulator(sliding))
}

/// A use of an aggregate, kept to make accumulators of it later.
#[derive(Debug)]
struct OwnedUse {
    function: Arc<AggregateUDF>,
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl OwnedUse {
    fn new(function: &Arc<AggregateUDF>, arguments: &AccumulatorArgs<'_>) -> Self {
        Self {
            function: Arc::clone(function),
            return_field: Arc::clone(&arguments.return_field),
            schema: arguments.schema.clone(),
            ignore_nulls: arguments.ignore_nulls,
            order_bys: arguments.order_bys.to_vec(),
            is_reversed: arguments.is_reversed,
            name: arguments.name.to_owned(),
            is_distinct: arguments.is_distinct,
            exprs: arguments.exprs.to_vec(),
            expr_fields: arguments.expr_fields.to_vec(),
        }
    }
}

impl MakeAccumulator for OwnedUse {
    fn make(&self) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })
    }
}

/// One of DataFusion's functions.
struct FloatAggregate {
    inner: Arc<AggregateUDF>,
}

impl fmt::Debug for FloatAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FloatAggregate").field(&self.inner.name()).finish()
    }
}

impl PartialEq for FloatAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.inner.name() == other.inner.name()
    }
}

impl Eq for FloatAggregate {}

impl Hash for FloatAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.name().hash(state);
    }
}

/// An accumulator of DataFusion's, with what comes out of it as it should be.
fn finished(
    inner: Box<dyn Accumulator>,
    percentile: Option<PercentileArguments>,
) -> Box<dyn Accumulator> {
    normalized_accumulator(match percentile {
        Some(percentile) => percentile_accumulator(inner, &percentile),
        None => inner,
    })
}

impl FloatAggregate {
    /// What a use of `percentile_cont` says; none of other functions.
    fn percentile(&self, arguments: &AccumulatorArgs<'_>) -> Result<Option<PercentileArguments>> {
        match self.inner.name() == PERCENTILE_CONT {
            true => PercentileArguments::of(arguments),
            false => Ok(None),
        }
    }
}

/// Whether a use of an aggregate gives floats.
pub(super) fn gives_float(arguments: &AccumulatorArgs<'_>) -> bool {
    arguments.return_field.data_type().is_floating()
}

impl AggregateUDFImpl for FloatAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let percentile = self.percentile(&arguments)?;
        match gives_float(&arguments) {
            true => Ok(finished(self.inner.accumulator(arguments)?, percentile)),
            false => self.inner.accumulator(arguments),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let percentile = self.percentile(&arguments)?;
        match gives_float(&arguments) {
            true => {
                let groups = self.inner.create_groups_accumulator(arguments)?;
                Ok(normalized_groups(match percentile {
                    Some(percentile) => percentile_groups(groups, &percentile),
                    None => groups,
                }))
            }
            false => self.inner.create_groups_accumulator(arguments),
        }
    }

    fn create_sliding_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        // The others keep their values, or have no sliding form at all.
        let subtracts = SUBTRACTING.contains(&self.name()) && !arguments.is_distinct;
        let percentile = self.percentile(&arguments)?;
        match gives_float(&arguments) {
            true if subtracts => sliding_accumulator(&self.inner, &arguments),
            true => Ok(finished(self.inner.create_sliding_accumulator(arguments)?, percentile)),
            false => self.inner.create_sliding_accumulator(arguments),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_udf()
    }

    fn value_from_stats(&self, arguments: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.inner.value_from_stats(arguments)
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        // It makes DataFusion's own `min` of it, which takes a NaN for anything.
        let is_percentile = self.name() == PERCENTILE_CONT;
        if is_percentile { None } else { self.inner.simplify() }
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

#[derive(Debug)]
struct NormalizedAccumulator {
    inner: Box<dyn Accumulator>,
}

impl Accumulator for NormalizedAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate().map(normalize_scalar)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

struct NormalizedGroups {
    inner: Box<dyn GroupsAccumulator>,
}

impl GroupsAccumulator for NormalizedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, groups, filter, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.inner.evaluate(emit_to).map(normalize_floats)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        total_groups: usize,
    ) -> Result<()> {
        self.inner.merge_batch(values, groups, total_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
