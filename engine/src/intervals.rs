//! Intervals are compared by how long they are.
//!
//! An interval is months, days and nanoseconds. DataFusion compares the three one after the other, so
//! that 24 hours are less than a day, and the difference of two timestamps is less than any day
//! (`sql-tests/upstream/order-of-intervals.md`). In SQL, as PostgreSQL and DuckDB have it, a month is 30
//! days and a day 24 hours wherever intervals are compared, and nowhere else: `DATE '2020-01-31' +
//! INTERVAL '1 month'` is another day than 30 days later.
//!
//! ```text
//! i = j, i < j, BETWEEN, IN, CASE i WHEN j   the operands pass a function (`justified`)
//! ORDER BY, PARTITION BY, join keys          so do the keys
//! GROUP BY, DISTINCT                         the key is grouped by what the function gives; what is
//!                                            shown is the least interval of the group (`groups`)
//! min, max                                   compare likewise (`arithmetic::interval_extremes`)
//! greatest, least, nullif                    are replaced (`rows`)
//! ```
//!
//! Invariant: no operator of a plan compares or hashes the three numbers of an interval but those that
//! the function gives, of which equal intervals have the same. Intervals inside of lists and structs
//! are refused where they would be compared.
//!
//! `correlated`: what subqueries compare with rows outside; `operators`: what is multiplied by numbers
//! and added to dates.

mod correlated;
mod groups;
mod justified;
mod operators;
mod rows;
mod rule;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::not_impl_err;
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;

pub(crate) use justified::{nanoseconds, to_months_days_nanos};
pub(crate) use operators::IntervalOperators;
pub(crate) use rule::ComparedIntervals;

/// The functions that plans may name.
pub(crate) fn interval_functions() -> [Arc<ScalarUDF>; 5] {
    [
        justified::function(),
        rows::greatest(),
        rows::least(),
        operators::multiply(),
        operators::divide(),
    ]
}

/// Whether values of a type are intervals.
///
/// # Errors
/// They are something that has intervals inside, which nothing here compares.
fn is_compared_by_length(data_type: &DataType) -> Result<bool> {
    match data_type {
        DataType::Interval(_) => Ok(true),
        other if has_interval(other) => {
            not_impl_err!("comparing intervals inside of lists, structs and maps is not supported")
        }
        _ => Ok(false),
    }
}

/// Whether a type is that of intervals or has some inside.
fn has_interval(data_type: &DataType) -> bool {
    use DataType as T;
    match data_type {
        T::Interval(_) => true,
        T::List(item)
        | T::LargeList(item)
        | T::ListView(item)
        | T::LargeListView(item)
        | T::FixedSizeList(item, _)
        | T::Map(item, _) => has_interval(item.data_type()),
        T::Struct(fields) => fields.iter().any(|field| has_interval(field.data_type())),
        T::Dictionary(_, value) => has_interval(value),
        T::RunEndEncoded(_, value) => has_interval(value.data_type()),
        _ => false,
    }
}
