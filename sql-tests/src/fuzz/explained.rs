//! Differences that are meant: a closed list, each with its reason and with a check of its own, so
//! that it explains nothing else.

use super::answers::{Answer, Failure, Match};
use super::ast::{Body, Expr, Query, Relation};
use super::oracles::Databases;

/// Why the tested database may fail where plain DataFusion answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Explained {
    /// Plain DataFusion wraps integers that overflow; ours is an error (ARCHITECTURE I11).
    /// Checked: DataFusion in one process with our arithmetic fails as well.
    Overflow,
    /// `x IN (SELECT ...)` inside another expression is never NULL, but false: DataFusion's mark
    /// joins do not know NULL (`sql-tests/upstream/in-subquery-never-null.md`). Only the oracles
    /// without a reference see it. Checked: there is such an IN, and plain DataFusion gives both
    /// answers as well.
    InIsNeverNull,
    /// A predicate that is constant and not true is pushed below an aggregate without keys, which
    /// has a row nevertheless (`sql-tests/upstream/constant-below-aggregate.md`). Checked: there is
    /// such an aggregate in FROM, and plain DataFusion gives both answers as well.
    ConstantBelowAggregate,
}

impl Explained {
    /// Its name in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overflow => "integer overflow is an error",
            Self::InIsNeverNull => "DataFusion's IN (SELECT ...) is never NULL",
            Self::ConstantBelowAggregate => "DataFusion pushes constants below aggregates",
        }
    }
}

/// The reason for which two queries that should agree do not.
pub(super) async fn explain_rows(
    query: &Query,
    expected: (&str, &Answer),
    got: (&str, &Answer),
    databases: Databases<'_>,
) -> Option<Explained> {
    let is_in = got.0.contains(" IN (SELECT");
    if !is_in && !has_summary(query.as_select()?.from.as_ref()?) {
        return None;
    }
    for (sql, answer) in [expected, got] {
        let plain = databases.plain.query(sql).await.ok()?;
        if plain.mismatch(answer, Match::RowsOnly).is_some() {
            return None;
        }
    }
    Some(if is_in { Explained::InIsNeverNull } else { Explained::ConstantBelowAggregate })
}

/// Whether a relation is an aggregate without keys, or has one below it.
fn has_summary(relation: &Relation) -> bool {
    const AGGREGATES: [&str; 8] =
        ["count(", "sum(", "min(", "max(", "avg(", "bool_and(", "bool_or(", "string_agg("];
    let is_aggregate = |expr: &Expr| {
        AGGREGATES.iter().any(|name| expr.template.starts_with(name))
            && !expr.template.contains(" OVER (")
    };
    match relation {
        Relation::Table { .. } => false,
        Relation::Join { left, right, .. } => has_summary(left) || has_summary(right),
        Relation::Derived { query, .. } => match &query.body {
            Body::Select(select) => {
                let is_summary = select.group.is_empty()
                    && select.items.iter().any(|(expr, _)| is_aggregate(expr));
                is_summary || select.from.as_ref().is_some_and(has_summary)
            }
            Body::SetOperation { .. } | Body::Values(_) => false,
        },
    }
}

/// The reason for which the tested database fails at a query that plain DataFusion answers.
pub(super) async fn explain(
    error: &Failure,
    sql: &str,
    databases: Databases<'_>,
) -> Option<Explained> {
    if error.sqlstate.as_deref() != Some("22003") {
        return None;
    }
    let checked = databases.checked.query(sql).await;
    let is_overflow = |error: &Failure| error.message.contains("out of range");
    checked.err().filter(is_overflow).map(|_| Explained::Overflow)
}
