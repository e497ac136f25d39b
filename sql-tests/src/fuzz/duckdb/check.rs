//! A query on the tested database and on DuckDB, and what came of it.

use super::{spelling, values};
use crate::fuzz::answers::{Answer, Failure};
use crate::fuzz::ast::Query;
use crate::fuzz::explained::{explain_duckdb_failure, explain_failure_beside_duckdb};
use crate::fuzz::oracles::{Databases, Difference, Kind, ROWS_SHOWN, Verdict, code};
use crate::fuzz::oracles::{is_totally_ordered, is_valid_failure};

/// What came of two answers.
enum Judged {
    Is(Verdict),
    Differs(Kind, String),
}

/// Runs the check.
pub(in crate::fuzz) async fn check(query: &Query, databases: Databases<'_>) -> Verdict {
    let Some(duckdb) = databases.duckdb else {
        return Verdict::Lost("there is no DuckDB: name a Python by --duckdb".to_owned());
    };
    let (expected_sql, got_sql) = (spelling::query(query).to_string(), query.to_string());
    let (expected, got) =
        tokio::join!(duckdb.query(&expected_sql), databases.tested.query(&got_sql));
    let judged = match (&expected, &got) {
        (Err(error), _) if error.is_lost() => Judged::Is(Verdict::Lost(error.message.clone())),
        (Ok(expected), Ok(got)) => rows(query, expected, got),
        // No query, as shrinking makes them.
        (Err(error), Err(own)) if code(own).starts_with("42") && !is_about_values(error) => {
            Judged::Is(Verdict::Unsupported(format!("by both: {error}")))
        }
        (Err(_), Err(own)) if !is_valid_failure(own) => {
            Judged::Differs(Kind::Fails(code(own)), format!("an error of both: {own}"))
        }
        (_, Err(own)) if code(own) == "0A000" => {
            Judged::Is(Verdict::Unsupported(format!("by the tested database: {own}")))
        }
        (Err(error), Err(_)) if is_about_values(error) => {
            Judged::Is(Verdict::BothFail(error.message.clone()))
        }
        (Err(error), _) if !is_about_values(error) => {
            Judged::Is(Verdict::Unsupported(format!("by DuckDB: {error}")))
        }
        (Err(error), Ok(got)) => match explain_duckdb_failure((&got_sql, got), databases).await {
            Some(reason) => Judged::Is(Verdict::Explained(reason)),
            None => {
                Judged::Differs(Kind::Answers, format!("an answer for an error of DuckDB: {error}"))
            }
        },
        (_, Err(own)) => match explain_failure_beside_duckdb(own, &got_sql, databases).await {
            Some(reason) => Judged::Is(Verdict::Explained(reason)),
            None => Judged::Differs(Kind::Fails(code(own)), format!("an error: {own}")),
        },
    };
    match judged {
        Judged::Is(verdict) => verdict,
        Judged::Differs(kind, text) => {
            let (expected, got) = ((expected_sql, shown(expected)), (got_sql, shown(got)));
            Verdict::Different(Difference { kind, text, expected, got })
        }
    }
}

/// What two answers differ in, or the verdict when they do not.
fn rows(query: &Query, expected: &Answer, got: &Answer) -> Judged {
    match values::mismatch(expected, got, is_totally_ordered(query)) {
        Ok(None) => Judged::Is(Verdict::Same),
        Ok(Some(text)) => Judged::Differs(Kind::Rows, text),
        Err(error) => {
            Judged::Is(Verdict::Unsupported(format!("values cannot be compared: {error}")))
        }
    }
}

/// Whether DuckDB fails at a value: `22...` is what its errors of values are taken for.
fn is_about_values(error: &Failure) -> bool {
    code(error).starts_with("22")
}

fn shown(answer: Result<Answer, Failure>) -> String {
    match answer {
        Ok(answer) => answer.shown(ROWS_SHOWN),
        Err(error) => format!("ERROR {}: {error}", code(&error)),
    }
}
