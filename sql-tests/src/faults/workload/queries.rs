//! Reads of one value up to reads of very many rows, each of which is whole or an error.
//!
//! ```text
//! facts (n, m, t)    n = 1 ..= rows, m = 3n, t a text of about a hundred bytes
//! ```
//! Rows are counted and added up as they come, so a result may be larger than memory. A result
//! that ends without an error and is not whole is a wrong answer. An error after the first row is
//! counted apart and must say that something cannot be reached; an error before it is a failed
//! query.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{Unanswered, Workload, all};
use crate::client::{Client, ClientError};
use crate::faults::choices::Choices;
use crate::faults::session::{STATEMENT_MAX, Session};
use crate::faults::traffic::Traffic;
use crate::faults::violation::{Kind, Violation, expect};

/// The workload.
#[derive(Debug)]
pub struct Queries {
    readers: usize,
    rows: i64,
}

impl Queries {
    /// So many clients that read from a table of so many rows; a million of them are more than
    /// 100 MiB.
    pub fn new(readers: usize, rows: i64) -> Self {
        Self { readers, rows }
    }
}

/// A query, and the number and the sum of the first column of its rows.
struct Query {
    sql: String,
    rows: i64,
    sum: i64,
}

/// 1 + 2 + ... + n
fn sum_to(n: i64) -> i64 {
    n * (n + 1) / 2
}

/// One of the queries of a table of so many rows.
fn query(rows: i64, choices: &mut Choices) -> Query {
    let part = 1 + choices.below(rows.unsigned_abs()).cast_signed();
    match choices.below(5) {
        0 => Query { sql: "SELECT cast(1 AS BIGINT)".to_owned(), rows: 1, sum: 1 },
        1 => Query { sql: "SELECT count(*) FROM facts".to_owned(), rows: 1, sum: rows },
        2 => {
            let sql = format!("SELECT sum(m) FROM facts WHERE n <= {part}");
            Query { sql, rows: 1, sum: 3 * sum_to(part) }
        }
        3 => {
            let sql = format!("SELECT n, t FROM facts WHERE n <= {part} ORDER BY n LIMIT 1000");
            let first = part.min(1_000);
            Query { sql, rows: first, sum: sum_to(first) }
        }
        _ => {
            let sql = "SELECT n, m, t FROM facts".to_owned();
            Query { sql, rows, sum: sum_to(rows) }
        }
    }
}

/// What has come of a result so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Came {
    rows: i64,
    sum: i64,
}

impl Came {
    fn take(&mut self, batch: &RecordBatch) {
        let first = batch.column(0).as_primitive::<Int64Type>();
        self.rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        self.sum += first.values().iter().sum::<i64>();
    }
}

/// Fetches a result to its end, or to its error; what came before is in `came`.
async fn fetch(url: &str, sql: &str, came: &mut Came) -> Result<(), ClientError> {
    let mut client = Client::connect(url).await?;
    let mut stream = client.query(sql).await?;
    while let Some(batch) = stream.next_batch().await? {
        came.take(&batch);
    }
    Ok(())
}

/// Judges the end of a result: whole, cut off by an error (`Some(true)`), or failed before a row
/// came (`Some(false)`).
fn judge(
    query: &Query,
    came: Came,
    end: &Result<(), ClientError>,
) -> Result<Option<bool>, Violation> {
    let Query { sql, rows, sum } = query;
    match end {
        Ok(()) => {
            let whole = Came { rows: *rows, sum: *sum };
            expect(came == whole, Kind::WrongAnswer, || {
                format!("{came:?}, not {whole:?}, came of {sql}, and no error")
            })?;
            Ok(None)
        }
        Err(_) if came.rows == 0 => Ok(Some(false)),
        Err(error) => {
            let typed = matches!(error.code(), Some("UNAVAILABLE" | "CONNECTION_LOST"));
            expect(typed, Kind::Unavailable, || {
                format!("{sql} is cut off by {:?}: {error}", error.code())
            })?;
            Ok(Some(true))
        }
    }
}

async fn read(
    url: String,
    rows: i64,
    traffic: Arc<Traffic>,
    mut choices: Choices,
) -> Result<(), Violation> {
    while !traffic.is_over() {
        let query = query(rows, &mut choices);
        let mut came = Came::default();
        let fetched = fetch(&url, &query.sql, &mut came);
        let end = tokio::time::timeout(STATEMENT_MAX, fetched).await;
        let end = end.map_err(|_| Violation::new(Kind::Hang, format!("{} hangs", query.sql)))?;
        match judge(&query, came, &end)? {
            None => traffic.answered(),
            Some(in_the_middle) => {
                let error = end.err().map(|error| error.to_string()).unwrap_or_default();
                traffic.failed(in_the_middle, &format!("{}: {error}", query.sql)).await;
            }
        }
    }
    Ok(())
}

#[async_trait]
impl Workload for Queries {
    async fn prepare(&mut self, session: &mut Session) -> Result<(), Violation> {
        let rows = self.rows;
        let table = format!(
            "CREATE TABLE facts AS SELECT value AS n, 3 * value AS m, \
             'a text of the row ' || value || ' and ' || repeat('x', 80) AS t \
             FROM generate_series(1, {rows})"
        );
        session.write_until_acknowledged(&table).await.map(|_| ())
    }

    async fn run(
        &mut self,
        url: &str,
        traffic: &Arc<Traffic>,
        choices: &mut Choices,
    ) -> Result<(), Violation> {
        let mut tasks = JoinSet::new();
        for _ in 0..self.readers {
            tasks.spawn(read(url.to_owned(), self.rows, Arc::clone(traffic), choices.fork()));
        }
        all(tasks).await.map(|_| ())
    }

    async fn check(&mut self, session: &mut Session) -> Result<Unanswered, Violation> {
        let sql = "SELECT count(*), sum(n), sum(m) FROM facts";
        let whole = vec![vec![self.rows, sum_to(self.rows), 3 * sum_to(self.rows)]];
        let found = session.read_until_answered(sql).await?;
        expect(found == whole, Kind::Lost, || format!("facts has {found:?}, not {whole:?}"))?;
        Ok(Unanswered::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ServerError;

    fn error(code: &str) -> Result<(), ClientError> {
        let (code, message) = (code.to_owned(), "why".to_owned());
        let error = ServerError { code, message, hint: None, sqlstate: None, query_id: None };
        Err(ClientError::Server(Box::new(error)))
    }

    fn judged(rows: i64, end: &Result<(), ClientError>) -> Result<Option<bool>, Kind> {
        let query = Query { sql: "SELECT n".to_owned(), rows: 3, sum: 6 };
        judge(&query, Came { rows, sum: sum_to(rows) }, end).map_err(|violation| violation.kind)
    }

    #[test]
    fn a_short_result_without_an_error_is_a_wrong_answer() {
        assert_eq!(judged(3, &Ok(())), Ok(None));
        assert_eq!(judged(2, &Ok(())), Err(Kind::WrongAnswer));
        assert_eq!(judged(0, &Ok(())), Err(Kind::WrongAnswer));
    }

    #[test]
    fn an_error_in_the_middle_must_be_one_of_reach() {
        assert_eq!(judged(2, &error("UNAVAILABLE")), Ok(Some(true)));
        assert_eq!(judged(2, &error("INTERNAL")), Err(Kind::Unavailable));
        assert_eq!(judged(0, &error("INTERNAL")), Ok(Some(false)), "it is a failed query");
    }
}
