//! Scalar subqueries in distributed plans, where each becomes a join.
//!
//! - `single_row`: a second row is an error, not a second answer
//! - `positions`: a subquery may stand wherever an expression may, in ORDER BY or below an aggregate

mod positions;
mod single_row;

pub(crate) use positions::ProjectScalarSubqueries;
pub(crate) use single_row::{GuardScalarSubqueries, single_row};
