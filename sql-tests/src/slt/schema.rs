//! A schema for every file, so that the tables of one are not in the way of another.
//!
//! ```text
//! CREATE SCHEMA slt_x_7   SET search_path = slt_x_7   (the file)   DROP SCHEMA slt_x_7 CASCADE
//! ```
//!
//! Nothing in a file is rewritten. A server whose `search_path` does not decide where a table is
//! made gets no schemas: [`Schemas::probe`] tries it out.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::engine::{Engine, EngineError, Output};
use super::text;

/// Makes schemas on a server that has them.
#[derive(Debug)]
pub struct Schemas {
    /// Another one for each run of the program, since a run that was killed leaves its schemas.
    prefix: String,
    next: AtomicU32,
}

impl Schemas {
    /// Tries out whether a server has schemas that decide where tables are made.
    ///
    /// # Errors
    /// What the server does not do.
    pub async fn probe(engine: &mut dyn Engine) -> Result<Self, EngineError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("slt_{:x}_{:x}", now.as_millis(), std::process::id());
        let schemas = Self { prefix, next: AtomicU32::new(0) };
        let name = schemas.next();
        create(engine, &name).await?;
        let tried = try_out(engine, &name).await;
        let dropped = drop(engine, &name).await;
        tried.and(dropped).map(|()| schemas)
    }

    /// A name that no file has yet.
    pub(super) fn next(&self) -> String {
        format!("{}_{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

async fn try_out(engine: &mut dyn Engine, name: &str) -> Result<(), EngineError> {
    enter(engine, name).await?;
    engine.run("CREATE TABLE probe (a INTEGER)").await?;
    engine.run("SELECT a FROM probe").await?;
    if tables(engine, name).await?.is_empty() {
        engine.run("DROP TABLE probe").await?;
        return Err(EngineError::new("search_path does not decide where tables are made"));
    }
    Ok(())
}

/// Makes a schema.
pub(super) async fn create(engine: &mut dyn Engine, name: &str) -> Result<(), EngineError> {
    engine.run(&format!("CREATE SCHEMA {name}")).await.map(|_| ())
}

/// Makes a schema that of a connection.
pub(super) async fn enter(engine: &mut dyn Engine, name: &str) -> Result<(), EngineError> {
    engine.run(&format!("SET search_path = {name}")).await.map(|_| ())
}

/// Drops a schema with everything in it, one by one where the server knows no CASCADE.
pub(super) async fn drop(engine: &mut dyn Engine, name: &str) -> Result<(), EngineError> {
    if engine.run(&format!("DROP SCHEMA {name} CASCADE")).await.is_ok() {
        return Ok(());
    }
    // Views first: they may hold on to tables, and on to each other.
    let mut tables = tables(engine, name).await?;
    tables.sort_by_key(|(_, is_view)| !is_view);
    for _ in 0..tables.len() {
        let mut left = Vec::new();
        for (table, is_view) in tables {
            let kind = if is_view { "VIEW" } else { "TABLE" };
            if engine.run(&format!("DROP {kind} {name}.\"{table}\"")).await.is_err() {
                left.push((table, is_view));
            }
        }
        tables = left;
    }
    engine.run(&format!("DROP SCHEMA {name}")).await.map(|_| ())
}

/// The tables and views of a schema, and whether each is a view.
async fn tables(engine: &mut dyn Engine, name: &str) -> Result<Vec<(String, bool)>, EngineError> {
    let sql = format!(
        "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = '{name}'"
    );
    let Output::Rows { batches, .. } = engine.run(&sql).await? else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for batch in &batches {
        text::append_rows(batch, &mut rows).map_err(|error| EngineError::new(error.to_string()))?;
    }
    let table = |row: &Vec<String>| (row[0].clone(), row[1].to_uppercase().contains("VIEW"));
    Ok(rows.iter().map(table).collect())
}
