//! Queries from seeds.
//!
//! - `expressions`: typed expressions over a scope
//! - `aggregates`: aggregates and windows
//! - `relations`: tables, derived tables, common table expressions, joins
//! - `selects`: SELECTs of each kind, set operations, whole queries
//! - `wide`: what only DuckDB can check
//!
//! Invariant: the rows of a query are defined by SQL. A LIMIT is under a total order, so is a
//! window that depends on order, sums of floats are exact (`data`), nothing divides by zero, and
//! casts that may fail are TRY_CASTs. What is not generated, and why:
//!
//! - random(), now(), LIMIT without an order, approximate aggregates: not defined
//! - scalar subqueries that are no aggregates: an error when they have two rows
//! - INTERSECT ALL and EXCEPT ALL: refused, DataFusion counts duplicates wrongly (README)
//! - order of intervals, but for DuckDB: not defined between months and days in DataFusion

mod aggregates;
mod expressions;
mod relations;
mod selects;
mod wide;

use super::ast::{Query, Select};
use super::data::Table;
use super::random::Random;
use super::scope::Output;

/// Subqueries that one query may have inside expressions.
const SUBQUERIES_MAX: u32 = 2;

/// Makes one query.
pub(super) struct Generator<'a> {
    random: Random,
    tables: &'a [Table],
    /// Common table expressions that may be named, with what they yield.
    ctes: Vec<(String, Output)>,
    /// Names given so far: each is given once in a query.
    names: u32,
    /// Subqueries that expressions may still have.
    subqueries: u32,
    /// Whether a WHERE is made: DataFusion plans EXISTS and IN (SELECT ...) hardly anywhere else.
    is_filter: bool,
    /// Whether it is made for DuckDB, with what no other oracle can check.
    is_wide: bool,
}

impl<'a> Generator<'a> {
    fn new(seed: u64, tables: &'a [Table]) -> Self {
        let (random, ctes, subqueries) = (Random::new(seed), Vec::new(), SUBQUERIES_MAX);
        Self { random, tables, ctes, names: 0, subqueries, is_filter: false, is_wide: false }
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// Runs `make` where expressions may have no subqueries.
    fn without_subqueries<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> T {
        let left = std::mem::take(&mut self.subqueries);
        let made = make(self);
        self.subqueries = left;
        made
    }
}

/// The query of a seed.
pub fn query(seed: u64, tables: &[Table]) -> Query {
    Generator::new(seed, tables).whole_query()
}

/// The query of a seed for DuckDB.
pub fn wide_query(seed: u64, tables: &[Table]) -> Query {
    Generator { is_wide: true, ..Generator::new(seed, tables) }.whole_query()
}

/// The query of a seed whose WHERE or HAVING has the predicate of ternary logic partitioning.
pub fn partitioned_query(seed: u64, tables: &[Table]) -> Query {
    Query::select(Generator::new(seed, tables).partitioned())
}

/// The query of a seed whose WHERE has the predicate of NoREC.
pub fn counted_query(seed: u64, tables: &[Table]) -> Query {
    let mut generator = Generator::new(seed, tables);
    let (from, scope) = generator.relation(2);
    let filter = Some(generator.predicate(&scope, 3));
    Query::select(Select { from: Some(from), filter, ..Select::default() })
}
