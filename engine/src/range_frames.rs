//! Frames by RANGE whose distances fit.
//!
//! `RANGE BETWEEN 5 PRECEDING AND 5 FOLLOWING` is about `x - 5` and `x + 5`. DataFusion computes both in the
//! type of `x`: where the type cannot hold the result the frame ends with the partition, NULLs and all,
//! and where it cannot hold the distance there is no bound at all
//! (`sql-tests/upstream/frames-at-the-ends-of-types.md`). So the key is cast to a type in which no value
//! and distance are too much for one another:
//!
//! | ORDER BY | becomes |
//! |---|---|
//! | integers of up to 32 bits | BIGINT, if the distances are whole and have at most 18 digits |
//! | integers | DECIMAL of 38 digits |
//! | decimals | DECIMAL of 38 digits, or of 76 |
//! | floats | DOUBLE |
//! | DATE, with distances of less than a day | TIMESTAMP |
//! | TIMESTAMP(0) and the like, with finer distances | a finer TIMESTAMP |
//!
//! What has no distances, such as text, is refused. Before types are coerced.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Window, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use crate::intervals::nanoseconds;

/// Digits of any 64-bit integer.
const DIGITS_OF_64_BITS: u8 = 20;

/// Digits of a whole distance that a BIGINT holds beside any 32-bit integer.
const DIGITS_IN_64_BITS: u8 = 18;

/// Digits of the two types of decimals.
const DIGITS_MAX: [u8; 2] = [38, 76];

/// Gives keys of frames the room for their distances.
#[derive(Debug, Default)]
pub(crate) struct RangeFrames;

impl AnalyzerRule for RangeFrames {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Window(window) => with_wide_keys(window, config),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "range_frames"
    }
}

/// All windows of a node have one order, so those with another key are nodes of their own.
fn with_wide_keys(window: Window, config: &ConfigOptions) -> Result<Transformed<LogicalPlan>> {
    if !window.window_expr.iter().any(has_distances) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    // A column of a UNION or CASE may have another type once types are coerced. What cannot be coerced is
    // said by the rule that does it.
    let input = window.input.as_ref().clone();
    let schema = match TypeCoercion::new().analyze(input, config) {
        Ok(coerced) => Arc::clone(coerced.schema()),
        Err(_) => Arc::clone(window.input.schema()),
    };
    let plan = LogicalPlan::Window(window);
    let names = NamePreserver::new(&plan);
    let LogicalPlan::Window(window) = plan else { return Ok(Transformed::no(plan)) };
    let mut is_changed = false;
    let mut by_key: Vec<(Option<DataType>, Vec<Expr>)> = Vec::new();
    for expr in &window.window_expr {
        let name = names.save(expr);
        let mut key = None;
        let expr = expr.clone().transform_up(|mut expr| {
            if let Expr::WindowFunction(call) = &mut expr {
                key = wide_key(&mut call.params, &schema)?;
            }
            Ok(Transformed::new_transformed(expr, key.is_some()))
        })?;
        is_changed |= key.is_some();
        let expr = name.restore(expr.data);
        match by_key.iter_mut().find(|(other, _)| *other == key) {
            Some((_, exprs)) => exprs.push(expr),
            None => by_key.push((key, vec![expr])),
        }
    }
    if !is_changed {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let mut plan = Arc::unwrap_or_clone(window.input);
    for (_, exprs) in by_key {
        plan = LogicalPlan::Window(Window::try_new(exprs, Arc::new(plan))?);
    }
    Ok(Transformed::yes(plan))
}

fn has_distances(expr: &Expr) -> bool {
    // The closure never fails.
    let is_range = |part: &Expr| matches!(part, Expr::WindowFunction(call) if !distances_of(&call.params.window_frame).is_empty());
    expr.exists(|part| Ok(is_range(part))).unwrap_or(false)
}

/// Casts the key of a frame with distances. Returns the type, if it is another.
fn wide_key(params: &mut WindowFunctionParams, schema: &DFSchema) -> Result<Option<DataType>> {
    let distances = distances_of(&params.window_frame);
    let [key] = params.order_by.as_mut_slice() else { return Ok(None) };
    if distances.is_empty() {
        return Ok(None);
    }
    let data_type = key.expr.get_type(schema)?;
    let wide = wide_type(&data_type, &distances)?.filter(|wide| *wide != data_type);
    if let Some(wide) = &wide {
        key.expr = cast(std::mem::take(&mut key.expr), wide.clone());
    }
    Ok(wide)
}

/// The distances of a frame by RANGE, as they were written.
fn distances_of(frame: &WindowFrame) -> Vec<String> {
    use WindowFrameBound as B;
    if frame.units != WindowFrameUnits::Range {
        return Vec::new();
    }
    let bounds = [&frame.start_bound, &frame.end_bound].into_iter();
    let distance = |bound: &B| match bound {
        B::Preceding(value) | B::Following(value) if !value.is_null() => Some(value.to_string()),
        _ => None,
    };
    bounds.filter_map(distance).collect()
}

/// The type that a key is to have; `None` if its own will do.
fn wide_type(key: &DataType, distances: &[String]) -> Result<Option<DataType>> {
    use DataType as T;
    Ok(match key {
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 | T::UInt32 => {
            let digits = Digits::of(distances)?;
            match digits.after == 0 && digits.before <= DIGITS_IN_64_BITS {
                true => Some(T::Int64),
                false => Some(digits.beside(DIGITS_OF_64_BITS, 0)?),
            }
        }
        T::Int64 | T::UInt64 => Some(Digits::of(distances)?.beside(DIGITS_OF_64_BITS, 0)?),
        T::Decimal32(precision, scale)
        | T::Decimal64(precision, scale)
        | T::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).unwrap_or_default();
            let before = precision.saturating_sub(scale);
            Some(Digits::of(distances)?.beside(before, scale)?)
        }
        T::Float16 | T::Float32 | T::Float64 => {
            for distance in distances {
                if !distance.parse::<f64>().is_ok_and(|distance| distance >= 0.0) {
                    return plan_err!("{distance} is not a distance of RANGE over floats");
                }
            }
            Some(T::Float64)
        }
        T::Decimal256(..) | T::Null => None,
        T::Date32 | T::Date64 => finest_unit(distances)?.map(|unit| T::Timestamp(unit, None)),
        T::Timestamp(unit, zone) => finest_unit(distances)?
            .filter(|finer| finer > unit)
            .map(|finer| T::Timestamp(finer, zone.clone())),
        other => {
            return plan_err!(
                "RANGE with a distance needs ORDER BY a number, a DATE or a TIMESTAMP, not {other}"
            );
        }
    })
}

/// The unit that holds the parts of a day that distances have, if any has one.
fn finest_unit(distances: &[String]) -> Result<Option<TimeUnit>> {
    let mut finest = None;
    for distance in distances {
        finest = finest.max(unit_of(distance)?);
    }
    Ok(finest)
}

fn unit_of(distance: &str) -> Result<Option<TimeUnit>> {
    let is_number = distance.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
    let interval = ScalarValue::from(distance).cast_to(&interval);
    let Ok(ScalarValue::IntervalMonthDayNano(Some(interval))) = interval else {
        return plan_err!("RANGE over times needs an INTERVAL as its distance, not {distance}");
    };
    if is_number {
        return plan_err!("RANGE over times needs an INTERVAL with a unit as its distance");
    }
    if nanoseconds(interval) < 0 {
        return plan_err!("a distance of RANGE is less than nothing: {distance}");
    }
    Ok(match interval.nanoseconds {
        0 => None,
        part if part % 1_000_000_000 == 0 => Some(TimeUnit::Second),
        part if part % 1_000_000 == 0 => Some(TimeUnit::Millisecond),
        part if part % 1_000 == 0 => Some(TimeUnit::Microsecond),
        _ => Some(TimeUnit::Nanosecond),
    })
}

/// Digits before and after the point.
#[derive(Debug, Clone, Copy)]
struct Digits {
    before: u8,
    after: u8,
}

impl Digits {
    /// The most that any of the distances has.
    fn of(distances: &[String]) -> Result<Self> {
        let mut digits = Self { before: 0, after: 0 };
        for distance in distances {
            let (before, after) = distance.split_once('.').unwrap_or((distance, ""));
            let is_plain = before.bytes().chain(after.bytes()).all(|byte| byte.is_ascii_digit());
            let (Ok(before), Ok(after), true) =
                (u8::try_from(before.len()), u8::try_from(after.len()), is_plain)
            else {
                return plan_err!("{distance} is not a distance of RANGE over exact numbers");
            };
            digits.before = digits.before.max(before);
            digits.after = digits.after.max(after);
        }
        Ok(digits)
    }

    /// A decimal that holds values with so many digits, the distances, and both together.
    fn beside(self, before: u8, after: u8) -> Result<DataType> {
        let after = self.after.max(after);
        let digits = self.before.max(before).saturating_add(1).saturating_add(after);
        let scale = i8::try_from(after).unwrap_or(i8::MAX);
        match DIGITS_MAX.into_iter().find(|most| digits <= *most) {
            Some(38) => Ok(DataType::Decimal128(38, scale)),
            Some(most) => Ok(DataType::Decimal256(most, scale)),
            None => plan_err!("a distance of RANGE has more digits than a DECIMAL can have"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_room_for_their_distances() {
        use DataType as T;
        let wide = |key: &T, distance: &str| wide_type(key, &[distance.to_owned()]);
        for (key, distance, expected) in [
            (T::Int16, "40000", Some(T::Int64)),
            (T::UInt32, "1.5", Some(T::Decimal128(38, 1))),
            (T::Int32, "10000000000000000000", Some(T::Decimal128(38, 0))),
            (T::Int64, "1", Some(T::Decimal128(38, 0))),
            (T::Int64, "10000000000000000000000000000000000000000", Some(T::Decimal256(76, 0))),
            (T::Decimal128(10, 2), "0.125", Some(T::Decimal128(38, 3))),
            (T::Decimal128(38, 10), "1", Some(T::Decimal256(76, 10))),
            (T::Float32, "1e9", Some(T::Float64)),
            (T::Float64, "1", Some(T::Float64)),
            (T::Date32, "1 day", None),
            (T::Date32, "36 hours", Some(T::Timestamp(TimeUnit::Second, None))),
            (T::Timestamp(TimeUnit::Second, None), "2 hours", None),
            (
                T::Timestamp(TimeUnit::Second, None),
                "1.5 seconds",
                Some(T::Timestamp(TimeUnit::Millisecond, None)),
            ),
            (T::Timestamp(TimeUnit::Nanosecond, None), "36 hours", None),
        ] {
            assert_eq!(wide(&key, distance).unwrap(), expected, "{key} and {distance}");
        }
        for (key, distance) in [
            (T::Utf8View, "1"),
            (T::Boolean, "1"),
            (T::Int64, "1e3"),
            (T::Date32, "5"),
            (T::Date32, "-1 day"),
            (T::Float64, "-1"),
        ] {
            assert!(wide(&key, distance).is_err(), "{key} and {distance}");
        }
    }
}
