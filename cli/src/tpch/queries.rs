//! The 22 queries.

use crate::workload::Query;

macro_rules! query {
    ($name:literal) => {
        Query { name: $name, sql: include_str!(concat!($name, ".sql")) }
    };
}

/// All queries in order: one SELECT each, but q15, which makes a view, selects from it and drops it.
pub(super) static QUERIES: [Query; 22] = [
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::statements;

    #[test]
    fn every_query_is_one_statement_but_the_one_with_a_view() {
        for query in &QUERIES {
            let expected = if query.name == "q15" { 3 } else { 1 };
            assert_eq!(statements(query.sql).len(), expected, "{}", query.name);
        }
    }
}
