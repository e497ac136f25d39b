//! A workload: tables, where their rows come from, and queries.
//!
//! For `basalt demo` and `basalt bench`. Rows are generated from nothing but a scale, so that a
//! measurement can be repeated anywhere; files that are there are taken as they are.

mod generate;
mod load;

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use basalt_sql_tests::client::{Answer, Client, ClientError};

pub use generate::{generate, parquet_rows};
pub use load::{Loaded, drop_tables, load};

use crate::shell::Splitter;

/// Tables and queries that belong together.
#[derive(Debug)]
pub struct Workload {
    /// Its name, as `basalt bench` takes it.
    pub name: &'static str,
    /// All tables, those that others refer to first.
    pub tables: &'static [Table],
    /// All queries in order.
    pub queries: &'static [Query],
    /// What touches few rows, or changes some.
    pub operations: &'static [Operation],
}

/// A statement that is run many times, each time about other rows.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// What it does.
    pub name: &'static str,
    /// The table whose number of rows its text depends on.
    pub table: &'static str,
    /// Its text the n-th time.
    pub sql: fn(n: u64, rows: u64) -> String,
    /// How often it is run for each run of a query.
    pub times: u16,
}

/// Rows of a part of a table, as batches.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// One table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns as SQL.
    pub columns: &'static str,
    /// Where its rows go; empty where that is left to the engine.
    pub distribution: &'static str,
    /// How they are sorted.
    pub sort_key: &'static str,
    /// About how many rows it has at scale 1.
    pub rows_per_scale: f64,
    /// Whether it grows with the scale.
    pub is_scaled: bool,
    /// Arrow's view of the columns.
    pub schema: fn() -> SchemaRef,
    /// The rows of part `part` (from 1) of `parts`, at a scale.
    pub batches: fn(f64, i32, i32) -> Batches,
}

/// How tables are declared beside their columns and sort keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct Declared {
    /// Copies of each; as many as usual where nothing is said.
    pub replicas: Option<u16>,
    /// Whether where their rows go is left to the engine.
    pub is_auto: bool,
}

impl Table {
    /// The statement that creates it, when it is not there.
    pub fn create(&self, declared: Declared) -> String {
        let Self { name, columns, distribution, sort_key, .. } = self;
        let Declared { replicas, is_auto } = declared;
        let distribution = if is_auto { "" } else { distribution };
        let replicas = replicas.map(|n| format!("REPLICAS {n}")).unwrap_or_default();
        let clauses = [*sort_key, &replicas].map(|clause| format!(" {clause}")).concat();
        format!("CREATE TABLE IF NOT EXISTS {name} ({columns}) {distribution}{clauses}")
    }

    /// About how many rows it has at a scale.
    pub fn rows_about(&self, scale: f64) -> f64 {
        if self.is_scaled { self.rows_per_scale * scale } else { self.rows_per_scale }
    }
}

/// One query.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Its name, like `q1`.
    pub name: &'static str,
    /// Its text: one SELECT, or a few statements of which the last rows count.
    pub sql: &'static str,
}

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
    run_statements(client, &statements(query.sql)).await
}

/// Runs statements to their last row. Returns the rows and the time until the last one was here.
///
/// # Errors
/// What the server says.
pub async fn run_statements(
    client: &mut Client,
    statements: &[impl AsRef<str>],
) -> Result<(u64, Duration), ClientError> {
    let start = Instant::now();
    let mut rows = 0;
    for statement in statements {
        if let Answer::Rows(mut stream) = client.run(statement.as_ref()).await? {
            while let Some(batch) = stream.next_batch().await? {
                rows += batch.num_rows() as u64;
            }
        }
    }
    Ok((rows, start.elapsed()))
}
