//! What an answer is checked against.
//!
//! - **differential**: the same query on plain DataFusion in one process
//! - **ternary logic partitioning** (TLP): a predicate is true, false or NULL for every row, so
//!   that `Q` is `Q WHERE p`, `Q WHERE NOT p` and `Q WHERE p IS NULL` together. Manuel Rigger and
//!   Zhendong Su, *Finding Bugs in Database Systems via Query Partitioning*, OOPSLA 2020.
//! - **NoREC**: `count(*)` of the rows WHERE p is the sum of `CASE WHEN p` over all rows, where
//!   nothing can be pushed down or pruned. Rigger and Su, *Detecting Optimization Bugs in Database
//!   Engines via Non-Optimizing Reference Engine Construction*, ESEC/FSE 2020.
//!
//! - **DuckDB** ([`super::duckdb`]): the same query on an engine that has nothing of DataFusion
//!
//! TLP and NoREC ask the cluster only, so they also see what DataFusion itself does wrongly; DuckDB
//! sees what is wrong in the same way however a query is written.

use super::answers::{Failure, Match};
use super::ast::{Body, Expr, Family, Grouping, Query, Relation, Select};
use super::databases::Database;
use super::explained::{Explained, explain, explain_answer, explain_reference, explain_rows};

/// Which check a query goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Oracle {
    /// Against plain DataFusion.
    Differential,
    /// Ternary logic partitioning.
    Tlp,
    /// Against the query that cannot be optimised.
    NoRec,
    /// Against DuckDB.
    DuckDb,
}

impl Oracle {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Differential => "differential",
            Self::Tlp => "tlp",
            Self::NoRec => "norec",
            Self::DuckDb => "duckdb",
        }
    }
}

/// A query and its check.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The check.
    pub oracle: Oracle,
    /// The query; with the predicate of TLP and NoREC in WHERE or HAVING.
    pub query: Query,
}

/// The databases of one check.
#[derive(Clone, Copy)]
pub struct Databases<'a> {
    /// Plain DataFusion.
    pub plain: &'a dyn Database,
    /// DataFusion in one process with our arithmetic.
    pub checked: &'a dyn Database,
    /// DataFusion in one process that pushes no filters down.
    pub without_pushdown: &'a dyn Database,
    /// DataFusion in one process without some of its physical rules.
    pub with_few_rules: &'a dyn Database,
    /// DuckDB, when there is one.
    pub duckdb: Option<&'a dyn Database>,
    /// What is tested.
    pub tested: &'a dyn Database,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// As it should be.
    Same,
    /// Neither side answers, or the predicate itself fails for a row.
    BothFail(String),
    /// Plain DataFusion cannot plan it, or DuckDB, or the tested database says so beside DuckDB: nothing
    /// is known.
    Unsupported(String),
    /// What it is checked against answers nothing any more.
    Lost(String),
    /// Different, for a known reason.
    Explained(Explained),
    /// Different.
    Different(Difference),
}

/// How two answers differ; shrinking keeps the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The kind.
    pub kind: Kind,
    /// What differs.
    pub text: String,
    /// The query that gives what is expected, and what it gives.
    pub expected: (String, String),
    /// The query that gives something else, and what it gives.
    pub got: (String, String),
}

/// Kinds of differences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Names or types of columns.
    Schema,
    /// Rows.
    Rows,
    /// An error with this SQLSTATE where the other side answers.
    Fails(String),
    /// An answer where the other side gives an error.
    Answers,
}

/// Rows of an answer that a report shows.
pub(super) const ROWS_SHOWN: usize = 20;

impl Case {
    /// The two queries that must agree, and in what; `None` when the query lacks the predicate
    /// that the check is about, and when they are asked of two engines in two ways (DuckDB).
    pub fn pair(&self) -> Option<(String, String, Match)> {
        match self.oracle {
            Oracle::DuckDb => None,
            Oracle::Differential => {
                let sql = self.query.to_string();
                let how = if is_totally_ordered(&self.query) {
                    Match::InOrder
                } else {
                    Match::AsMultiset
                };
                Some((sql.clone(), sql, how))
            }
            Oracle::Tlp => {
                let (whole, parts) = partitions(self.query.as_select()?)?;
                Some((whole, parts, Match::RowsOnly))
            }
            Oracle::NoRec => {
                let (counted, summed) = counts(self.query.as_select()?)?;
                Some((summed, counted, Match::RowsOnly))
            }
        }
    }

    /// Runs the check.
    pub async fn check(&self, databases: Databases<'_>) -> Verdict {
        if self.oracle == Oracle::DuckDb {
            return super::duckdb::check::check(&self.query, databases).await;
        }
        let Some((expected_sql, got_sql, how)) = self.pair() else { return Verdict::Same };
        let reference = match self.oracle {
            Oracle::Differential => databases.plain,
            Oracle::Tlp | Oracle::NoRec | Oracle::DuckDb => databases.tested,
        };
        let (expected, got) =
            tokio::join!(reference.query(&expected_sql), databases.tested.query(&got_sql));
        let (kind, text) = match (&expected, &got) {
            (Ok(expected), Ok(got)) => match expected.mismatch(got, how) {
                None => return Verdict::Same,
                Some(mismatch) if mismatch.is_schema => (Kind::Schema, mismatch.text),
                Some(mismatch) => {
                    let reason = match self.oracle {
                        Oracle::Differential => {
                            let query = (&self.query, got_sql.as_str());
                            explain_reference(query, expected, got, how, databases).await
                        }
                        Oracle::Tlp | Oracle::NoRec | Oracle::DuckDb => {
                            let expected = (expected_sql.as_str(), expected);
                            let got = (got_sql.as_str(), got);
                            explain_rows(&self.query, expected, got, databases).await
                        }
                    };
                    if let Some(reason) = reason {
                        return Verdict::Explained(reason);
                    }
                    (Kind::Rows, mismatch.text)
                }
            },
            (Err(_), Err(own)) if is_valid_failure(own) => {
                return Verdict::BothFail(own.message.clone());
            }
            (Err(_), Err(own)) => (Kind::Fails(code(own)), format!("an error of both: {own}")),
            (Ok(_), Err(error)) => {
                if let Some(verdict) = self.failed(error, &got_sql, databases).await {
                    return verdict;
                }
                (Kind::Fails(code(error)), format!("an error: {error}"))
            }
            (Err(error), Ok(got)) => {
                let verdict = match self.oracle {
                    Oracle::Differential => match refused(error) {
                        Some(verdict) => Some(verdict),
                        None => explain_answer(error, (&got_sql, got), how, databases)
                            .await
                            .map(Verdict::Explained),
                    },
                    _ => self.failed(error, &expected_sql, databases).await,
                };
                match verdict {
                    Some(verdict) => return verdict,
                    None => (Kind::Answers, format!("an answer for an error: {error}")),
                }
            }
        };
        let shown = |answer: Result<super::answers::Answer, Failure>| match answer {
            Ok(answer) => answer.shown(ROWS_SHOWN),
            Err(error) => format!("ERROR {}: {error}", code(&error)),
        };
        let expected = (expected_sql, shown(expected));
        Verdict::Different(Difference { kind, text, expected, got: (got_sql, shown(got)) })
    }

    /// What an error of the tested database means when it is no difference.
    async fn failed(
        &self,
        error: &Failure,
        sql: &str,
        databases: Databases<'_>,
    ) -> Option<Verdict> {
        let is_about_data = code(error).starts_with("22");
        if self.oracle != Oracle::Differential {
            // One query evaluates the predicate where the other does not, and it may overflow.
            if is_about_data {
                return Some(Verdict::BothFail(error.message.clone()));
            }
            if let Err(error) = databases.plain.query(sql).await {
                return Some(Verdict::Unsupported(error.message));
            }
        }
        explain(error, sql, databases).await.map(Verdict::Explained)
    }
}

/// What an error of plain DataFusion means when ours answers: that it does not do it at all.
fn refused(error: &Failure) -> Option<Verdict> {
    const REFUSALS: [&str; 11] = [
        "This feature is not implemented",
        "Physical plan does not support logical expression",
        // Its plan is wrong, and it knows.
        "SanityCheckPlan",
        "Physical input schema should be the same as the one converted from logical input schema",
        "null_aware anti join only supports single column join key",
        // Of aggregates that differ in casts only.
        "Schema contains duplicate unqualified field name",
        // A window whose keys are constant, it says, and sorted they are not.
        "Expects PARTITION BY expression to be ordered",
        "All partition by columns should have an ordering",
        // It computes with other types than its own rules agreed on.
        "Casting from Time64(ns) to Timestamp(",
        "Invalid comparison operation: ",
        "Invalid arithmetic operation: ",
    ];
    let is_refusal = REFUSALS.iter().any(|refusal| error.message.contains(refusal));
    is_refusal.then(|| Verdict::Unsupported(error.message.clone()))
}

/// Whether the tested database may fail so at a query that nobody answers: generated queries are valid,
/// so it is their data, or something that is not implemented and says so.
pub(super) fn is_valid_failure(error: &Failure) -> bool {
    let code = code(error);
    code.starts_with("22") || code == "0A000"
}

/// The SQLSTATE, or nothing.
pub(super) fn code(error: &Failure) -> String {
    error.sqlstate.clone().unwrap_or_default()
}

/// Whether the order covers every column, so that ties are equal rows.
pub(super) fn is_totally_ordered(query: &Query) -> bool {
    let mut body = &query.body;
    let items = loop {
        match body {
            Body::Select(select) => break &select.items,
            Body::SetOperation { left, .. } => body = &left.body,
            Body::Values(_) => return false,
        }
    };
    let is_key = |name: &String| query.order_by.iter().any(|(key, _)| key.template == *name);
    !query.order_by.is_empty() && items.iter().all(|(_, name)| is_key(name))
}

/// The whole, and its three parts together.
fn partitions(select: &Select) -> Option<(String, String)> {
    let is_having = !select.group.is_empty();
    if !is_having && select.having.is_some() {
        // A part without the one row says nothing of the others.
        return None;
    }
    let predicate = if is_having { select.having.clone() } else { select.filter.clone() }?;
    let part = |predicate: Option<Expr>| match is_having {
        true => Select { having: predicate, ..select.clone() },
        false => Select { filter: predicate, ..select.clone() },
    };
    let not = |template: &str| Some(Expr::new(Family::Bool, template, vec![predicate.clone()]));
    let parts = [Some(predicate.clone()), not("(NOT {})"), not("({} IS NULL)")];
    let parts: Vec<_> = parts.map(|predicate| format!("({})", part(predicate))).into();
    let whole = part(None).to_string();
    let is_aggregate = select.items.iter().any(|(expr, _)| combining(expr).is_some());
    if !is_having && is_aggregate {
        let combined: Option<Vec<_>> = select
            .items
            .iter()
            .map(|(expr, name)| Some(format!("{}({name}) AS {name}", combining(expr)?)))
            .collect();
        let parts = parts.join(" UNION ALL ");
        return Some((whole, format!("SELECT {} FROM ({parts}) parts", combined?.join(", "))));
    }
    let operator = if select.is_distinct { " UNION " } else { " UNION ALL " };
    Some((whole, parts.join(operator)))
}

/// The aggregate that combines those of parts.
fn combining(expr: &Expr) -> Option<&'static str> {
    match expr.template.as_str() {
        "count(*)" | "count({})" | "sum({})" => Some("sum"),
        "min({})" => Some("min"),
        "max({})" => Some("max"),
        _ => None,
    }
}

/// The count of the rows that fulfil the predicate, and the sum over all rows of whether they do.
fn counts(select: &Select) -> Option<(String, String)> {
    let filter = select.filter.clone()?;
    let from: Relation = select.from.clone()?;
    let query = |expr: Expr, filter| {
        let items = vec![(expr, "n".to_owned())];
        let (from, grouping) = (Some(from.clone()), Grouping::Plain);
        Select { items, from, filter, grouping, ..Select::default() }.to_string()
    };
    let summed = Expr::new(
        Family::Int,
        "coalesce(sum(CASE WHEN {} THEN 1 ELSE 0 END), 0)",
        vec![filter.clone()],
    );
    Some((query(Expr::leaf(Family::Int, "count(*)"), Some(filter)), query(summed, None)))
}
