//! Making a failing query, and the data it fails on, small.
//!
//! Greedy: of all queries that are one cut smaller, shortest first, the first that still fails in
//! the same way takes the place of the query, until none does. Then rows go, by halves.
//!
//! Invariant: at most [`Budget`] runs, and a result that was seen to fail. Cuts need not give
//! queries that mean something: what every database refuses does not fail in the same way.
//!
//! - `cuts`: the queries that are one cut smaller

mod cuts;

use std::collections::HashSet;

use super::answers::Failure;
use super::data::Table;
use super::databases::Database;
use super::oracles::{Case, Databases, Difference, Kind, Verdict};

/// How much shrinking may try.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Smaller queries.
    pub queries: usize,
    /// Smaller tables: each is loaded anew.
    pub loads: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { queries: 600, loads: 120 }
    }
}

/// A failing case, as small as it got.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The case.
    pub case: Case,
    /// The tables that its query names.
    pub tables: Vec<Table>,
    /// How it fails.
    pub difference: Difference,
}

/// Shrinks the query, then the data. Leaves the smaller tables in the databases.
pub async fn shrink(
    case: Case,
    difference: Difference,
    tables: &[Table],
    databases: Databases<'_>,
    budget: Budget,
) -> Shrunk {
    let (case, difference) = smaller_query(case, difference, databases, budget.queries).await;
    let text = case.query.to_string();
    let tables = tables.iter().filter(|table| is_named(&text, &table.name)).cloned().collect();
    let shrunk = Shrunk { case, tables, difference };
    smaller_data(shrunk, databases, budget.loads).await
}

async fn smaller_query(
    mut case: Case,
    mut difference: Difference,
    databases: Databases<'_>,
    mut budget: usize,
) -> (Case, Difference) {
    let mut tried = HashSet::new();
    'smaller: loop {
        let mut cuts: Vec<_> =
            cuts::of_query(&case.query).into_iter().map(|cut| (cut.to_string(), cut)).collect();
        // A cut may be longer than what it stands for: NULL of a type for a short name.
        cuts.sort_by_key(|(text, _)| text.len());
        for (text, query) in cuts {
            if budget == 0 {
                return (case, difference);
            }
            if !tried.insert(text) {
                continue;
            }
            budget -= 1;
            let smaller = Case { query, ..case.clone() };
            if let Some(found) = still(&smaller, &difference.kind, databases).await {
                (case, difference) = (smaller, found);
                continue 'smaller;
            }
        }
        return (case, difference);
    }
}

/// How a case fails, when it does so in the same way.
async fn still(case: &Case, kind: &Kind, databases: Databases<'_>) -> Option<Difference> {
    match case.check(databases).await {
        Verdict::Different(difference) if difference.kind == *kind => Some(difference),
        _ => None,
    }
}

async fn smaller_data(mut shrunk: Shrunk, databases: Databases<'_>, mut budget: usize) -> Shrunk {
    for index in 0..shrunk.tables.len() {
        // All rows first, then halves, quarters and so on.
        let mut part = shrunk.tables[index].rows().max(1);
        while part > 0 {
            let mut start = 0;
            while start < shrunk.tables[index].rows() {
                let smaller = without_rows(&shrunk.tables[index], start, part);
                match try_table(&mut shrunk, index, smaller, databases, &mut budget).await {
                    Ok(true) => {}
                    Ok(false) => start += part,
                    Err(_) => return shrunk,
                }
            }
            part /= 2;
        }
        let smaller = without_columns(&shrunk.tables[index], &shrunk.case.query.to_string());
        if try_table(&mut shrunk, index, smaller, databases, &mut budget).await.is_err() {
            return shrunk;
        }
    }
    shrunk
}

/// Takes a smaller table if the case still fails with it; otherwise puts the old one back.
async fn try_table(
    shrunk: &mut Shrunk,
    index: usize,
    smaller: Table,
    databases: Databases<'_>,
    budget: &mut usize,
) -> Result<bool, Failure> {
    *budget = budget.checked_sub(1).ok_or_else(|| Failure::new("no more loads"))?;
    load(&smaller, databases).await?;
    match still(&shrunk.case, &shrunk.difference.kind, databases).await {
        Some(difference) => {
            shrunk.tables[index] = smaller;
            shrunk.difference = difference;
            Ok(true)
        }
        None => {
            load(&shrunk.tables[index], databases).await?;
            Ok(false)
        }
    }
}

/// Makes a table anew in each of the databases.
pub async fn load(table: &Table, databases: Databases<'_>) -> Result<(), Failure> {
    let all: [&dyn Database; 3] = [databases.plain, databases.checked, databases.tested];
    for database in all.into_iter().chain(databases.duckdb) {
        database.load(table).await?;
    }
    Ok(())
}

fn without_rows(table: &Table, start: usize, count: usize) -> Table {
    let mut index = 0;
    let mut smaller = table.clone();
    for load in &mut smaller.loads {
        load.retain(|_| {
            index += 1;
            !(start..start + count).contains(&(index - 1))
        });
    }
    smaller.loads.retain(|load| !load.is_empty());
    smaller
}

/// The table with the columns only that its style or the query name.
fn without_columns(table: &Table, query: &str) -> Table {
    let is_used = |name: &str| {
        name == "id" || query.contains(&format!(".{name}")) || is_named(&table.style, name)
    };
    let used: Vec<_> = table.columns.iter().map(|column| is_used(&column.name)).collect();
    let mut smaller = table.clone();
    let mut keep = used.iter().copied().cycle();
    smaller.columns.retain(|_| keep.next().unwrap_or(true));
    for row in smaller.loads.iter_mut().flatten() {
        let mut keep = used.iter().copied();
        row.retain(|_| keep.next().unwrap_or(true));
    }
    smaller
}

/// Whether a name stands in a text as a word.
fn is_named(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}
