//! How large a query becomes once its WITH clauses are written out.
//!
//! The planner copies the plan of a WITH clause to every place that names it, so that twenty
//! clauses of two references each make a million relations out of a few lines. The length of the
//! text bounds nothing there; this does, before anything is planned.
//!
//! Invariant: counting takes one walk over the tree, and never overflows.
//!
//! Not here: views, whose plans are measured when they are made (`plan_size`).

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, ObjectName, ObjectNamePart, Query, Select, SelectItem, Visit, Visitor,
};

use super::names;
use super::syntax::position_of;
use crate::error::{ErrorCode, SqlError};

/// SELECTs and relations of a query with its WITH clauses written out: some hundred times what
/// people write, and planned in seconds.
const PARTS_MAX: u64 = 2_000;

/// Relations in one FROM clause: planning *n* of them takes time and memory in the order of *n*
/// squared.
const JOINED_MAX: usize = 200;

/// Wildcards in one SELECT list: each becomes as many expressions as its relations have columns.
const WILDCARDS_MAX: usize = 100;

/// Subqueries inside subqueries' expressions: each level doubles the time of planning, and twenty of
/// scalar ones take a minute. Those of views are counted in plans (`plan_size`).
const SUBQUERY_DEPTH_MAX: usize = crate::plan_size::SUBQUERY_DEPTH_MAX;

/// Sets that one GROUP BY makes: CUBE of twelve columns. All rows are grouped once for each.
const GROUPING_SETS_MAX: u64 = 4_096;

/// What helps against each of these limits.
const HINT: &str = "split it into several statements, with tables for what comes in between";

/// Refuses a query that would be too large to plan.
pub(super) fn check(query: &Query) -> Result<(), SqlError> {
    match query.visit(&mut Size::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Walks a query, with one [`Scope`] for each query that the walk is inside of.
#[derive(Default)]
struct Size {
    scopes: Vec<Scope>,
    /// Subqueries of expressions that the walk is inside of.
    subquery_depth: usize,
}

#[derive(Default)]
struct Scope {
    /// The WITH clauses not visited yet, the next one last: they are visited in order.
    pending: Vec<String>,
    /// What each visited clause is worth, and so every reference to it.
    clauses: HashMap<String, u64>,
    /// What the query is worth so far.
    parts: u64,
}

impl Size {
    /// What a reference to a relation is worth: a WITH clause as much as its query.
    fn reference(&self, relation: &ObjectName) -> u64 {
        let [ObjectNamePart::Identifier(ident)] = relation.0.as_slice() else { return 1 };
        let Ok(name) = names::normalize(ident) else { return 1 };
        self.scopes.iter().rev().find_map(|scope| scope.clauses.get(&name)).copied().unwrap_or(1)
    }

    /// Counts parts of the innermost query.
    fn add(&mut self, parts: u64) -> ControlFlow<Box<SqlError>> {
        let Some(scope) = self.scopes.last_mut() else { return ControlFlow::Continue(()) };
        scope.parts = scope.parts.saturating_add(parts);
        if scope.parts <= PARTS_MAX {
            return ControlFlow::Continue(());
        }
        refuse(format!(
            "the query has more than {PARTS_MAX} SELECTs and relations, WITH clauses written out"
        ))
    }
}

impl Visitor for Size {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let clauses = query.with.iter().flat_map(|with| &with.cte_tables);
        let names = clauses.map(|clause| names::normalize(&clause.alias.name).unwrap_or_default());
        let pending = names.rev().collect();
        self.scopes.push(Scope { pending, ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<Self::Break> {
        let Some(ended) = self.scopes.pop() else { return ControlFlow::Continue(()) };
        let Some(outer) = self.scopes.last_mut() else { return ControlFlow::Continue(()) };
        // WITH comes before everything else of its query: the first queries are its clauses.
        match outer.pending.pop() {
            Some(name) => {
                outer.clauses.insert(name, ended.parts.max(1));
                ControlFlow::Continue(())
            }
            None => self.add(ended.parts),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Self::Break> {
        let parts = self.reference(relation);
        self.add(parts)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        let joined: usize = select.from.iter().map(|table| 1 + table.joins.len()).sum();
        if joined > JOINED_MAX {
            return refuse_at(
                select,
                format!("{joined} relations in one FROM clause: at most {JOINED_MAX} are allowed"),
            );
        }
        let is_wildcard = |item: &&SelectItem| {
            matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
        };
        let wildcards = select.projection.iter().filter(is_wildcard).count();
        if wildcards > WILDCARDS_MAX {
            return refuse_at(
                select,
                format!(
                    "{wildcards} wildcards in one SELECT list: at most {WILDCARDS_MAX} are allowed"
                ),
            );
        }
        let sets = grouping_sets(&select.group_by);
        if sets > GROUPING_SETS_MAX {
            return refuse_at(
                select,
                format!("GROUP BY makes {sets} sets: at most {GROUPING_SETS_MAX} are allowed"),
            );
        }
        self.add(1)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.subquery_depth += usize::from(is_subquery(expr));
        if self.subquery_depth > SUBQUERY_DEPTH_MAX {
            return refuse(format!(
                "more than {SUBQUERY_DEPTH_MAX} subqueries are nested in each other"
            ));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.subquery_depth -= usize::from(is_subquery(expr));
        ControlFlow::Continue(())
    }
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. })
}

/// How many sets a GROUP BY makes: its parts are combined with each other.
fn grouping_sets(group_by: &GroupByExpr) -> u64 {
    let (expressions, modifiers) = match group_by {
        GroupByExpr::All(modifiers) => (&[][..], modifiers),
        GroupByExpr::Expressions(expressions, modifiers) => (expressions.as_slice(), modifiers),
    };
    let cube = |columns: usize| 1_u64.checked_shl(u32::try_from(columns).unwrap_or(u32::MAX));
    let sets = |expr: &Expr| match expr {
        Expr::Cube(columns) => cube(columns.len()).unwrap_or(u64::MAX),
        Expr::Rollup(columns) => columns.len() as u64 + 1,
        Expr::GroupingSets(sets) => sets.len() as u64,
        _ => 1,
    };
    let written = expressions.iter().fold(1_u64, |all, expr| all.saturating_mul(sets(expr)));
    match modifiers.is_empty() {
        true => written,
        // WITH CUBE and WITH ROLLUP: as the larger of the two.
        false => written.saturating_mul(cube(expressions.len()).unwrap_or(u64::MAX)),
    }
}

fn refuse(message: String) -> ControlFlow<Box<SqlError>> {
    let error = SqlError::new(ErrorCode::InvalidStatement, message).with_hint(HINT);
    ControlFlow::Break(Box::new(error))
}

/// As [`refuse`], with the place of a SELECT.
fn refuse_at(select: &Select, message: String) -> ControlFlow<Box<SqlError>> {
    let mut error = SqlError::new(ErrorCode::InvalidStatement, message).with_hint(HINT);
    error.position = position_of(select.select_token.0.span);
    ControlFlow::Break(Box::new(error))
}
