//! Integer arithmetic and sums that never wrap: an overflow is an error (DESIGN.md, FAULTS A5 19).
//!
//! DataFusion wraps: `9223372036854775807 + 1` is negative there, at run time and when it folds
//! constants. Two things replace that, and every session, planning or running fragments, has both:
//!
//! ```text
//! analyzer      a + b  ->  checked_add(a, b)        integers only; before constants are folded
//!   optimizer     sum(a + 1), sum(a + 2)            left as they are, for DataFusion's rewrite
//!                                                   into one sum and one count (`sum`)
//! last rule     what the optimizer made or was left  ->  checked_...
//! ```
//!
//! - `operators`: the scalar functions, with `kernels` that check a batch at a time
//! - `rewrite`: the rules that put them into plans
//! - [`sum`](mod@sum): the aggregate, over `exact` sums that the order of rows cannot change; `average`: that of
//!   integers, over the same sums; `integer_arguments`: how both take them
//! - `two_steps`: one of DataFusion's rules, kept from overflowing on the way
//! - `second_step`: the last of two steps of sums and averages
//! - `extremes`: `min` and `max` of floats, that the order of rows cannot change either, and of
//!   intervals (`interval_extremes`)
//! - `floats`: one NaN and one zero, and `float_aggregates` that give them, also over frames that move (`sliding`,
//!   `sliding_sum`); `sliding_bool`: those of booleans
//! - `percentile`: `percentile_cont` with all its digits
//! - `filled`: which groups of an aggregate have a value
//!
//! Functions, not the flag of DataFusion's `BinaryExpr`: they travel to workers by name, in plans
//! and in the predicates of scans, where the flag is lost. Their columns keep the names of the
//! operators. Decimals are checked by Arrow itself; floats do not overflow. Not covered: arithmetic
//! of `INTERVAL`s.

mod average;
mod exact;
mod extremes;
mod filled;
mod float_aggregates;
mod floats;
mod integer_arguments;
mod interval_extremes;
mod kernels;
mod operators;
mod out_of_range;
mod percentile;
mod rewrite;
mod second_step;
mod sliding;
mod sliding_bool;
mod sliding_sum;
pub mod sum;
mod two_steps;

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::optimizer::Optimizer;

use average::ExactAverage;
use extremes::float_extremes;
pub(crate) use extremes::min_of_intervals;
pub(crate) use float_aggregates::state_bytes_of;
use float_aggregates::{float_aggregates, float_sum};
use floats::{NormalizeFloatsRule, normalize_function};
pub use floats::{normalize_float_rows, normalize_floats};
use operators::{CheckedArithmetic, Operation};
use rewrite::{CheckAll, CheckBeforeFolding, CheckConstants};
use second_step::second_steps;
pub(crate) use second_step::{AVERAGE_OF_SUM, BIGINT_OF_SUM};
use sliding_bool::bool_aggregates;
use sum::CheckedSum;
pub(crate) use sum::WIDE_STATE_DIGITS as DIGITS_OF_EXACT_SUMS;
use two_steps::{TWO_STEPS, WideFirstStep};

/// Gives a session the functions. A fragment's plan names them, so workers need them too.
pub fn with_checked_functions(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let scalars = builder.scalar_functions().get_or_insert_default();
    scalars
        .extend(Operation::ALL.map(|operation| {
            Arc::new(ScalarUDF::new_from_impl(CheckedArithmetic::new(operation)))
        }));
    scalars.extend(second_steps());
    // The last of a name counts.
    let sums = [CheckedSum::new(), CheckedSum::wide()];
    let sums = sums.map(|sum| Arc::new(AggregateUDF::new_from_impl(sum)));
    let aggregates = builder.aggregate_functions().get_or_insert_default();
    aggregates.extend(sums);
    with_sound_float_functions(builder)
}

/// Gives a session extremes of floats and averages of integers that do not depend on the order of rows, aggregates
/// that give one NaN and one zero, and the function that does so for expressions.
fn with_sound_float_functions(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    builder.scalar_functions().get_or_insert_default().push(normalize_function());
    let aggregates = builder.aggregate_functions().get_or_insert_default();
    aggregates.extend(float_extremes());
    aggregates.extend(float_aggregates());
    aggregates.extend(bool_aggregates());
    aggregates.push(Arc::new(AggregateUDF::new_from_impl(ExactAverage::new())));
    builder
}

/// Gives a session that plans what makes the answers of DataFusion's floats sound, and else nothing:
/// for those who compare with it.
pub fn with_sound_floats(builder: SessionStateBuilder) -> SessionStateBuilder {
    let mut builder = with_sound_float_functions(builder);
    builder.aggregate_functions().get_or_insert_default().push(float_sum());
    builder.with_analyzer_rule(Arc::new(NormalizeFloatsRule))
}

/// Gives a session that plans the functions and the rules that use them, beside DataFusion's own.
pub fn with_checked_arithmetic(builder: SessionStateBuilder) -> SessionStateBuilder {
    let mut builder = with_checked_functions(builder);
    for rule in &mut builder.optimizer().get_or_insert_with(Optimizer::new).rules {
        if rule.name() == TWO_STEPS {
            *rule = Arc::new(WideFirstStep(Arc::clone(rule)));
        }
    }
    let planners = builder.expr_planners().get_or_insert_default();
    planners.insert(0, Arc::new(CheckConstants));
    builder
        .with_analyzer_rule(Arc::new(CheckBeforeFolding))
        .with_analyzer_rule(Arc::new(NormalizeFloatsRule))
        .with_optimizer_rule(Arc::new(CheckAll))
}

#[cfg(test)]
mod tests;
