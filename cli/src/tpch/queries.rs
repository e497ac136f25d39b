//! The 22 queries, and running them through a client.

use std::time::{Duration, Instant};

use basalt_sql_tests::client::{Answer, Client, ClientError};

use crate::shell::Splitter;

/// One query of the benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Its name, `q1` to `q22`.
    pub name: &'static str,
    /// Its text: one SELECT, but q15, which makes a view, selects from it and drops it.
    pub sql: &'static str,
}

macro_rules! query {
    ($name:literal) => {
        Query { name: $name, sql: include_str!(concat!($name, ".sql")) }
    };
}

/// All queries in order.
pub const QUERIES: [Query; 22] = [
    query!("q1"),
    query!("q2"),
    query!("q3"),
    query!("q4"),
    query!("q5"),
    query!("q6"),
    query!("q7"),
    query!("q8"),
    query!("q9"),
    query!("q10"),
    query!("q11"),
    query!("q12"),
    query!("q13"),
    query!("q14"),
    query!("q15"),
    query!("q16"),
    query!("q17"),
    query!("q18"),
    query!("q19"),
    query!("q20"),
    query!("q21"),
    query!("q22"),
];

/// The statements of a query's text.
pub fn statements(sql: &str) -> Vec<String> {
    let mut splitter = Splitter::default();
    let mut statements = Vec::new();
    for line in sql.lines() {
        statements.extend(splitter.push_line(line));
    }
    statements.extend(splitter.finish());
    statements.into_iter().map(|statement| statement.text).collect()
}

/// Runs a query to its last row. Returns the rows and the time until the last one was here.
///
/// # Errors
/// What the server says.
pub async fn run(client: &mut Client, query: &Query) -> Result<(u64, Duration), ClientError> {
    let statements = statements(query.sql);
    let start = Instant::now();
    let mut rows = 0;
    for statement in &statements {
        if let Answer::Rows(mut stream) = client.run(statement).await? {
            while let Some(batch) = stream.next_batch().await? {
                rows += batch.num_rows() as u64;
            }
        }
    }
    Ok((rows, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_one_statement_but_the_one_with_a_view() {
        for query in &QUERIES {
            let expected = if query.name == "q15" { 3 } else { 1 };
            assert_eq!(statements(query.sql).len(), expected, "{}", query.name);
        }
    }
}
