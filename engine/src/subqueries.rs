//! Subqueries in distributed plans, where each becomes a join.
//!
//! - `rows`: rows of several values, compared to those of a subquery
//! - `single_row`: a second row is an error, not a second answer
//! - `not_in`: `NOT IN` of a constant
//! - `outer_types`: a column of the query around has the type that it has there
//! - `positions`: a subquery may stand wherever an expression may, in ORDER BY or below an aggregate
//! - `unnest`: subqueries of any shape that take columns from the query around them

mod not_in;
mod outer_types;
mod positions;
mod rows;
mod single_row;
mod unnest;

pub(crate) use not_in::NotInOtherWords;
pub(crate) use outer_types::OuterTypes;
pub(crate) use positions::ProjectScalarSubqueries;
pub(crate) use rows::{ANY, COMPARE_ROWS, RowComparisons, compare_rows};
pub(crate) use single_row::{GuardScalarSubqueries, single_row};
pub(crate) use unnest::{UnnestSubqueries, outer_columns, subquery_of};
