//! The 43 queries.

use crate::workload::Query;

macro_rules! query {
    ($name:literal) => {
        Query { name: $name, sql: include_str!(concat!($name, ".sql")) }
    };
}

/// All queries in order: one SELECT each.
pub(super) static QUERIES: [Query; 43] = [
    query!("q0"),
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
    query!("q23"),
    query!("q24"),
    query!("q25"),
    query!("q26"),
    query!("q27"),
    query!("q28"),
    query!("q29"),
    query!("q30"),
    query!("q31"),
    query!("q32"),
    query!("q33"),
    query!("q34"),
    query!("q35"),
    query!("q36"),
    query!("q37"),
    query!("q38"),
    query!("q39"),
    query!("q40"),
    query!("q41"),
    query!("q42"),
];
